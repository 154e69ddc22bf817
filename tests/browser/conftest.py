"""One server and one Chromium for the journeys of a module; each has a window of its own and may ask nothing of the outside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser_support import Visit, browsing, find_chromium, launch, serving, settled

from vico_lens.testing.traces import fake_trace

FOREIGN = "a red circle and a blue square"


@dataclass(frozen=True)
class Served:
    """Where the dashboards answer, and the folder their paths are confined to."""

    address: str
    folder: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    fake_trace(prompt=FOREIGN, to=folder / "second.zarr", video=True)
    with serving("--root", str(folder), folder=folder) as address:
        yield Served(address, folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if find_chromium() is None and not os.environ.get("VICO_LENS_NO_SKIP"):
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install 'vico-lens[dev]')")
    with sync_api.sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()


@pytest.fixture(scope="module")
def window(browser: Any) -> Iterator[Any]:
    """A browser context for most journeys: the scripts of the frontend are fetched once."""
    with browsing(browser, patience=60) as context:
        yield context


@pytest.fixture
def visit(window: Any) -> Iterator[Visit]:
    """A page; whatever the journey was, nothing was asked of the outside and no script failed."""
    one = Visit.of(window)
    yield one
    one.page.close()
    assert one.outside == []
    assert one.complaints == []


@pytest.fixture
def go(visit: Visit, served: Served) -> Callable[[str], Any]:
    """Open a page of the dashboards and wait until it is drawn."""

    def opened(path: str = "") -> Any:
        visit.page.goto(f"{served.address}/{path}")
        settled(visit.page)
        return visit.page

    return opened
