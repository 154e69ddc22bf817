"""Paths that come from a browser: confined to the folders that the server's owner allowed.

Whoever reaches the page can type any path into it, or put one into a link. So a path is followed to where it really ends, through
``..`` and symbolic links, and refused unless that place lies in an allowed folder; and a folder is refused if a link inside it
leads out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vico_lens.errors import InputError

__all__ = ["confine", "find_traces", "folder_inside"]

_LONGEST = 1024
_ENTRIES = 200_000
_SKIPPED = frozenset({"node_modules", "site-packages", "__pycache__"})


def confine(text: str, roots: Sequence[Path]) -> Path:
    """Turn what was typed into an existing path inside `roots`.

    Parameters
    ----------
    text : str
        Absolute, or relative to one of `roots` (the first in which it exists).
    roots : sequence of Path
        Allowed folders, resolved.

    Raises
    ------
    InputError
        If the text is no path, leads out of `roots`, or to nothing. The message never says whether a place outside exists.
    """
    typed = text.strip()
    if not typed or len(typed) > _LONGEST or "\0" in typed or not typed.isprintable():
        raise InputError(f"expected a path of 1 to {_LONGEST} printable characters; got {len(typed)} that are not such a path.")
    if "://" in typed:
        raise InputError("expected a path on this computer; got an address. Download the trace first, then give its path.")
    candidates = [root / Path(typed).expanduser() for root in roots]  # an absolute path stays what it is
    allowed = [place for path in candidates if _inside(place := Path(os.path.realpath(path)), roots)]
    if not allowed:
        listed = ", ".join(map(str, roots))
        raise InputError(
            f"{typed} lies outside the folders that this dashboard may read ({listed}). "
            "Move the trace there, or start the dashboard with --root FOLDER."
        )
    found = next((place for place in allowed if place.exists()), None)
    if found is None:
        raise InputError(f"expected a trace at {typed}; there is nothing. Check the path.")
    return found


def folder_inside(folder: Path, roots: Sequence[Path]) -> None:
    """Refuse a folder that holds a symbolic link out of `roots`: reading the store would follow it.

    Raises
    ------
    InputError
        If there is such a link, or so many files that they cannot be looked through.
    """
    seen = 0
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                if entry.is_symlink() and not _inside(Path(os.path.realpath(entry.path)), roots):
                    raise InputError(
                        f"{folder.name} holds a symbolic link that leads out of the folders this dashboard may read "
                        f"({entry.name}); it is not opened."
                    )
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
        if seen > _ENTRIES:
            raise InputError(f"{folder.name} holds more than {_ENTRIES:,} files, too many to check; pack it into a .zip.")


def find_traces(roots: Sequence[Path], *, depth: int = 2, most: int = 30) -> list[Path]:
    """List what looks like a trace near the top of `roots`: ``*.zarr`` folders and ``*.zarr.zip`` files, newest first."""
    found: set[Path] = set()
    waiting = [(root, depth) for root in roots if root.is_dir()]
    for folder, left in waiting:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)[:2000]
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _SKIPPED or entry.is_symlink():
                continue
            if entry.name.endswith((".zarr", ".zarr.zip")):
                found.add(Path(entry.path))
            elif left and entry.is_dir():
                waiting.append((Path(entry.path), left - 1))
    return sorted(found, key=lambda path: (-path.stat().st_mtime, str(path)))[:most]


def _inside(place: Path, roots: Sequence[Path]) -> bool:
    return any(place == root or root in place.parents for root in roots)
