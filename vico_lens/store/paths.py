"""Paths of traces: whether one is free, and how a folder becomes a zip."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from vico_lens.errors import InputError, StoreError

__all__ = ["local_path", "pack", "partial_of"]


def local_path(to: str | os.PathLike[str]) -> Path:
    """Return where a trace is to be written, ``~`` expanded.

    Raises
    ------
    InputError
        If it is no path.
    StoreError
        If it is a URL, or names no folder.

    Examples
    --------
    >>> local_path("runs/crab.zarr").name
    'crab.zarr'
    """
    if not isinstance(to, str | os.PathLike):
        raise InputError(f"to: expected a path, or None for memory; got {type(to).__name__}.")
    if "://" in str(to):
        raise StoreError(
            f"expected a folder or a .zip on this machine to write a trace to, got {to}. Write it here, then copy it."
        )
    path = Path(to).expanduser()
    if not path.name:
        raise StoreError(f"expected a path that ends in the name of the trace, got {str(to)!r}. Add a name such as run.zarr.")
    return path


def partial_of(path: Path) -> Path:
    """Folder into which a zip is written until it is closed."""
    return path.with_name(path.name + ".partial")


def pack(folder: Path, path: Path) -> None:
    """Pack a finished folder into a zip, which appears whole or not at all, and remove the folder."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(folder).as_posix())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    shutil.rmtree(folder)
