"""A small Zarr v3 writer: arrays that grow, chunks put in place one by one, and a commit that makes them visible.

Tracing writes thousands of small blocks while the model wants the interpreter. A step of small blocks takes 3.9 ms through this
writer and 37.5 ms through zarr-python. The format is the public one (bytes, blosc, crc32c), so every reader of Zarr v3 opens the
result; our own reading goes through zarr-python.

Chunks may lie beyond the extent that an array's metadata declares. So a step's chunks are written first, and `Tree.commit`
declares them: a reader of a store whose writer was killed, at any moment, sees the steps committed and nothing of the one in the
making. What is put in place of something (metadata, coordinates that grow) appears by rename, never in part; a new chunk, which
nothing declares yet, is written where it belongs. All chunks of an array lie in its folder (keys ``c.0.3.0``): with a folder an
axis, making folders costs more than writing the chunks.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from numcodecs.vlen import VLenUTF8  # type: ignore[import-untyped]

__all__ = ["CHUNK_BYTES", "Array", "Directory", "Memory", "Target", "Tree", "chunk_shape"]

CHUNK_BYTES = 4 << 20
"""Size that a chunk stays under if its axes can be cut so."""

SEPARATOR = "."
"""Between the numbers in the names of chunks; other writers, and our first traces, use ``/``."""

_ROW = 1024  # chunk length of a coordinate: one chunk in nearly every trace, rewritten as it grows


def encode(chunk: np.ndarray, *, compress: bool) -> bytes:
    """Turn a chunk into bytes: little endian, and if compressed, blosc (lz4, bits shuffled) and a checksum."""
    chunk = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))
    if not compress:
        return chunk.tobytes()
    shuffle = Blosc.BITSHUFFLE if chunk.itemsize > 1 else Blosc.NOSHUFFLE
    data = bytes(Blosc(cname="lz4", clevel=3, shuffle=shuffle).encode(chunk))
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


def write_file(path: str, data: bytes) -> None:
    """Write a file through the system's own calls: a call of the model waits for a fraction of a millisecond less."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


class Target(Protocol):
    """Where the bytes of a store go."""

    def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        """Put `data` under `key`, in place of what was there; without `replace`, nothing that anybody reads is there."""


