"""Which trace is open: the one in the link, the one chosen in the sidebar, or the bundled demonstration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from shared import cached
from shared.roots import confine, folder_inside
from vico_lens.errors import InputError
from vico_lens.tinyworld.demonstration import demo_trace

__all__ = ["DEMOS", "Opened", "open_named", "version_of"]

DEMOS = {"demo": "Bundled demo, plain run", "demo-balanced": "Bundled demo, balanced run"}
"""Names of the bundled traces, as they stand in links, and what they are called."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A trace that was opened.

    Attributes
    ----------
    name : str
        What a link calls it: a name of `DEMOS`, or its path as typed.
    label : str
        What the page calls it; foreign text.
    path : Path
        Where it lies.
    version : str
        Changes when the file does.
    """

    name: str
    label: str
    path: Path
    version: str

    @property
    def key(self) -> tuple[str, str]:
        """First two arguments of every function in `cached`."""
        return str(self.path), self.version

    @property
    def tree(self) -> xr.DataTree:
        """The lazy tree, shared by all pages: never change it."""
        return cached.open_tree(*self.key)

    @property
    def prompt(self) -> str:
        """Prompt of the run; of a batch, the first."""
        told: Any = self.tree.attrs.get("prompt", "")
        return str(told[0]) if isinstance(told, list) and told else str(told)

    @property
    def video(self) -> Any:
        """uint8 ``(frame, row, column, channel)`` or None."""
        return cached.video_of(*self.key)


def open_named(name: str, roots: tuple[Path, ...]) -> Opened:
    """Open a trace by the name that a link or the sidebar gave.

    Raises
    ------
    VicoLensError
        If the path is refused, or there is no trace.
    """
    if name in DEMOS:
        path = demo_trace("balanced" if name == "demo-balanced" else "plain")
        opened = Opened(name, DEMOS[name], path, version_of(path))
    else:
        path = confine(name, roots)
        if path.is_dir():
            folder_inside(path, roots)
            if not (path / "zarr.json").is_file():
                raise InputError(_no_trace(path))
        opened = Opened(name, path.name, path, version_of(path))
    _ = opened.tree  # whatever is wrong with it is said here, once
    return opened


def version_of(path: Path) -> str:
    """Tell versions of a file apart, or of a folder by the file that is rewritten whenever anything is added."""
    told = (path / "zarr.json" if path.is_dir() else path).stat()
    return f"{told.st_mtime_ns}-{told.st_size}"


def _no_trace(path: Path) -> str:
    if (path / ".zgroup").exists() or (path / ".zarray").exists():
        return f"expected a trace written by vico-lens at {path.name}; got a Zarr version 2 store of something else."
    if not any(path.iterdir()):
        return (
            f"the folder {path.name} is empty: there is no trace in it. Record one with: vico-lens trace PROMPT --out {path.name}"
        )
    return f"expected a trace at {path.name}; got a folder without zarr.json. Choose the folder whose name ends in .zarr."
