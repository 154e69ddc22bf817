"""Attention weights that are not there until asked for: arrays that compute, or read, exactly the slice wanted.

`FactorWeights` computes it from query and key, `StoredWeights` reads it, and both look to xarray like any lazily indexed array. A
slice costs its own size plus the factors of the heads it touches plus a few megabytes of logits, whatever the size of the map.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from vico_lens.errors import StoreError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vico_lens.kernels.softmax import Normaliser

__all__ = ["Block", "FactorSource", "LazyWeights", "NormaliserCache"]

# Factors of as many heads are read at once; normalisers of maps this large (entries) are kept.
_HEADS_AT_ONCE = 32 << 20
_WORTH_KEEPING = 1 << 22

Read = Callable[[str, tuple[Any, ...]], np.ndarray]
"""Reads a part of an array by name, as `numpy.ix_`-like orthogonal indices; raises StoreError that names what is broken."""


class NormaliserCache:
    """Softmax normalisers of whole heads, kept so that a second column of the same map costs next to nothing.

    Parameters
    ----------
    limit : int
        Bytes kept; the least recently used go first.
    """

    def __init__(self, limit: int = 64 << 20) -> None:
        self.limit = limit
        self._kept: OrderedDict[tuple[Any, ...], Normaliser] = OrderedDict()
        self._bytes = 0

    def get(self, name: tuple[Any, ...], compute: Callable[[], Normaliser]) -> Normaliser:
        """Return what is kept under `name`, or compute and keep it."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        pair = compute()
        self._kept[name] = pair
        self._bytes += sum(part.nbytes for part in pair)
        while self._bytes > self.limit and self._kept:
            _, old = self._kept.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in old)
        return pair


@dataclass(frozen=True, slots=True)
class Block:
    """Which part of a softmax a variable shows.

    Attributes
    ----------
    shared : tuple of int
        Sizes of the query axes along which every query has keys of its own (the frame of spatial attention).
    rows, keys : tuple of int
        Sizes of the remaining query axes, and of the key axes, as the variable shows them.
    first_row, first_key : int
        Where they begin in the flattened softmax; not 0 only in a joint site.
    """

    shared: tuple[int, ...]
    rows: tuple[int, ...]
    keys: tuple[int, ...]
    first_row: int = 0
    first_key: int = 0


@dataclass(slots=True)
class FactorSource:
    """The stored factors of one group.

    Attributes
    ----------
    read : callable
        See `Read`. Arrays `query`, `key`, `bias`, `gain` begin with the leading axes before the head.
    scale : sequence of float
        Factor on the dot product, a layer.
    head_size : sequence of int
        Valid channels, a layer.
    bias_axes : tuple of int or None
        Which of the axes ``head, *shared, *bias_rows, *bias_keys`` the stored bias has; None without one.
    bias_rows, bias_keys : tuple of int
        Full sizes of the query and key axes of the softmax, as the bias counts them.
    gain : bool
        Whether single calls have a factor of their own.
    device : str or torch.device
        Where weights are computed.
    cache : NormaliserCache
        Shared by the variables of a group.
    itemsize : int
        Bytes of a stored number of query or key.
    """

    read: Read
    scale: Sequence[float]
    head_size: Sequence[int]
    bias_axes: tuple[int, ...] | None
    bias_rows: tuple[int, ...]
    bias_keys: tuple[int, ...]
    gain: bool
    device: str | torch.device
    cache: NormaliserCache
    itemsize: int = 4


