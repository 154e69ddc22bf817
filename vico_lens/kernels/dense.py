"""A site whose head-mean map is in memory: for small graphs, and for attention that was recorded as probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vico_lens.kernels.operators import STRIP, Operator, Strip, overlaps

__all__ = ["DenseOperator"]


class DenseOperator(Operator):
    """A map in memory.

    Parameters
    ----------
    weights : Tensor
        ``[batch, query, key]``, averaged over heads.

    Examples
    --------
    >>> site = DenseOperator(torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]))
    >>> site.carry(torch.tensor([[[1.0, 0.0]]]))
    tensor([[[0.9000, 0.2000]]])
    >>> site.widest(torch.tensor([[[1.0, 0.5]]]))
    tensor([[[0.9000, 0.5000]]])
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.shape = (weights.shape[0], weights.shape[1], weights.shape[2])
        self.dtype, self.device = weights.dtype, weights.device

    @property
    def in_memory(self) -> bool:
        """Always."""
        return True

    def carry(self, mass: Tensor) -> Tensor:
        """One matrix product."""
        dtype = torch.promote_types(self.dtype, mass.dtype)
        return torch.matmul(mass.to(dtype), self.weights.mT.to(dtype))

    def columns(self, keys: Sequence[int]) -> Tensor:
        """Columns of the map."""
        return self.weights[..., torch.as_tensor(keys, device=self.device)]

    def strips(self, items: slice | None = None, queries: slice | None = None) -> Iterator[Strip]:
        """Views of the map: as many batch items as fit, or one item's queries in parts."""
        batch, count, keys = self.shape
        weights = self.weights.detach()
        size, rows = max(1, STRIP // (count * keys)), max(1, min(count, STRIP // keys))
        for first in range(0, batch, size):
            some = slice(first, min(first + size, batch))
            for row in range(0, count, rows):
                part = slice(row, min(row + rows, count))
                if overlaps(some, items) and overlaps(part, queries):
                    yield Strip(some, part, weights[some, part].mT)

    def dense(self) -> Tensor:
        """The map as it was given."""
        return self.weights

    def part(self, first_query: int, first_key: int) -> DenseOperator:
        """A view."""
        return DenseOperator(self.weights[:, first_query:, first_key:])
