"""The public face: every name resolves, importing costs little, and no module takes the place of a function."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import vico_lens

HEAVY = ["captum", "dask", "diffusers", "numba", "plotly", "streamlit", "torch", "transformers", "xarray"]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout


def test_import_is_fast_and_loads_nothing_heavy() -> None:
    code = (
        "import json, sys, time\n"
        "start = time.perf_counter()\n"
        "import vico_lens\n"
        "seconds = time.perf_counter() - start\n"
        f"print(json.dumps([seconds, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    runs = [json.loads(run_python(code)) for _ in range(3)]
    assert min(seconds for seconds, _ in runs) < 0.5
    assert runs[0][1] == []


@pytest.mark.parametrize("name", vico_lens.__all__)
def test_public_name_resolves(name: str) -> None:
    value = getattr(vico_lens, name)
    assert isinstance(value, ModuleType) == (name in {"plot", "testing", "tinyworld"})


def test_names_are_listed_once_and_in_order() -> None:
    assert sorted(set(vico_lens.__all__)) == vico_lens.__all__
    assert set(vico_lens.__all__) == {*vico_lens._HOME, *vico_lens._MODULES}
    assert set(vico_lens.__all__) <= set(dir(vico_lens))


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'attribut'.*attribute"):
        vico_lens.attribut  # noqa: B018


def test_no_function_shares_the_name_of_a_root_module() -> None:
    """Importing `vico_lens.x` sets `vico_lens.x`: a public function of that name would be lost."""
    package = Path(vico_lens.__file__).parent
    modules = {path.stem for path in package.glob("*.py")} | {path.name for path in package.iterdir() if path.is_dir()}
    assert modules & set(vico_lens._HOME) == set()
