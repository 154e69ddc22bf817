"""Pages run without a browser, and the traces they are run on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from vico_lens.store.writer import TraceWriter
from vico_lens.testing.traces import fake_calls, fake_sites, fake_tokens, fake_trace

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
APP = DASHBOARDS / "app.py"
if str(DASHBOARDS) not in sys.path:
    sys.path.insert(0, str(DASHBOARDS))  # as `streamlit run` does, for the plain modules in shared/

Open = Callable[..., AppTest]


def said(app: AppTest) -> str:
    """Everything that the page wrote as HTML, styles left out."""
    return "\n".join(block.proto.body for block in app.get("html") if not block.proto.body.startswith("<style"))


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    """Run a page on a trace, as `streamlit run app.py -- TRACE --root FOLDER` and a click on the page would."""

    def opened(page: str = "overview", path: Path | None = None, *, root: Path | None = None, **query: str) -> AppTest:
        folder = root or (tmp_path if path is None else path.parent)
        monkeypatch.setattr(sys, "argv", ["app.py", *([str(path)] if path else []), "--root", str(folder)])
        app = AppTest.from_file(str(APP), default_timeout=120)
        for name, value in query.items():
            app.query_params[name] = value
        if page != "overview":
            app.switch_page(f"views/{page}.py")
        return app.run()

    return opened


@pytest.fixture(scope="session")
def one_concept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("one") / "circle.zarr"
    fake_trace(prompt="a red circle", to=path, video=True)
    return path


@pytest.fixture(scope="session")
def without_temporal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cross-attention only, and no video."""
    path = tmp_path_factory.mktemp("cross") / "cross.zarr"
    sites = [site for site in fake_sites("unet") if site.kind == "cross"]
    tokens = fake_tokens("a red circle and a blue square", 20)
    return write(path, sites, tokens, {"prompt": "a red circle and a blue square"})


def write(path: Path, sites, tokens, attrs: dict[str, object]) -> Path:  # type: ignore[no-untyped-def]
    """Store one step of imagined calls."""
    writer = TraceWriter(path)
    writer.start({**attrs, "coverage": {"seen": len(sites), "recorded": len(sites), "left_out": {}}}, [tokens])
    for call in fake_calls(sites, tokens, step=0):
        writer.write(call)
    writer.finish_step(0)
    writer.close()
    return path


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Zarr store of something else."""
    import xarray as xr

    path = tmp_path_factory.mktemp("foreign") / "weather.zarr"
    xr.Dataset({"rain": ("day", np.arange(3.0))}).to_zarr(path, zarr_format=3, consolidated=False)
    return path


@pytest.fixture
def empty_folder(tmp_path: Path) -> Path:
    path = tmp_path / "nothing.zarr"
    path.mkdir()
    return path
