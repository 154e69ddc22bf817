"""Every page of the dashboards as a picture, desk and phone, light and dark: ``python -m benchmarks.screenshots [FOLDER]``.

The pictures are kept to be looked at (CI keeps the folder); nothing is compared. Balance is shown after a run, and the flow lab
solved. A page that asks the outside for anything, or whose scripts fail, ends the command with an error.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.browser_support import Visit, browsing, launch, serving, settled
from vico_lens.errors import VicoLensError

FOLDER = Path("screenshots")
SIZES = {"desk": (1440, 900), "phone": (390, 844)}
THEMES = ("light", "dark")
PAGES = ("overview", "maps", "flow", "compare", "balance", "runs", "flow_lab")
TALLEST = 12_000  # pixels; what Chromium draws in one picture


def main(folder: Path = FOLDER) -> list[Path]:
    """Write one PNG a page, size and theme; returns their paths."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as place, serving(folder=Path(place)) as address, sync_playwright() as playwright:
        browser = launch(playwright)
        for name, size in SIZES.items():
            for theme in THEMES:
                with browsing(browser, size=size, theme=theme, patience=180) as context:
                    for page in PAGES:
                        made.append(folder / f"{page}-{name}-{theme}.png")
                        _take(Visit.of(context), address, page, size, made[-1])
                        print(made[-1], flush=True)
        browser.close()
    return made


def _take(visit: Visit, address: str, name: str, size: tuple[int, int], target: Path) -> None:
    page = visit.page
    page.goto(f"{address}/{'' if name == 'overview' else name}")
    settled(page)
    _prepare(page, name)
    inner = page.locator("[data-testid=stMain]")
    if inner.evaluate("node => node.scrollWidth > node.clientWidth + 1"):
        print(f"{target.stem}: the page is wider than the window", flush=True)
    height = inner.evaluate("node => node.scrollHeight")
    page.set_viewport_size({"width": size[0], "height": min(TALLEST, max(size[1], height + 8))})
    settled(page)
    page.mouse.move(0, 0)
    page.screenshot(path=target)
    page.close()
    if visit.outside or visit.complaints:
        raise VicoLensError(f"{name}: asked for {visit.outside}, scripts said {visit.complaints}.")


def _prepare(page: Any, name: str) -> None:
    """Bring a page into the state that is worth a picture."""
    if name == "balance":
        page.get_by_role("button", name="Run both").click()
        page.get_by_text("What it cost").wait_for()
    if name == "flow_lab":
        page.get_by_role("button", name="Fix the prediction").click()
        page.get_by_role("button", name="Push the rest").click()
        page.get_by_text("What other methods read").wait_for()
    settled(page)


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:2]))
    except VicoLensError as error:
        sys.exit(str(error))
