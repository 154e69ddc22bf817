"""A real Chromium, and the dashboards served for it: what journeys, screenshots and browser timings share.

Playwright drives a Chromium that is installed already; its own download is never asked for. Whatever a page wants from outside
this machine is refused and written down.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vico_lens.errors import VicoLensError

__all__ = ["FLAGS", "Visit", "browsing", "find_chromium", "launch", "serving", "settled"]

DASHBOARD = Path(__file__).parents[1] / "dashboards" / "app.py"

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
)
"""Chromium asks for nothing by itself, resolves no name but this machine's, and runs as root in a container."""


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome; None without one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def serving(*arguments: str, folder: Path, wait: float = 120.0) -> Iterator[str]:
    """Serve the dashboards from `folder` on a free port, and stop them at the end.

    Parameters
    ----------
    *arguments : str
        As after ``vico-lens dash``: traces, ``--root FOLDER``.
    folder : Path
        Working folder of the server; its output goes to ``server.log`` there.
    wait : float
        Seconds until it must answer.

    Yields
    ------
    str
        Address of the server, without a slash at the end.

    Raises
    ------
    VicoLensError
        If it ends or does not answer.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(DASHBOARD), "--server.port", str(port), "--server.headless", "true"]
    with (folder / "server.log").open("w") as log:
        # One thread, as in every test: on a busy machine more of them make tiny tensors slow.
        server = subprocess.Popen(
            [*command, "--", *arguments],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            address = f"http://localhost:{port}"
            deadline = time.monotonic() + wait
            while not _answers(f"{address}/_stcore/health"):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise VicoLensError(f"expected the dashboards to answer at {address}: {(folder / 'server.log').read_text()}")
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@dataclass(slots=True)
class Visit:
    """One page in the browser, and what it wanted or complained of.

    Attributes
    ----------
    page : playwright.sync_api.Page
    outside : list of str
        Addresses beyond this machine that were asked for; `FLAGS` let none of them be found.
    complaints : list of str
        Errors of scripts.
    """

    page: Any
    outside: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, context: Any) -> Visit:
        """Open a page in a browser context, and listen to it."""
        visit = cls(context.new_page())
        visit.page.on("request", lambda request: visit._note(request.url))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        return visit

    def _note(self, url: str) -> None:
        if not url.startswith(("http://localhost:", "data:", "blob:")):
            self.outside.append(url)


@contextmanager
def browsing(browser: Any, *, size: tuple[int, int] = (1440, 900), theme: str = "light", patience: float = 60.0) -> Iterator[Any]:
    """Open a browser context, which has a cache and a storage of its own: `Visit.of` opens pages in it.

    Parameters
    ----------
    browser : playwright.sync_api.Browser
        From `launch`.
    size : tuple of int
        Width and height of the window in CSS pixels.
    theme : {"light", "dark"}
        What the operating system is said to prefer.
    patience : float
        Seconds after which waiting for something is given up.
    """
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
    context.set_default_timeout(1000 * patience)
    try:
        yield context
    finally:
        context.close()


def settled(page: Any, *, quiet: float = 0.6) -> None:
    """Wait until Streamlit has run the page and drawn it, and nothing moved for `quiet` seconds."""
    page.wait_for_selector("[data-testid=stApp]")
    still = 0.0
    while still < quiet:
        busy = page.locator(
            "[data-testid=stApp][data-test-script-state=running], [data-testid=stSpinner], [data-testid=stSkeleton]"
        )
        still = 0.0 if busy.count() else still + 0.1
        page.wait_for_timeout(100)


def launch(playwright: Any, executable: str | None = None, more: Sequence[str] = ()) -> Any:
    """Start the installed Chromium.

    Raises
    ------
    VicoLensError
        If there is none.
    """
    found = executable or find_chromium()
    if found is None:
        raise VicoLensError("expected an installed Chromium, got none: apt-get install chromium.")
    return playwright.chromium.launch(executable_path=found, args=[*FLAGS, *more], env={**os.environ, "HOME": "/tmp"})
