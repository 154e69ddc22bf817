"""Small blocks of one step, gathered so that the layers of a group share a chunk.

A file costs about as much as a hundred kilobytes in it. A model of 28 small sites would write 40 files a step; joined along the
layer they are a dozen. Large blocks keep a chunk, or several, of their own, and are never held back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vico_lens.store.zarrfile import CHUNK_BYTES, Array, Tree, chunk_shape

__all__ = ["SMALL", "Gathered"]

SMALL = 128 << 10
"""Bytes up to which a block waits for those of other layers."""


class Gathered:
    """Puts the blocks of calls into a tree, those of small calls together with the other layers of the step.

    Parameters
    ----------
    tree : Tree
        Where arrays are made.
    leading : sequence of str
        Dimensions before the head; the last one is the layer.
    """

    def __init__(self, tree: Tree, leading: Sequence[str]) -> None:
        self._tree = tree
        self._leading = tuple(leading)
        self._waiting: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
        self._about: dict[str, tuple[tuple[str, ...], float]] = {}

    def put(self, path: str, start: Sequence[int], dims: Sequence[str], values: np.ndarray, fill: float) -> None:
        """Write a block of array `path` at the leading indices `start`, or keep it until `flush`."""
        array = self._tree.arrays.get(path)
        small = values.nbytes <= SMALL if array is None else array.chunks[len(self._leading) - 1] > 1
        if small:
            self._waiting.setdefault(path, {})[tuple(start)] = values
            self._about[path] = (tuple(dims), fill)
            return
        if path in self._waiting:  # the first layers of this array were small, this one is not
            self._write(path, 1)
        if array is None and path not in self._tree.arrays:
            self._make(path, dims, values.shape, values.dtype, fill, 1)
        self._tree.arrays[path].put([*start, *[0] * values.ndim], values.reshape(*[1] * len(start), *values.shape))

    def flush(self) -> None:
        """Write what waits: the step is whole."""
        for path in list(self._waiting):
            blocks = self._waiting[path].values()
            largest = max(block.nbytes for block in blocks)
            layers = 1 + max(start[-1] for start in self._waiting[path])
            self._write(path, min(layers, max(1, CHUNK_BYTES // max(1, largest))))

    def drop(self) -> None:
        """Forget what waits: the step will not be whole."""
        self._waiting.clear()

    def _write(self, path: str, layers: int) -> None:
        """Join the blocks of an array along the layer, `layers` a chunk if it is new, and write them."""
        blocks = self._waiting.pop(path)
        dims, fill = self._about[path]
        extent = tuple(max(sizes) for sizes in zip(*(block.shape for block in blocks.values()), strict=True))
        array = self._tree.arrays.get(path)
        if array is None:
            array = self._make(path, dims, extent, next(iter(blocks.values())).dtype, fill, layers)
        length = array.chunks[len(self._leading) - 1]
        chunks: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        for (*outer, layer), block in blocks.items():
            chunks.setdefault((*outer, layer // length), []).append((layer % length, block))
        for (*outer, number), members in chunks.items():
            joined = np.full((1 + max(place for place, _ in members), *extent), fill, members[0][1].dtype)
            for place, block in members:
                joined[place][tuple(map(slice, block.shape))] = block
            start = [*outer, number * length, *[0] * len(extent)]
            array.put(start, joined.reshape(*[1] * len(outer), *joined.shape))

    def _make(
        self, path: str, dims: Sequence[str], extent: Sequence[int], dtype: np.dtype[np.generic], fill: float, layers: int
    ) -> Array:
        chunks = [*[1] * (len(self._leading) - 1), layers, *chunk_shape(extent, dtype.itemsize)]
        return self._tree.array(path, (*self._leading, *dims), chunks, dtype, fill=fill)
