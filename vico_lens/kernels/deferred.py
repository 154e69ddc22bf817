"""A site that is read when its turn comes, and dropped after it: what a trace of any size is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vico_lens.kernels.factored import FactorOperator
from vico_lens.kernels.operators import Operator, Strip, refuse_large

__all__ = ["Cost", "DeferredOperator"]

# Numbers of query and key that are kept once read: sites so small are asked often, and reading them takes longer than computing.
_KEPT = 1 << 20


class Cost(NamedTuple):
    """What a site takes before it is asked anything.

    Attributes
    ----------
    read : int
        Bytes read from the store.
    held : int
        Bytes in memory while it is in use.
    product : int
        Floating-point operations of one product with its logits, over all heads; 0 where the map itself is read.
    """

    read: int
    held: int
    product: int


class DeferredOperator(Operator):
    """A site that knows its size, and loads its numbers when they are asked for.

    Every question loads them; a pass that asks several calls `open` and asks what that returns. Of a large site only the
    normaliser of its rows is kept, so that a second pass does not compute it again.

    Parameters
    ----------
    load : callable
        Gives the operator.
    shape : tuple of int
        Batch, queries, keys.
    dtype, device
        Of the weights.
    cost : Cost, optional
        What loading and using it takes.
    """

    def __init__(
        self,
        load: Callable[[], Operator],
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        cost: Cost | None = None,
    ) -> None:
        self._load, self.shape, self.dtype, self.device = load, shape, dtype, device
        self.cost = cost or Cost(0, 0, 0)
        self._kept: Operator | None = None
        self._memo: dict[str, tuple[Tensor, Tensor]] = {}

    def open(self) -> Operator:
        """The operator with its numbers at hand."""
        if self._kept is not None:
            return self._kept
        operator = self._load()
        if isinstance(operator, FactorOperator):
            operator.memo = self._memo
            if operator.query.numel() + operator.key.numel() > _KEPT:
                return operator
        self._kept = operator
        return operator

    def carry(self, mass: Tensor) -> Tensor:
        """See `Operator.carry`."""
        return self.open().carry(mass)

    def columns(self, keys: Sequence[int]) -> Tensor:
        """See `Operator.columns`."""
        return self.open().columns(keys)

    def strips(self, items: slice | None = None, queries: slice | None = None) -> Iterator[Strip]:
        """See `Operator.strips`."""
        return self.open().strips(items, queries)

    def dense(self) -> Tensor:
        """See `Operator.dense`; a map that is too large is refused before anything is read."""
        refuse_large(self.shape)
        return self.open().dense()

    def part(self, first_query: int, first_key: int) -> Operator:
        """A part that is loaded when its turn comes, too."""
        batch, queries, keys = self.shape
        return DeferredOperator(
            lambda: self.open().part(first_query, first_key),
            (batch, queries - first_query, keys - first_key),
            self.dtype,
            self.device,
            self.cost,
        )