class LazyWeights(BackendArray):
    """Weights of one group: leading axes, layer, head, query axes, key axes.

    Parameters
    ----------
    shape : tuple of int
        Of the variable.
    name : str
        Of the variable, under which its stored layers are read.
    block : Block
        What part of the softmax it is.
    forms : sequence of str
        ``weights`` (read) or ``factors`` (computed), a layer.
    heads : sequence of int
        Heads of each layer; more, which other layers of the group may have, are NaN.
    factors : FactorSource or None
        Needed if any layer is computed.
    read : callable
        See `Read`.
    limit : int
        Bytes that one request may take.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        name: str,
        block: Block,
        forms: Sequence[str],
        heads: Sequence[int],
        factors: FactorSource | None,
        read: Read,
        limit: int,
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(np.float32)
        self._name = name
        self.block = block
        self._forms = forms
        self._heads = heads
        self._factors = factors
        self._read = read
        self._limit = limit

    def stored(self, leading: tuple[int, ...], heads: np.ndarray) -> dict[str, Any]:
        """Return one call as it is stored: its ``weights``, or its ``query``, ``key``, ``scale`` and ``bias``."""
        layer = leading[-1]
        if self._forms[layer] == "weights":
            return {"weights": self._read(self._name, (*leading, heads, ...))}
        source = self.source
        channels = slice(0, source.head_size[layer])
        call: dict[str, Any] = {name: source.read(name, (*leading, heads, ..., channels)) for name in ("query", "key")}
        call["scale"] = source.scale[layer] * (float(source.read("gain", leading)) if source.gain else 1.0)
        if source.bias_axes is not None:
            values = source.read("bias", (*leading, *(heads if axis == 0 else slice(None) for axis in source.bias_axes)))
            shape = [1] * (1 + len(self.block.shared) + len(source.bias_rows) + len(source.bias_keys))
            for axis, size in zip(source.bias_axes, values.shape, strict=True):
                shape[axis] = size
            call["bias"] = values.reshape(shape)
        return call

    @property
    def source(self) -> FactorSource:
        """The factors of the group."""
        assert self._factors is not None  # opened with the group, if any layer has them
        return self._factors

    def has_factors(self, layer: int) -> bool:
        """Whether a layer is computed from query and key."""
        return self._factors is not None and self._forms[layer] == "factors"

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Compute or read what `key` selects."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        wanted = [np.atleast_1d(np.arange(size)[part]) for size, part in zip(self.shape, key, strict=True)]
        sizes = [len(part) for part in wanted]
        needed = math.prod(sizes) * self.dtype.itemsize
        if needed > self._limit:
            raise StoreError(
                f"{self._name}: expected a slice of at most {self._limit / 1e9:.1f} GB, asked for {needed / 1e9:.1f} GB "
                f"(shape {tuple(sizes)}). Select steps, layers, heads, frames or tokens first, or open it with chunks={{}}."
            )
        out = np.full(sizes, np.nan, self.dtype)
        before = len(self.shape) - 1 - len(self.block.shared) - len(self.block.rows) - len(self.block.keys)
        for place in itertools.product(*(range(size) for size in sizes[:before])):
            leading = tuple(int(part[i]) for part, i in zip(wanted, place, strict=False))
            valid = np.flatnonzero(wanted[before] < self._heads[leading[-1]])
            if not len(valid) or not out[place].size:
                continue
            if self._forms[leading[-1]] == "weights":
                out[place][valid] = self._read(self._name, (*leading, wanted[before][valid], *wanted[before + 1 :]))
            else:
                self._compute(leading, valid, wanted[before:], out[place])
        return out[tuple(0 if isinstance(part, int | np.integer) else slice(None) for part in key)]

    def _compute(self, leading: tuple[int, ...], valid: np.ndarray, wanted: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Fill the `valid` heads of `out`, ``[head, *shared, *rows, *keys]``, for one call."""
        import torch

        source, block, layer = self._factors, self.block, leading[-1]
        assert source is not None  # opened with the group
        shared = wanted[1 : 1 + len(block.shared)]
        keys = wanted[1 + len(block.shared) + len(block.rows) :]
        rows = torch.from_numpy(block.first_row + _flat(wanted[1 + len(shared) : len(wanted) - len(keys)], block.rows))
        columns = torch.from_numpy(block.first_key + _flat(keys, block.keys)).to(source.device)
        scale = source.scale[layer] * (float(source.read("gain", leading)) if source.gain else 1.0)
        for some in np.array_split(valid, -(-len(valid) * self._head_bytes(layer) // _HEADS_AT_ONCE)):
            heads = wanted[0][some]
            query, key = (self._factor(name, (*leading, heads, *shared), source.head_size[layer]) for name in ("query", "key"))
            bias = self.bias(leading, heads, shared)
            with torch.no_grad():
                weights = self._columns((*leading, *heads), query, key, scale, bias, rows.to(source.device), columns)
            out[some] = weights.cpu().numpy().reshape(len(some), *out.shape[1:])

    def _columns(
        self,
        name: tuple[int, ...],
        query: Tensor,
        key: Tensor,
        scale: float,
        bias: Tensor | None,
        rows: Tensor,
        columns: Tensor,
    ) -> Tensor:
        """Compute chosen rows and columns; normalisers of large maps are kept for the next column."""
        from vico_lens.kernels.softmax import attention_columns, row_normaliser

        assert self._factors is not None
        normaliser = None
        if len(rows) < query.shape[-2]:
            query = query[..., rows, :]
            bias = bias[..., rows, :] if bias is not None and bias.shape[-2] > 1 else bias
        if not self.block.shared and len(rows) * key.shape[-2] > _WORTH_KEEPING and 2 * len(columns) < key.shape[-2]:
            kept = (*name, int(rows[0]), int(rows[-1]), len(rows))
            if len(rows) == int(rows[-1] - rows[0]) + 1:
                normaliser = self._factors.cache.get(kept, lambda: row_normaliser(query, key, scale, bias))
        return attention_columns(query, key, scale, bias, columns, normaliser=normaliser)

    def _head_bytes(self, layer: int) -> int:
        """Bytes that the factors of one head take at most."""
        assert self._factors is not None
        block = self.block
        rows = math.prod(block.shared) * (math.prod(block.rows) + math.prod(block.keys) + block.first_row + block.first_key)
        return max(1, 4 * rows * self._factors.head_size[layer])

    def _factor(self, name: str, index: tuple[Any, ...], channels: int) -> Tensor:
        """Read query or key as ``[head, *shared, sequence, channel]``."""
        import torch

        assert self._factors is not None
        values = self._factors.read(name, (*index, ..., slice(0, channels)))
        count = 1 + len(self.block.shared)
        return torch.from_numpy(values).to(self._factors.device).float().reshape(*values.shape[:count], -1, channels)

    def bias(self, leading: tuple[int, ...], heads: np.ndarray, shared: Sequence[np.ndarray]) -> Tensor | None:
        """Read the bias as ``[head or 1, *shared or 1, sequence or 1, key]``, or None if the group has none."""
        import torch

        source = self._factors
        assert source is not None
        if source.bias_axes is None:
            return None
        full = [heads, *shared, *map(np.arange, source.bias_rows), *map(np.arange, source.bias_keys)]
        index = [full[axis] for axis in source.bias_axes]
        shape = [len(part) if axis in source.bias_axes else 1 for axis, part in enumerate(full)]
        bias = torch.from_numpy(source.read("bias", (*leading, *index))).to(source.device).reshape(shape)
        count, first_key = 1 + len(shared), 1 + len(shared) + len(source.bias_rows)
        if any(size > 1 for size in shape[count:first_key]):
            bias = bias.expand(*shape[:count], *source.bias_rows, *shape[first_key:])
        bias = bias.expand(*bias.shape[:first_key], *source.bias_keys)
        return bias.reshape(*shape[:count], -1, math.prod(source.bias_keys))


def _flat(indices: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """Indices into the flattened axes, of the outer product of indices along each."""
    flat = np.zeros(1, dtype=np.int64)
    for index, size in zip(indices, sizes, strict=True):
        flat = (flat[:, None] * size + index[None]).ravel()
    return flat
