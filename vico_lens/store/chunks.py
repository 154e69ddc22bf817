"""Chunks of numbers: how they become bytes and come back, and how a part of an array is read from them.

A folder, or memory, is read here without zarr-python, whose event loop costs a thread switch a read: attribution reads hundreds
of small parts. Anything else (a zip, an object store, strings) goes through zarr-python.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]

__all__ = ["SEPARATOR", "Fetch", "chunk_key", "decode", "encode", "read_part"]

SEPARATOR = "."
"""Between the numbers in the names of the chunks that are written here; other writers, and our first traces, use ``/``."""

Fetch = Callable[[str], bytes | None]
"""Gives the bytes under a key, None if there are none."""


def chunk_key(path: str, index: Iterable[int], separator: str = SEPARATOR) -> str:
    """Return the key of a chunk of the array at `path`.

    >>> chunk_key("cross/4x4x4/weights", [0, 3])
    'cross/4x4x4/weights/c.0.3'
    """
    return f"{path}/{separator.join(['c', *map(str, index)])}"


def encode(chunk: np.ndarray, *, compress: bool) -> bytes:
    """Turn a chunk into bytes: little endian, and if compressed, blosc (lz4, bits shuffled) and a checksum.

    >>> decode(encode(np.arange(3), compress=True), np.dtype("int64"), compressed=True).tolist()
    [0, 1, 2]
    """
    chunk = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))
    if not compress:
        return chunk.tobytes()
    shuffle = Blosc.BITSHUFFLE if chunk.itemsize > 1 else Blosc.NOSHUFFLE
    data = bytes(Blosc(cname="lz4", clevel=3, shuffle=shuffle).encode(chunk))
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


def decode(data: bytes, dtype: np.dtype[Any], *, compressed: bool) -> np.ndarray:
    """Turn bytes into numbers; raises ValueError if they are not what was written."""
    if compressed:
        if google_crc32c.value(data[:-4]) != int.from_bytes(data[-4:], "little") or len(data) < 4:
            raise ValueError("its checksum does not match")
        data = Blosc().decode(data[:-4])
    return np.frombuffer(data, dtype.newbyteorder("<"))


def read_part(
    fetch: Fetch,
    path: str,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: np.dtype[Any],
    fill: float,
    key: Sequence[Any],
    *,
    compressed: bool,
    separator: str = SEPARATOR,
) -> np.ndarray:
    """Read an orthogonal selection of an array.

    Parameters
    ----------
    fetch : callable
        See `Fetch`.
    path : str
        Of the array.
    shape, chunks : sequence of int
        Extent of the array and of a chunk.
    dtype : numpy.dtype
        Of the numbers.
    fill : float
        What a chunk that was never written reads as.
    key : sequence
        One integer (drops the axis), slice or index array an axis.
    compressed : bool
        As in `encode`.
    separator : str
        As in `chunk_key`.

    Returns
    -------
    numpy.ndarray
        An array of its own.

    Raises
    ------
    ValueError
        If a chunk is damaged.
    """
    wanted = [np.atleast_1d(np.arange(size)[part]) for size, part in zip(shape, key, strict=True)]
    out = np.full([len(part) for part in wanted], fill, dtype)
    sides = [_by_chunk(part, length) for part, length in zip(wanted, chunks, strict=True)]
    for places in itertools.product(*sides):
        data = fetch(chunk_key(path, (number for number, _, _ in places), separator))
        if data is not None:
            chunk = decode(data, dtype, compressed=compressed).reshape(chunks)
            out[_grid([to for _, to, _ in places])] = chunk[_grid([inside for _, _, inside in places])]
    return out[tuple(0 if isinstance(part, int | np.integer) else slice(None) for part in key)]


def _by_chunk(indices: np.ndarray, length: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Split indices by the chunk they lie in: its number, the places in the result, the places in the chunk."""
    numbers = indices // length
    return [(int(n), np.flatnonzero(numbers == n), indices[numbers == n] - n * length) for n in np.unique(numbers)]


def _grid(indices: Sequence[np.ndarray]) -> tuple[Any, ...]:
    """Index a block: by slices where all indices follow one another, which copies nothing twice."""
    if all(len(index) == index[-1] - index[0] + 1 and (np.diff(index) == 1).all() for index in indices):
        return tuple(slice(int(index[0]), int(index[-1]) + 1) for index in indices)
    return np.ix_(*indices)
