"""Query and key of one stored call, found behind the weights that a trace shows, and read when asked for.

A trace shows attention weights whether they were stored or have to be computed. Whoever needs products with a map rather than the
map asks here for what it is computed from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from vico_lens.store.lazy_weights import LazyWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["StoredFactors", "factors_of"]


@dataclass(frozen=True, slots=True)
class StoredFactors:
    """The factors of one call, not read yet.

    Attributes
    ----------
    weights : LazyWeights
        The variable that shows the call.
    leading : tuple of int
        Step, branch, prompt (those that there are) and layer.
    heads : ndarray
        Heads chosen.
    """

    weights: LazyWeights
    leading: tuple[int, ...]
    heads: np.ndarray

    @property
    def device(self) -> str | torch.device:
        """Where the trace was opened."""
        return self.weights.source.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """Batch, queries and keys of the whole softmax; a joint site's text included."""
        block = self.weights.block
        return math.prod(block.shared), block.first_row + math.prod(block.rows), block.first_key + math.prod(block.keys)

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.weights.source.head_size[self.leading[-1]]

    @property
    def itemsize(self) -> int:
        """Bytes of a stored number."""
        return int(self.weights.source.itemsize)

    def read(self, device: str | torch.device | None = None) -> tuple[Tensor, Tensor, float, Tensor | None]:
        """Read query and key, ``[head, batch, token, channel]`` as stored, scale, and bias ``[head, batch, query, key]``.

        Half precision stays half. Axes along which a bias does not vary have size 1.
        """
        import torch

        block, source = self.weights.block, self.weights.source
        shared = [np.arange(size) for size in block.shared]
        parts = []
        for name in ("query", "key"):
            values = source.read(name, (*self.leading, self.heads, *shared, ..., slice(0, self.head_size)))
            flat = torch.from_numpy(values).reshape(len(self.heads), math.prod(block.shared), -1, self.head_size)
            parts.append(flat.to(device or source.device))
        bias = self.weights.bias(self.leading, self.heads, shared)
        if bias is not None:
            count = len(block.shared)
            if any(size > 1 for size in bias.shape[1 : 1 + count]):
                bias = bias.expand(bias.shape[0], *block.shared, *bias.shape[-2:])
            bias = bias.reshape(bias.shape[0], -1, *bias.shape[-2:]).to(device or source.device)
        gain = float(source.read("gain", self.leading)) if source.gain else 1.0
        return parts[0], parts[1], source.scale[self.leading[-1]] * gain, bias


def factors_of(weights: xr.DataArray) -> StoredFactors | None:
    """Find what a call's weights are computed from.

    Parameters
    ----------
    weights : DataArray
        One step, layer, branch and prompt of a variable of a trace, with any of its heads and all its queries and keys.

    Returns
    -------
    StoredFactors or None
        None where the weights themselves are stored, in memory, or cut further: then they are all there is.
    """
    data: Any = weights.variable._data
    while not isinstance(data, indexing.LazilyIndexedArray):
        data = getattr(data, "array", None)
        if data is None:
            return None
    lazy = data.array
    if not isinstance(lazy, LazyWeights):
        return None
    key = data.key.tuple
    before = len(lazy.shape) - 1 - len(lazy.block.shared) - len(lazy.block.rows) - len(lazy.block.keys)
    if not all(isinstance(part, int | np.integer) for part in key[:before]):
        return None
    wanted = [np.arange(size)[part] for size, part in zip(lazy.shape[before:], key[before:], strict=True)]
    whole = all(
        part.shape == (size,) and (part == np.arange(size)).all()
        for size, part in zip(lazy.shape[before + 1 :], wanted[1:], strict=True)
    )
    leading = tuple(int(part) for part in key[:before])
    if not whole or wanted[0].ndim == 0 or not lazy.has_factors(leading[-1]):
        return None
    return StoredFactors(lazy, leading, wanted[0])
