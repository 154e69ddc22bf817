"""A tutorial as a notebook: reading the Python file, its answers, and whether the committed notebook says the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat

__all__ = ["FOLDER", "Notebook", "find", "mismatches", "read", "reword", "solutions", "tags", "with_solutions", "write"]

Notebook = Any  # nbformat.NotebookNode: a dict with attributes, which nbformat does not type
FOLDER = Path(__file__).parents[1]
_FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def find(names: list[str] | None = None) -> list[Path]:
    """Tutorials in order; those whose file name starts with one of `names`, if any are given.

    Raises
    ------
    SystemExit
        If a name fits no tutorial.
    """
    every = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
    if not names:
        return every
    missing = [name for name in names if not any(path.name.startswith(name) for path in every)]
    if missing:
        raise SystemExit(f"no tutorial is called {', '.join(missing)}; there are {', '.join(path.stem for path in every)}")
    return [path for path in every if any(path.name.startswith(name) for name in names)]


def read(path: Path) -> Notebook:
    """The tutorial's cells, with ids and metadata that are the same each time."""
    import jupytext

    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(_METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
    return notebook


def write(notebook: Notebook, path: Path) -> Path:
    """Write the notebook beside its Python file."""
    nbformat.validate(notebook)
    place = path.with_suffix(".ipynb")
    place.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return place


def tags(cell: Notebook) -> list[str]:
    """Tags of a cell."""
    return list(cell.metadata.get("tags", []))


def solutions(cell: Notebook) -> list[str]:
    """Code of a folded answer: the Python fences of a Markdown cell tagged ``answer``."""
    if cell.cell_type != "markdown" or "answer" not in tags(cell):
        return []
    return [code.rstrip() for code in _FENCE.findall(cell.source)]


def with_solutions(notebook: Notebook) -> Notebook:
    """A copy in which each answer is followed by its code as a cell, so that running it runs the answer too."""
    copied = nbformat.from_dict(notebook)
    copied.cells = []
    for cell in notebook.cells:
        copied.cells.append(nbformat.from_dict(cell))
        copied.cells += [
            nbformat.v4.new_code_cell(code, id=f"{cell.id}-{number}", metadata={"tags": ["solution"]})
            for number, code in enumerate(solutions(cell))
        ]
    return copied


def mismatches(path: Path) -> list[str]:
    """What differs between a tutorial's Python file and its committed notebook; empty when they are in step."""
    place = path.with_suffix(".ipynb")
    if not place.exists():
        return [f"{place.name} is missing"]
    ours, theirs = read(path).cells, nbformat.read(place, as_version=4).cells
    found = [
        f"cell {number} of {place.name} is not that of {path.name}: {mine.source[:60]!r}, {other.source[:60]!r}"
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=False))
        if (mine.cell_type, mine.source, tags(mine)) != (other.cell_type, other.source, tags(other))
    ]
    if len(ours) != len(theirs):
        found.append(f"{path.name} has {len(ours)} cells, {place.name} {len(theirs)}")
    return found


def reword(path: Path) -> bool:
    """Bring changed words into the committed notebook without running it.

    Returns
    -------
    bool
        False, and nothing is written, if any code has changed, that of an answer included: then it must be run.
    """
    place = path.with_suffix(".ipynb")
    if not place.exists():
        return False
    ours, theirs = read(path), nbformat.read(place, as_version=4)
    if [_code(cell) for cell in ours.cells] != [_code(cell) for cell in theirs.cells]:
        return False
    for mine, other in zip(ours.cells, theirs.cells, strict=True):
        if mine.cell_type == "code":
            mine.outputs, mine.execution_count = other.outputs, other.execution_count
    write(ours, path)
    return True


def _code(cell: Notebook) -> list[str]:
    return [cell.source] if cell.cell_type == "code" else solutions(cell)
