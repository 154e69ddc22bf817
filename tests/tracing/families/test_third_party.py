"""A family of another package: installed by its entry point alone, listed, traced and proved. The package is the guide's code."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vico_lens.testing import check_family
from vico_lens.tracing.families import FAMILIES, family_of
from vico_lens.tracing.recording import trace

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-family.md"
PROMPT = "a red circle moving right"


def blocks(language: str) -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    return [part.partition("```")[0] for part in text.split(f"```{language}\n")[1:]]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The guide's model and row as a package among the installed ones."""
    package = tmp_path / "shortfilm"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "family.py").write_text("\n".join(blocks("python")[:2]), encoding="utf-8")
    info = tmp_path / "shortfilm-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shortfilm\nVersion: 0.1\n")
    (toml,) = blocks("toml")
    assert toml.splitlines()[0] == '[project.entry-points."vico_lens.families"]'
    (info / "entry_points.txt").write_text("\n".join(["[vico_lens.families]", *toml.replace('"', "").splitlines()[1:]]) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.setattr(FAMILIES, "_loaded", False)
    yield tmp_path
    if "shortfilm" in FAMILIES:
        FAMILIES.remove("shortfilm")
    for name in [name for name in sys.modules if name.partition(".")[0] == "shortfilm"]:
        del sys.modules[name]


def test_a_family_is_found_by_its_entry_point_and_proved(installed: Path) -> None:
    from shortfilm.family import ShortfilmPipeline  # type: ignore[import-not-found]

    torch.manual_seed(0)
    pipe = ShortfilmPipeline()
    assert family_of(pipe).name == "shortfilm"

    def run(**changes: object) -> object:
        return pipe(**{"prompt": PROMPT, "generator": torch.Generator().manual_seed(0)} | changes)

    report = check_family(pipe, run, PROMPT, swaps=[("red", "blue")], negative="a star")
    assert report.sites == {"spatial/3x4x6": 1, "temporal/3x4x6": 1, "cross/3x4x6": 1}
    with trace(pipe) as recording:
        run()
    assert recording.tree["cross/3x4x6"].weights.sizes["token"] == 16
    assert recording.tree.attrs["family"] == "shortfilm"


def test_the_command_line_lists_it(installed: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-c", "from vico_lens.cli import main; main()", "models", "--json"]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert "shortfilm" in json.dumps(json.loads(told))
