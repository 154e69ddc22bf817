"""Outputs that are whole or not there: a temporary sibling, renamed at the end.

What may go wrong with an output (it exists, its folder cannot be written) is found before any work starts, and what a failed run
wrote is removed, so that nothing half-written lies about under the name of a result.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from vico_lens.cli.output import note
from vico_lens.errors import InputError, StoreError

__all__ = ["bytes_on_disk", "check_input", "check_output", "entries_of_trace", "staged"]


def check_input(path: Path, what: str) -> Path:
    """Return `path` if it exists.

    Raises
    ------
    InputError
        If it does not; the message names the folder that was looked in.
    """
    if not path.exists():
        raise InputError(
            f"expected {what} at {str(path)!r}, which does not exist: check the path (working folder: {Path.cwd()})."
        )
    return path


def bytes_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else path.stat().st_size


def entries_of_trace(path: Path) -> list[str]:
    """What a folder holds if it is a Zarr store, which may be replaced as a whole; nothing if it is any other folder."""
    return [entry.name for entry in path.iterdir()] if (path / "zarr.json").is_file() else []


def check_output(path: Path, *, overwrite: bool, holds: Collection[str] = ()) -> None:
    """Refuse an output before work starts, if it exists or could not be written.

    Parameters
    ----------
    path : Path
        File or folder to be written.
    overwrite : bool
        Whether an existing one may be replaced.
    holds : collection of str
        Names that an output folder of this kind may hold. A folder with anything else in it was not written by us and is never
        replaced.

    Raises
    ------
    InputError
        If `path` exists and may not be replaced.
    StoreError
        If its folder cannot be written.
    """
    if path.exists() or path.is_symlink():
        if not overwrite:
            raise InputError(f"{str(path)!r} exists already: choose another name, or pass --overwrite to replace it.")
        if path.is_dir():
            foreign = sorted({entry.name for entry in path.iterdir()} - set(holds))
            if foreign:
                raise InputError(
                    f"{str(path)!r} is a folder that holds {foreign[0]!r}, which no such output has: choose another name."
                )
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(f"cannot write {str(path)!r}: {error.strerror or error} (in {str(folder)!r}).") from None


@contextmanager
def staged(path: Path, *, overwrite: bool = False, holds: Collection[str] = (), rescue: Collection[str] = ()) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to; it takes the name `path` at the end, or is removed if anything went wrong.

    Parameters
    ----------
    path, overwrite, holds
        As for `check_output`.
    rescue : collection of str
        Files of an output folder that are kept if something goes wrong after they were written: videos, which took long to
        sample. They are then in `path`, or beside it where `path` exists already.

    Yields
    ------
    Path
        A name in the same folder with the same suffix, which does not exist yet.
    """
    check_output(path, overwrite=overwrite, holds=holds)
    made = [parent for parent in path.absolute().parents if not parent.exists()]
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        yield partial
        if path.is_dir() and not path.is_symlink():
            old = path.with_name(f".{path.name}.old-{os.getpid()}")
            path.rename(old)
            partial.rename(path)
            shutil.rmtree(old)
        else:
            partial.replace(path)
    except BaseException:
        if not _rescued(partial, path, rescue):
            _remove(partial)
        for parent in made:  # deepest first; one that holds something else stays
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def _rescued(partial: Path, path: Path, rescue: Collection[str]) -> bool:
    """Keep the files that are worth it of a folder whose making failed, and say where they are."""
    files = [name for name in rescue if (partial / name).is_file()]
    if not files:
        return False
    for entry in list(partial.iterdir()):
        if entry.name not in files:
            _remove(entry)
    place = path if not path.exists() else path.with_name(f"{path.name}-unfinished-{os.getpid()}")
    partial.rename(place)
    note(f"what was sampled is kept: {', '.join(files)} in {place}.")
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
