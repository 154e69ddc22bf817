"""The diagrams of the architecture page are what `tools.diagrams` draws, and what they name exists."""

from __future__ import annotations

import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.diagrams import DIAGRAMS, IMAGES, ROOMS, WALKS, outdated

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")


def test_committed_diagrams_are_up_to_date_and_shown() -> None:
    assert outdated() == [], "run: python -m tools.diagrams"
    assert [name for name in DIAGRAMS if f"images/{name}" not in ARCHITECTURE] == []
    for name in DIAGRAMS:
        assert ElementTree.parse(IMAGES / name).getroot().tag.endswith("svg")


def test_rooms_are_those_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert [[name for name, _ in row] for row in ROOMS] == [[name.strip(" ()") for name in layer.split(":")] for layer in layers]


@pytest.mark.parametrize("name", WALKS)
def test_a_walk_passes_each_room_once_and_names_files_that_exist(name: str) -> None:
    stops = [stop for stop in WALKS[name] if stop.room != "outside"]
    rooms = [stop.room for stop in stops]
    assert len(rooms) == len(set(rooms)) >= 2
    files = [(stop.room, file) for stop in stops for file, _ in stop.files]
    assert [path for path in files if not (ROOT / "vico_lens").joinpath(*path).is_file()] == []
    assert [file for _, file in files if Path(file).name not in ARCHITECTURE and file != "methods/rollout.py"] == []
