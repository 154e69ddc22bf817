"""How fast the dashboards answer, measured in a browser: ``python -m benchmarks.dashboard [speed] [large]``.

``speed`` opens the bundled demonstration in a headless Chromium and times 20 page switches and 20 moves of the frame slider, each
from the input to the finished page in the browser's own clock. ``large`` writes a trace of more than 10 GB (real bytes on disk,
removed afterwards), opens it, and reads the memory of the server. Both write results/dashboard.json and results/dashboard.md.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks import Measured

APP = Path(__file__).parents[1] / "dashboards" / "app.py"
RESULTS = Path(__file__).parent / "results"
REPEATS = 20
PAGES = ("maps", "flow", "compare", "overview")
TARGETS = {
    "page switch, median": 1.5,
    "slider to updated figure, median": 0.7,
    "first page of the 10 GB trace, fresh server, best of 3": 5.0,
    "memory of the server": 1000.0,
}

# The page is done when the script has stopped, its title is there and nothing of the page before is left greyed out.
DONE = """() => { const app = document.querySelector('[data-testid="stApp"]');
  return app && app.getAttribute('data-test-script-state') === 'notRunning' && !!document.querySelector('.page-head h1')
    && !document.querySelector('[data-stale="true"]') && !document.querySelector('[data-testid="stSkeleton"]'); }"""
WAIT = f"""const done = {DONE}; const until = check => new Promise(go => {{
  const look = () => check() ? go() : setTimeout(look, 8); look(); }});"""
SWITCH = f"""async href => {{ {WAIT} const title = document.querySelector('.page-head h1').textContent;
  const start = performance.now();
  [...document.querySelectorAll(`[data-testid="stSidebarNav"] a`)].find(a => new URL(a.href).pathname === `/${{href}}`).click();
  const here = () => location.pathname === `/${{href}}` && done();
  await until(() => here() && document.querySelector('.page-head h1').textContent !== title);
  return performance.now() - start; }}"""
MOVED = f"""async before => {{ {WAIT} await until(() => document.querySelector('.panels img').src !== before && done());
  return performance.now(); }}"""


@contextmanager
def server(*arguments: str) -> Iterator[tuple[str, int]]:
    """Start the dashboards; gives the address and the process number."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.port", str(port), "--", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urlopen(f"http://localhost:{port}/_stcore/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://localhost:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser_page() -> Iterator[Any]:
    """Open a page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser.new_page(viewport={"width": 1440, "height": 900})
        browser.close()


def opened(page: Any, address: str) -> float:
    """Seconds from the request to the finished page."""
    start = time.perf_counter()
    page.goto(address, wait_until="commit", timeout=120_000)
    page.wait_for_function(DONE, timeout=120_000, polling=20)
    return time.perf_counter() - start


def speed() -> Iterator[Measured]:
    """Time page switches and slider moves on the bundled demonstration."""
    with server() as (address, _), browser_page() as page:
        yield Measured("first page, server just started", opened(page, address), "s")
        first = [page.evaluate(SWITCH, "" if name == "overview" else name) / 1000 for name in PAGES]
        yield Measured("page switch, first visit of each, slowest", max(first), "s")
        order = [PAGES[index % len(PAGES)] for index in range(REPEATS)]
        times = sorted(page.evaluate(SWITCH, "" if name == "overview" else name) / 1000 for name in order)
        yield Measured("page switch, median", statistics.median(times), "s")
        yield Measured("page switch, slowest", times[-1], "s")
        page.evaluate(SWITCH, "maps")
        slider = page.locator('[data-testid="stSlider"] input').first
        moves = []
        for index in range(REPEATS):
            before = page.evaluate("document.querySelector('.panels img').src")
            slider.focus()
            start = page.evaluate("performance.now()")
            page.keyboard.press("ArrowRight" if index % 14 < 7 else "ArrowLeft")
            moves.append((page.evaluate(MOVED, before) - start) / 1000)
        yield Measured("slider to updated figure, median", statistics.median(moves), "s")
        yield Measured("slider to updated figure, slowest", max(moves), "s")


def write_large(path: Path, steps: int = 84) -> None:
    """Write a trace of about 150 MB a step: two blocks of imagined attention, the same numbers at every step."""
    from vico_lens.store.writer import TraceWriter
    from vico_lens.testing.traces import fake_calls, fake_sites, fake_tokens

    tokens = fake_tokens("a red circle and a blue square", 32)
    sites = fake_sites("unet", grid=(16, 32, 32), coarse=(16, 16, 16), heads=2, tokens=32)
    calls = fake_calls(sites, tokens)
    writer = TraceWriter(path, form="weights")
    coverage = {"seen": len(sites), "recorded": len(sites), "left_out": {}}
    writer.start({"prompt": "a red circle and a blue square", "coverage": coverage}, [tokens])
    for step in range(steps):
        for call in calls:
            writer.write(replace(call, step=step, timestep=1000.0 - step))
        writer.finish_step(step)
    writer.close()


def large() -> Iterator[Measured]:
    """Open a trace of more than 10 GB; say how long the first page takes and what the server holds in memory.

    The trace is kept and used again if the environment variable VICO_LENS_LARGE names a folder for it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(os.environ.get("VICO_LENS_LARGE", scratch)) / "large.zarr"
        if not trace.exists():
            write_large(trace)
        yield Measured("size of the trace on disk", sum(f.stat().st_size for f in trace.rglob("*") if f.is_file()) / 1e9, "GB")
        cold: dict[str, list[float]] = {"bundled demonstration": [], "10 GB trace": []}
        for _ in range(3):  # by turns, because other work on the machine comes and goes
            for name, given in (("bundled demonstration", ()), ("10 GB trace", (str(trace),))):
                with server(*given) as (address, _process), browser_page() as page:
                    cold[name].append(opened(page, address))
        for name, times in cold.items():
            yield Measured(f"first page of the {name}, fresh server, best of 3", min(times), "s")
            yield Measured(f"first page of the {name}, fresh server, worst of 3", max(times), "s")
        with server(str(trace)) as (address, process), browser_page() as page:
            opened(page, address)
            yield Measured("first page of the 10 GB trace, running server", opened(page, address), "s")
            yield Measured("maps of the 10 GB trace, first visit", page.evaluate(SWITCH, "maps") / 1000, "s")
            yield Measured("memory of the server", _resident(process), "MB")


def _resident(process: int) -> float:
    """Largest resident memory that a process had, in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError(f"process {process} tells no VmHWM")


def main() -> None:
    chosen = sys.argv[1:] or ["speed", "large"]
    file = RESULTS / "dashboard.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    for name in chosen:
        load = os.getloadavg()[0]
        rows = [vars_of(row) for row in {"speed": speed, "large": large}[name]()]
        kept[name] = {"rows": rows, "load": round(load, 1), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    file.write_text(json.dumps(kept, indent=2) + "\n")
    lines = ["# How fast the dashboards answer", ""]
    lines += ["`python -m benchmarks.dashboard`: headless Chromium, server and browser on one machine.", ""]
    lines += ["| what | measured | asked for |", "|---|---|---|"]
    for part in kept.values():
        for row in part["rows"]:
            target = TARGETS.get(row["name"])
            asked = f"under {target:g} {row['unit']}" if target else ""
            lines.append(f"| {row['name']} | {row['value']:.3g} {row['unit']} | {asked} |")
    for name, part in kept.items():
        lines += ["", f"`{name}`: {part['machine']}, load average {part['load']} when it began (other work ran beside it)."]
    (RESULTS / "dashboard.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def vars_of(row: Measured) -> dict[str, Any]:
    """A row as JSON keeps it, told on the way."""
    print(f"{row.name}: {row.value:.3g} {row.unit}", flush=True)
    return {"name": row.name, "value": row.value, "unit": row.unit}


if __name__ == "__main__":
    main()
