"""Zipped traces from a browser: checked member by member, then unpacked into the server's own temporary folder.

A zip is a list of promises made by whoever packed it. Names are checked before anything is written, sizes are counted while bytes
come out (not believed), and nothing in it is ever executed or unpickled: what the store may contain is checked again when it is
opened (`vico_lens.store.safety`).
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from vico_lens.errors import InputError

__all__ = ["LARGEST", "receive"]

LARGEST = 200 << 20
"""Bytes of an upload; ``server.maxUploadSize`` in ``.streamlit/config.toml`` says the same to Streamlit."""
_UNPACKED = 2 << 30
_MEMBERS = 50_000
_RATIO = 200  # attention compresses 2 to 20 times; a bomb, thousands
_FREE_RATIO = 1 << 20  # small members may compress as they like
_KEPT = 6
_BLOCK = 1 << 20


def receive(content: BinaryIO, size: int, folder: Path) -> Path:
    """Check an uploaded zip and unpack it below `folder`.

    Parameters
    ----------
    content : file object
        The upload, seekable.
    size : int
        Its size in bytes, as the server counted it.
    folder : Path
        Temporary folder of the server. The oldest of several uploads are removed from it.

    Returns
    -------
    Path
        The folder of the trace: the place in the zip where ``zarr.json`` lies. The same upload gives the same folder.

    Raises
    ------
    InputError
        If it is too large, no zip, unsafe in any member, a bomb, or holds no trace.
    """
    if size > LARGEST:
        raise InputError(
            f"expected an upload of at most {LARGEST >> 20} MB; got {size >> 20:,} MB. Put the trace into a folder that the "
            "dashboard may read, and open it by its path."
        )
    place = folder / f"upload-{_digest(content)}"
    if not place.exists():
        partial = place.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with zipfile.ZipFile(content) as archive:
                _unpack(archive, _checked(archive.infolist()), partial)
            partial.rename(place)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
            raise InputError(f"expected a zip of a trace; got a file that cannot be unpacked ({error}).") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in sorted(folder.glob("upload-*"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    return _root(place)


def _checked(members: list[zipfile.ZipInfo]) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Refuse names that lead out, links, too many members, and sizes that only a bomb has."""
    if len(members) > _MEMBERS:
        raise InputError(f"expected a zip of at most {_MEMBERS:,} files; got {len(members):,}.")
    if sum(member.file_size for member in members) > _UNPACKED:
        raise InputError(f"expected a zip that unpacks to at most {_UNPACKED >> 30} GB; this one says it is larger.")
    found, seen = [], set()
    for member in members:
        name = PurePosixPath(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if (
            name.is_absolute()
            or ".." in name.parts
            or "\\" in member.filename
            or ":" in member.filename
            or "\0" in member.filename
        ):
            raise InputError(
                "expected plain relative names in the zip; one leads out of the folder it is unpacked into. Refused."
            )
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.flag_bits & 1:
            raise InputError("expected plain files in the zip; got a link, a device or an encrypted file. Refused.")
        if member.file_size > _FREE_RATIO and member.file_size > _RATIO * max(1, member.compress_size):
            raise InputError(
                f"a file in the zip is packed more than {_RATIO} times, which attention never is: a zip bomb. Refused."
            )
        if name in seen:
            raise InputError("expected every name once in the zip; one comes twice. Refused.")
        seen.add(name)
        if not member.is_dir():
            found.append((member, name))
    return found


def _unpack(archive: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, PurePosixPath]], folder: Path) -> None:
    """Write the members, counting what really comes out."""
    written = 0
    folder.mkdir(parents=True)
    for member, name in members:
        target = folder.joinpath(*name.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("xb") as copy:
            while block := source.read(_BLOCK):
                written += len(block)
                if written > _UNPACKED:
                    raise InputError(f"the zip unpacks to more than {_UNPACKED >> 30} GB, whatever it says of itself: refused.")
                copy.write(block)


def _root(place: Path) -> Path:
    """Find the trace: at the top of the zip, or in its one folder."""
    entries = list(place.iterdir())
    for folder in (place, *(entries if len(entries) == 1 else ())):
        if (folder / "zarr.json").is_file():
            return folder
    raise InputError("expected a zip with a trace in it (zarr.json at the top, or in its one folder); there is none.")


def _digest(content: BinaryIO) -> str:
    content.seek(0)
    found = hashlib.file_digest(content, "sha256").hexdigest()[:20]
    content.seek(0)
    return found
