"""The package's folders: few, each said in words what it is for, and no file too long to read in one go."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import vico_lens

ROOT = Path(__file__).parents[1]
PACKAGE = Path(vico_lens.__file__).parent
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)

LONGEST = 400
"""Lines of a Python file."""


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def docstring(folder: Path) -> str:
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""


def test_at_most_two_loose_modules_and_thirteen_rooms() -> None:
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == ["__init__.py", "errors.py"]
    assert len(ROOMS) <= 13
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {room.name for room in ROOMS}, "a folder without __init__.py is not a room"


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_every_folder_says_what_it_is_for(folder: Path) -> None:
    assert docstring(folder).partition("\n")[0].endswith("."), "the docstring begins with one whole sentence"


@pytest.mark.parametrize("room", ROOMS, ids=named)
def test_every_room_says_what_comes_in_and_what_it_imports(room: Path) -> None:
    words = " ".join(docstring(room).split())
    assert words.count(". ") >= 1, "expected at least two sentences"
    for pattern in (r"\bcomes? in\b", r"\b(goes|go) out\b", r"\bimports?\b"):
        assert re.search(pattern, words), f"{named(room)}: say what comes in, what goes out and what the room imports"


def test_no_file_is_longer_than_400_lines() -> None:
    files = [path for folder in ("vico_lens", "dashboards", "tools") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert len(lengths) > 200
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