class Directory:
    """A store in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: set[str] = set()

    def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        """Write a file; one that replaces another appears whole or not at all."""
        folder, _, name = key.rpartition("/")
        if folder not in self._made:
            (self.path / folder).mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        file = os.path.join(self.path, key)
        target = os.path.join(self.path, folder, f".{name}.{os.getpid()}.partial") if replace else file
        try:
            write_file(target, data)
            if replace:
                os.replace(target, file)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(target)
            raise


class Memory:
    """A store in memory; `data` is what ``zarr.storage.MemoryStore`` takes."""

    def __init__(self) -> None:
        from zarr.buffer.cpu import Buffer

        self.data: dict[str, Any] = {}
        self._buffer = Buffer

    def put(self, key: str, data: bytes, *, replace: bool = True) -> None:
        """Keep the bytes."""
        self.data[key] = self._buffer.from_bytes(data)


@dataclass(slots=True)
class Array:
    """One array of a store; it grows along any axis and is written by whole chunks.

    Attributes
    ----------
    path : str
        Its path in the store.
    chunks : tuple of int
        Shape of a chunk.
    meta : dict
        What its ``zarr.json`` will say at the next commit.
    fill : float or str
        What was never written reads as.
    compress : bool
        Compress and checksum its chunks.
    target : Target
        Where the bytes go.
    replaced : bool
        Its chunks are written again as it grows, under the eyes of readers.
    committed : tuple of int or None
        Shape that the store declares; None before the first commit.
    settled : tuple of int
        Shape that its own metadata declares.
    """

    path: str
    chunks: tuple[int, ...]
    meta: dict[str, Any]
    fill: float | str
    compress: bool
    target: Target
    replaced: bool = False
    committed: tuple[int, ...] | None = None
    settled: tuple[int, ...] = ()

    @property
    def dims(self) -> tuple[str, ...]:
        """Name of each axis."""
        return tuple(self.meta["dimension_names"])

    def grow(self, shape: Sequence[int]) -> None:
        """Extend to at least `shape`, from the next commit on."""
        self.meta["shape"] = [max(pair) for pair in zip(self.meta["shape"], shape, strict=True)]

    def put(self, start: Sequence[int], block: np.ndarray) -> None:
        """Write `block` at `start`, which lies on a chunk boundary; the rest of its last chunks becomes fill."""
        self.grow([first + size for first, size in zip(start, block.shape, strict=True)])
        for offset in itertools.product(*(range(0, size, step) for size, step in zip(block.shape, self.chunks, strict=True))):
            corner = tuple(slice(first, first + step) for first, step in zip(offset, self.chunks, strict=True))
            piece = np.asarray(block[corner], dtype=block.dtype)
            if piece.shape != self.chunks:
                whole = np.full(self.chunks, self.fill, block.dtype)
                whole[tuple(map(slice, piece.shape))] = piece
                piece = whole
            index = [(first + more) // step for first, more, step in zip(start, offset, self.chunks, strict=True)]
            name = SEPARATOR.join(["c", *map(str, index)])
            self.target.put(f"{self.path}/{name}", self._encode(piece), replace=self.replaced)

    def _encode(self, piece: np.ndarray) -> bytes:
        return bytes(VLenUTF8().encode(piece.ravel())) if piece.dtype.kind == "O" else encode(piece, compress=self.compress)


class Tree:
    """A Zarr v3 hierarchy being written: groups with attributes, arrays with named axes.

    Parameters
    ----------
    target : Target
        Where the bytes go.
    compress : bool
        Compress and checksum the chunks; memory needs neither.
    """

    def __init__(self, target: Target, *, compress: bool = True) -> None:
        self.target = target
        self.compress = compress
        self._groups: dict[str, dict[str, Any]] = {}
        self._dirty: set[str] = set()
        self.arrays: dict[str, Array] = {}

    def group(self, path: str, attrs: Mapping[str, Any]) -> None:
        """Create a group, or replace the attributes of one; groups above it are created as needed."""
        parts = path.split("/") if path else []
        for parent in ("/".join(parts[:end]) for end in range(len(parts))):
            if parent not in self._groups:
                self.group(parent, {})
        self._groups[path] = {"zarr_format": 3, "node_type": "group", "attributes": dict(attrs)}
        self._dirty.add(path)

    def array(
        self,
        path: str,
        dims: Sequence[str],
        chunks: Sequence[int],
        dtype: np.dtype[Any],
        *,
        fill: float | str = 0,
        attrs: Mapping[str, Any] | None = None,
    ) -> Array:
        """Create an empty array in an existing group.

        Parameters
        ----------
        path : str
            Where.
        dims : sequence of str
            Name of each axis.
        chunks : sequence of int
            Shape of a chunk.
        dtype : numpy.dtype
            A number, bool, or object for strings.
        fill : float or str
            What was never written reads as.
        attrs : mapping, optional
            Attributes.
        """
        text = dtype.kind == "O"
        first: dict[str, Any] = {"name": "vlen-utf8"} if text else {"name": "bytes", "configuration": {"endian": "little"}}
        codecs = [first]
        if self.compress and not text:
            shuffle = "bitshuffle" if dtype.itemsize > 1 else "noshuffle"
            settings = {"cname": "lz4", "clevel": 3, "shuffle": shuffle, "typesize": dtype.itemsize, "blocksize": 0}
            codecs.append({"name": "blosc", "configuration": settings})
            codecs.append({"name": "crc32c"})
        meta = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [0] * len(dims),
            "data_type": "string" if text else dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": SEPARATOR}},
            "fill_value": "NaN" if isinstance(fill, float) and math.isnan(fill) else fill,
            "codecs": codecs,
            "attributes": dict(attrs or {}),
            "dimension_names": list(dims),
            "storage_transformers": [],
        }
        self.arrays[path] = Array(path, tuple(chunks), meta, fill, self.compress, self.target)
        return self.arrays[path]

    def row(self, path: str, dims: Sequence[str], values: np.ndarray, attrs: Mapping[str, Any] | None = None) -> None:
        """Write a coordinate whole, in place of an earlier and shorter one."""
        if path not in self.arrays:
            fill = "" if values.dtype.kind == "O" else 0
            array = self.array(path, dims, [1, _ROW][-values.ndim :] if values.ndim else [], values.dtype, fill=fill, attrs=attrs)
            array.replaced = True
        self.arrays[path].put([0] * values.ndim, values)

    def commit(self) -> None:
        """Declare everything written so far.

        The root comes last and lists the metadata of every node, so a reader that starts there sees one consistent state whatever
        is being written meanwhile. An array's own metadata is written when it is new; while it grows the root alone tells its
        extent, and `settle` writes it again at the end.
        """
        for path, array in self.arrays.items():
            if array.committed is None:
                self._write(path, array.meta)
                array.settled = tuple(array.meta["shape"])
            array.committed = tuple(array.meta["shape"])
        for path in sorted(self._dirty - {""}):
            self._write(path, self._groups[path])
        nodes = {path: meta for path, meta in self._groups.items() if path}
        nodes |= {path: array.meta for path, array in self.arrays.items()}
        nodes = dict(sorted(nodes.items()))  # zarr loses a group whose children do not follow one another
        inline = {"kind": "inline", "must_understand": False, "metadata": nodes}
        self._write("", {**self._groups[""], "consolidated_metadata": inline})
        self._dirty.clear()

    def settle(self) -> None:
        """Bring the metadata of every array up to what the root says, for readers that open an array by itself."""
        for path, array in self.arrays.items():
            if array.committed is not None and array.settled != array.committed:
                self._write(path, array.meta)
                array.settled = array.committed

    def revert(self, dim: str) -> None:
        """Forget what arrays that begin with axis `dim` gained since the last commit."""
        for path, array in list(self.arrays.items()):
            if array.dims[:1] == (dim,):
                if array.committed is None:
                    del self.arrays[path]
                else:
                    array.meta["shape"] = list(array.committed)

    def _write(self, path: str, meta: Mapping[str, Any]) -> None:
        self.target.put(f"{path}/zarr.json" if path else "zarr.json", json.dumps(meta, ensure_ascii=False).encode())


def chunk_shape(block: Sequence[int], itemsize: int) -> list[int]:
    """Return the shape of a chunk for blocks of this shape: halve the first axes until it has a few megabytes.

    >>> chunk_shape([30, 17776, 64], 2)
    [1, 17776, 64]
    """
    sizes = [max(1, size) for size in block]
    for axis in range(len(sizes)):
        while sizes[axis] > 1 and math.prod(sizes) * itemsize > CHUNK_BYTES:
            sizes[axis] = -(-sizes[axis] // 2)
    return sizes
