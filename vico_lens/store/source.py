"""The Zarr store of a trace: found in a folder or zip, opened by zarr-python, and read part by part.

A chunk that the writer wrote and that is no longer there is an error that names it. zarr-python would read it as missing values,
which look like attention that was never recorded.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, MemoryStore, ZipStore

from vico_lens.errors import StoreError
from vico_lens.store.lazy_weights import Read
from vico_lens.store.paths import partial_of

__all__ = ["Expected", "Reader", "open_root"]


def open_root(source: Any, name: str) -> zarr.Group:
    """Open the root group of a trace.

    Parameters
    ----------
    source : path or zarr store
        A folder, a zip (the trace may lie in one folder inside it), or a zarr store.
    name : str
        Of the source, for messages.

    Raises
    ------
    StoreError
        If there is no store, or it is damaged.
    """
    store, inside = source, ""
    if isinstance(source, str | os.PathLike):
        if "://" in str(source):
            raise StoreError(
                f"expected a trace on this machine, got the URL {source}. Copy it here first, or pass a zarr store, such as "
                "zarr.storage.FsspecStore.from_url(...), which reads it in place."
            )
        path = Path(source).expanduser()
        if not path.exists() and partial_of(path).exists():
            path = partial_of(path)  # a zip whose writer was killed
        if not path.exists():
            raise StoreError(f"expected a trace at {path}; there is nothing. Check the path.")
        store = path
        if path.is_file():
            store = _open_zip(path)
            inside = _folder_inside(store._zf.namelist(), path)
        elif not (path / "zarr.json").exists() and (traces := sorted(path.glob("*/zarr.json"))):
            raise StoreError(f"expected a trace at {path}; it lies one folder deeper: open {traces[0].parent}.")
    try:
        return zarr.open_group(store, path=inside, mode="r")
    except zarr.errors.GroupNotFoundError:
        raise StoreError(f"expected a trace at {name}; got something that is not a Zarr store. Check the path.") from None
    except (ValueError, KeyError, OSError) as error:
        raise StoreError(f"cannot read the root of the trace at {name}: {error}. The store is damaged.") from error


def _open_zip(path: Path) -> ZipStore:
    try:
        store = ZipStore(path, mode="r")
        store._sync_open()
    except Exception as error:  # whatever zipfile raises for what is no zip
        raise StoreError(f"expected a zip store or a folder at {path}; got a file that is neither ({error}).") from error
    return store


def _folder_inside(names: Sequence[str], path: Path) -> str:
    """Return the folder of a zip in which its trace lies; empty if that is the zip itself."""
    roots = [name.removesuffix("zarr.json").strip("/") for name in names if name == "zarr.json" or name.endswith("/zarr.json")]
    roots = [root for root in roots if not any(root.startswith(f"{other}/" if other else "") for other in roots if other != root)]
    if len(roots) > 1:
        raise StoreError(f"expected one trace in {path}; it holds {len(roots)}: {', '.join(sorted(roots))}. Unpack it first.")
    return roots[0] if roots else ""


class Expected:
    """Which chunks of the attention groups of a trace its writer wrote.

    Parameters
    ----------
    groups : mapping
        Name of a group to what its attributes say of each site: ``form``, ``heads``, ``head_size``, and ``masked``, the pairs of
        branch and prompt whose calls have a bias.
    holes : iterable
        Calls that were not made: group, layer, and positions of step, branch and prompt.
    """

    def __init__(self, groups: Mapping[str, Sequence[Mapping[str, Any]]], holes: Iterable[Sequence[Any]]) -> None:
        self.groups = groups
        self._holes = {tuple(hole) for hole in holes}

    def has(self, path: str, dims: Sequence[str], first: Sequence[int], sizes: Sequence[int]) -> bool:
        """Whether the chunk of array `path` that begins at `first` and has these sizes was written."""
        group, _, name = path.rpartition("/")
        if group not in self.groups:
            return True
        at = dict(zip(dims, first, strict=True))
        layers = range(at["layer"], at["layer"] + sizes[list(dims).index("layer")])
        for layer in layers:
            if layer >= len(self.groups[group]):
                break
            site = self.groups[group][layer]
            call = (at["step"], at.get("branch", 0), at.get("prompt", 0))
            inside = at.get("head", 0) < site["heads"] and at.get("channel", 0) < site["head_size"]
            if inside and self._holds(site, name, call) and (group, layer, *call) not in self._holes:
                return True
        return False

    @staticmethod
    def _holds(site: Mapping[str, Any], name: str, call: tuple[int, int, int]) -> bool:
        if name == "gain":  # written only for calls that need one
            return False
        if name == "bias":
            return list(call[1:]) in site.get("masked", ())
        return bool((site["form"] == "factors") == (name in ("query", "key")))


class Reader:
    """Reads parts of the arrays of a store; what cannot be read is named.

    Parameters
    ----------
    name : str
        Of the store, for messages.
    arrays : mapping
        Arrays by path.
    expected : Expected
        Which chunks there must be.
    """

    def __init__(self, name: str, arrays: Mapping[str, zarr.Array[Any]], expected: Expected) -> None:
        self.name = name
        self.arrays = arrays
        self.expected = expected
        self._keys: set[str] | None = None

    def read(self, path: str, key: tuple[Any, ...]) -> np.ndarray:
        """Read an orthogonal selection: integers, slices, index arrays and one ellipsis."""
        array = self.arrays[path]
        if ... in [part for part in key if part is Ellipsis]:
            at = next(i for i, part in enumerate(key) if part is Ellipsis)
            key = (*key[:at], *[slice(None)] * (array.ndim - len(key) + 1), *key[at + 1 :])
        touched = [
            np.unique(np.atleast_1d(np.arange(size)[part]) // chunk)
            for size, chunk, part in zip(array.shape, array.chunks, key, strict=True)
        ]
        missing = next(self._missing(path, itertools.product(*touched)), None)
        if missing is not None:
            raise StoreError(
                f"cannot read {path} of the trace at {self.name}: its chunk {missing} is missing. The trace was copied in part "
                "or damaged: copy it again. The rest can be read; select other steps or layers."
            )
        plain = tuple(_as_slice(part) for part in key)
        try:
            if any(isinstance(part, np.ndarray) for part in plain):
                return np.asarray(array.oindex[plain])
            return np.asarray(array[plain])
        except Exception as error:  # codecs raise whatever their library does
            raise StoreError(
                f"cannot read {path} of the trace at {self.name}: a chunk is damaged or cut off ({error}). The rest of the trace "
                "can be read; select other steps or layers."
            ) from error

    def within(self, group: str) -> Read:
        """Return `read` for the arrays of one group; it can be pickled, as trees that go to other processes are."""
        return partial(self._read_in, group)

    def missing_chunks(self) -> list[str]:
        """List every chunk that was written and is not there."""
        return [
            f"{path}/{chunk}"
            for path, array in self.arrays.items()
            for chunk in self._missing(path, itertools.product(*map(range, array.cdata_shape)))
        ]

    def _read_in(self, group: str, name: str, key: tuple[Any, ...]) -> np.ndarray:
        return self.read(f"{group}/{name}", key)

    def _missing(self, path: str, chunks: Iterable[tuple[int, ...]]) -> Iterator[str]:
        """Yield the names of those of the chunks that were written and are not there."""
        array = self.arrays[path]
        if self._keys is None:
            self._keys = _keys(array.store_path.store)
        if not self._keys:  # a store that cannot be listed quickly
            return
        metadata: Any = array.metadata
        dims = [str(dim) for dim in metadata.dimension_names or ()]
        for chunk in chunks:
            name = metadata.encode_chunk_key(tuple(map(int, chunk)))
            first = [int(number) * size for number, size in zip(chunk, array.chunks, strict=True)]
            if f"{array.path}/{name}" not in self._keys and self.expected.has(path, dims, first, array.chunks):
                yield name


def _keys(store: Store) -> set[str]:
    """List the keys of a store on this machine; none of another."""
    if isinstance(store, ZipStore):
        return set(store._zf.namelist())
    if isinstance(store, MemoryStore):
        return set(store._store_dict)
    if not isinstance(store, LocalStore):
        return set()
    root = str(store.root)
    start = len(root) + 1
    return {os.path.join(folder, file)[start:].replace(os.sep, "/") for folder, _, files in os.walk(root) for file in files}


def _as_slice(part: Any) -> Any:
    """Turn an index array that runs without gaps into a slice, which is read chunk by chunk."""
    if isinstance(part, np.ndarray) and part.ndim and len(part) and (np.diff(part) == 1).all():
        return slice(int(part[0]), int(part[-1]) + 1)
    return part
