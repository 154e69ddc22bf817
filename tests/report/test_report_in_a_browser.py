"""The page in a real Chromium with every network address blocked: all is drawn, nothing asked for, nothing foreign runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from browser_support import FLAGS, find_chromium
from test_report_page import EVIL, full, influence

from vico_lens.report import Outcome
from vico_lens.tinyworld import render

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("VICO_LENS_NO_SKIP"), reason="no Chromium on this machine (apt-get install chromium)"
)


def document(page: Path, profile: Path, width: int = 1440) -> tuple[str, str]:
    """The page's elements after its scripts ran, and what the console said."""
    command = [
        str(CHROMIUM),
        "--headless",
        *FLAGS,
        "--host-resolver-rules=MAP * ~NOTFOUND",  # the last one counts: not even this machine
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        f"--window-size={width},900",
        "--virtual-time-budget=8000",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.timeout(240)
def test_every_figure_is_drawn_and_no_script_of_a_prompt_runs(tmp_path):
    clip = render("a red circle moving right and a blue square moving up", seed=0).frames
    data = influence(names=[EVIL, "blue square"])
    page = full(
        tmp_path / "report.html",
        prompt=EVIL,
        before=Outcome(clip, data),
        after=Outcome(clip, data),
        log=None,
        methods={EVIL: data},
    )
    dom, console = document(page, tmp_path / "profile")
    boxes = re.findall(r'<div [^>]*data-figure="figure-[^>]*>', dom)
    assert len(boxes) >= 6 and all('data-drawn="light"' in box for box in boxes), boxes
    assert dom.count("main-svg") >= len(boxes)
    assert "<script>alert" not in dom and "<img src=x" not in dom
    assert console == "", console


def test_phone_width_has_no_sideways_scroll(tmp_path):
    report = full(tmp_path / "report.html")
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="{report.name}" style="width:390px;height:9000px;border:0"></iframe><p id="out"></p>'
        "<script>"
        "setTimeout(() => { const d = f.contentDocument.documentElement;"
        "out.textContent = d.scrollWidth + ' of ' + d.clientWidth; }, 6000);"
        "</script>"
    )
    # Only this test page reads another file; the report itself asks for nothing.
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    command += [
        "--disable-component-update",
        "--no-first-run",
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [*command, "--virtual-time-budget=7000", "--dump-dom", probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    wide, seen = re.search(r'<p id="out">(\d+) of (\d+)</p>', done.stdout).groups()
    assert int(wide) <= int(seen) == 390
