"""An attention site as an operator: what every method asks of a map, whether the map is in memory or not.

A head-mean attention map of N video tokens has N^2 numbers. Nothing in here needs them at once: a concept's mass goes through a
map as the values of one attention call, and what is not linear (a minimum, a comparison) sees the map strip by strip, some
queries by all keys, of which none is kept. Three forms give the same numbers: `vico_lens.kernels.dense` holds the map,
`vico_lens.kernels.factored` its query and key, and `vico_lens.kernels.resampled` brings another site to a common grid.

Vectors have axes ``[batch, column, member]``. The batch is the axis along which queries meet keys of their own: the frames of
spatial attention, the positions of temporal attention, else one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vico_lens.errors import InputError
from vico_lens.kernels.products import ProductKind, path_product_of_finite

__all__ = ["ATTENTION", "LARGEST_MAP", "STRIP", "Blend", "Operator", "Strip", "overlaps", "refuse_large"]

STRIP = 1 << 21
"""Entries of a strip: 8 MiB in float32. A strip has at least one query."""

LARGEST_MAP = 1 << 28
"""Entries of the largest map that `Operator.dense` makes: 1 GiB in float32."""


class Strip(NamedTuple):
    """Some queries of some batch items by all keys: ``weights [batch, key, query]``. The next strip may overwrite it."""

    batch: slice
    queries: slice
    weights: Tensor


class Blend(NamedTuple):
    """Capacities of a site with its residual connection: ``new * weights``, plus `keep` where query and key are one node."""

    new: float = 1.0
    keep: float = 0.0

    def capacity(self, strip: Strip, dtype: torch.dtype | None = None) -> Tensor:
        """Capacities of a strip, ``[batch, key, query]``, as a tensor of their own."""
        weights = strip.weights if dtype is None else strip.weights.to(dtype)
        capacity = weights * self.new
        if self.keep:
            capacity[:, strip.queries].diagonal(dim1=1, dim2=2).add_(self.keep)
        return capacity


ATTENTION = Blend()
"""The weights themselves, without a residual connection."""

Consume = Callable[..., Tensor]


class Operator(ABC):
    """A batch of row-stochastic maps, averaged over heads.

    Attributes
    ----------
    shape : tuple of int
        Batch, queries, keys.
    dtype : torch.dtype
        Of the weights: float32, or float64 where they are given so.
    device : torch.device
        Where everything is computed.
    """

    shape: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device

    # -- what each form has its own way of doing ----------------------------------------------------------------------------

    @abstractmethod
    def carry(self, mass: Tensor) -> Tensor:
        """Weights times mass: ``[batch, column, key]`` to ``[batch, column, query]``; differentiable."""

    @abstractmethod
    def columns(self, keys: Sequence[int]) -> Tensor:
        """Weights of some keys at every query, ``[batch, query, chosen key]``; differentiable."""

    @abstractmethod
    def strips(self, items: slice | None = None, queries: slice | None = None) -> Iterator[Strip]:
        """The whole map strip by strip, without a gradient; the same strips with the same numbers at every call.

        Parameters
        ----------
        items, queries : slice, optional
            Skip strips that hold none of these batch items, or none of these queries.
        """

    @abstractmethod
    def dense(self) -> Tensor:
        """The map itself, ``[batch, query, key]``; differentiable.

        Raises
        ------
        InputError
            If it has more than `LARGEST_MAP` entries.
        """

    @abstractmethod
    def part(self, first_query: int, first_key: int) -> Operator:
        """The map without the queries and keys before the given ones. Rows stay normalised over all keys."""

    @property
    def in_memory(self) -> bool:
        """Whether the map is there, or so small that making it costs less than streaming."""
        return False

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Tensors that the weights come from, if a gradient can be sent to them strip by strip."""
        return ()

    def pull(self, strip: Strip, gradient: Tensor, into: Sequence[Tensor]) -> None:
        """Add to `into` the gradient of the `parameters`, given that of a strip's weights."""
        raise NotImplementedError

    def open(self) -> Operator:
        """The operator with its numbers at hand; one that is read when its turn comes reads them here."""
        return self

    # -- what all forms do alike --------------------------------------------------------------------------------------------

    def carry_back(self, values: Tensor) -> Tensor:
        """The transposed map times values: ``[batch, column, query]`` to ``[batch, column, key]``, not differentiable."""
        out = values.new_zeros(*values.shape[:2], self.shape[2])
        for strip in self.strips():
            out[strip.batch] += values[strip.batch, :, strip.queries] @ strip.weights.mT.to(values)
        return out

    def widest(self, width: Tensor, blend: Blend = ATTENTION) -> Tensor:
        """Widest step to each query: ``max over keys of min(width, capacity)``, ``[batch, column, query]``; differentiable."""
        return self.product("hard", width, blend)

    def narrow_sum(self, values: Tensor, blend: Blend = ATTENTION, *, back: bool = False) -> Tensor:
        """``sum over keys of min(values, capacity)``, ``[batch, column, query]``; with `back`, over queries for each key.

        Added in the dtype of `values`: float64 where a bound must hold to the last digit.
        """
        if not back:
            return self.product("sum", values, blend)

        def consume(capacity: Tensor, strip: Strip, given: Tensor) -> Tensor:
            return path_product_of_finite(given[strip.batch, :, strip.queries].contiguous(), capacity.mT.contiguous(), "sum")

        return self._over_strips(consume, "keys", blend, values)

    def product(self, kind: ProductKind, values: Tensor, blend: Blend = ATTENTION, tau: float = 0.001) -> Tensor:
        """One of the path products from keys to queries: ``[batch, column, key]`` to ``[batch, column, query]``."""

        def consume(capacity: Tensor, strip: Strip, given: Tensor) -> Tensor:
            return path_product_of_finite(given[strip.batch].contiguous(), capacity, kind, tau)

        return self._over_strips(consume, "queries", blend, values)

    def push(self, share: Tensor, reach: Tensor, blend: Blend = ATTENTION) -> Tensor:
        """One greedy push of all sources to all sinks.

        Parameters
        ----------
        share : Tensor
            Part of what each key's edges can still use that is sent, ``[batch, source, sink, key]``.
        reach : Tensor
            What each query can still pass on, ``[batch, sink, query]``.
        blend : Blend

        Returns
        -------
        Tensor
            ``sum over keys of share * min(capacity, reach)``, ``[batch, source, sink, query]``; not differentiable.
        """
        out = share.new_zeros(*share.shape[:3], self.shape[1])
        for strip in self.strips():
            capacity = blend.capacity(strip, share.dtype)
            for sink in range(reach.shape[1]):
                useful = torch.minimum(capacity, reach[strip.batch, sink, None, strip.queries])
                out[strip.batch, :, sink, strip.queries] = share[strip.batch, :, sink] @ useful
        return out

    def crossing(self, above: Tensor, below: Tensor, blend: Blend = ATTENTION) -> Tensor:
        """Capacity of the edges from marked keys ``[batch, column, key]`` to marked queries, ``[column]``, in float64."""
        arrived = blend.new * self.carry(above)
        if blend.keep:
            arrived = arrived + blend.keep * above
        return (arrived.double() * below).sum((0, 2))

    def pooled(self, from_cell: Tensor, to_cell: Tensor, cells: int, blend: Blend = ATTENTION) -> Tensor:
        """Capacities summed over cells of both ends: ``[cell of key, cell of query]``, added in float64.

        Parameters
        ----------
        from_cell, to_cell : Tensor
            Cell of each key ``[batch, key]`` and of each query ``[batch, query]``, int64.
        cells : int
            How many there are.
        blend : Blend
        """
        total = torch.zeros(cells * cells, dtype=torch.float64, device=self.device)
        for strip in self.strips():
            capacity = blend.capacity(strip, torch.float64)
            count = capacity.shape[0]
            rows = torch.zeros(count, cells, capacity.shape[2], dtype=torch.float64, device=self.device)
            index = from_cell[strip.batch, :, None].expand_as(capacity)
            rows.scatter_add_(1, index, capacity)
            place = torch.arange(cells, device=self.device)[None, :, None] * cells + to_cell[strip.batch, None, strip.queries]
            total.index_add_(0, place.flatten(), rows.flatten())
        return total.view(cells, cells)

    # -- the machinery of passes --------------------------------------------------------------------------------------------

    def _over_strips(self, consume: Consume, over: str, blend: Blend, *values: Tensor) -> Tensor:
        """Run `consume` on the capacities of every strip; by way of the map itself where that is in memory."""
        if self.in_memory:
            whole = Strip(slice(0, self.shape[0]), slice(0, self.shape[1]), self.dense().mT)
            dtype = torch.promote_types(self.dtype, values[0].dtype)
            return consume(_blended(whole.weights.to(dtype), blend), whole, *(value.to(dtype) for value in values))
        tracked = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*self.parameters, *values))
        if not tracked:
            return _run_pass(self, consume, over, blend, *values)
        out: Tensor = _Pass.apply(self, consume, over, blend, len(values), *values, *self.parameters)  # type: ignore[no-untyped-call]
        return out


def _blended(weights: Tensor, blend: Blend) -> Tensor:
    """`Blend.capacity` of a whole map, differentiable."""
    capacity = weights * blend.new
    if blend.keep:
        capacity = capacity + blend.keep * torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    return capacity.contiguous()


def _run_pass(operator: Operator, consume: Consume, over: str, blend: Blend, *values: Tensor) -> Tensor:
    out: Tensor | None = None
    for strip in operator.strips():
        part = consume(blend.capacity(strip, values[0].dtype), strip, *values)
        if out is None:
            members = operator.shape[1] if over == "queries" else operator.shape[2]
            out = part.new_zeros(operator.shape[0], *part.shape[1:-1], members)
        if over == "queries":
            out[strip.batch, ..., strip.queries] = part
        else:
            out[strip.batch] += part
    assert out is not None  # a map has at least one strip
    return out


class _Pass(torch.autograd.Function):
    """A pass over strips whose backward pass computes every strip anew, so that no strip is ever kept."""

    @staticmethod
    def forward(ctx: Any, operator: Operator, consume: Consume, over: str, blend: Blend, count: int, *tensors: Tensor) -> Tensor:
        ctx.operator, ctx.consume, ctx.over, ctx.blend, ctx.count = operator, consume, over, blend, count
        ctx.save_for_backward(*tensors[:count])
        return _run_pass(operator, consume, over, blend, *(tensor.detach() for tensor in tensors[:count]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        operator, blend, count = ctx.operator, ctx.blend, ctx.count
        needs = ctx.needs_input_grad[5:]
        values = [value.detach().requires_grad_(need) for value, need in zip(ctx.saved_tensors, needs[:count], strict=True)]
        to_values = [torch.zeros_like(value) for value in values]
        to_parameters = [torch.zeros_like(tensor, dtype=operator.dtype) for tensor in operator.parameters]
        for strip in operator.strips():
            # The strip's memory is used again by `pull`.
            capacity = blend.capacity(strip, values[0].dtype).requires_grad_()
            with torch.enable_grad():
                part = ctx.consume(capacity, strip, *values)
            above = grad[strip.batch, ..., strip.queries] if ctx.over == "queries" else grad[strip.batch]
            wanted = [capacity, *(value for value in values if value.requires_grad)]
            found = list(torch.autograd.grad(part, wanted, above.contiguous()))
            to_capacity = found.pop(0)
            for total, value in zip(to_values, values, strict=True):
                if value.requires_grad:
                    total += found.pop(0)
            if any(needs[count:]):
                operator.pull(strip, to_capacity.to(operator.dtype) * blend.new, to_parameters)
        parameters = [
            gradient.to(tensor.dtype) if need else None
            for gradient, tensor, need in zip(to_parameters, operator.parameters, needs[count:], strict=True)
        ]
        return (
            *(None,) * 5,
            *(total if need else None for total, need in zip(to_values, needs[:count], strict=True)),
            *parameters,
        )


def overlaps(first: slice, second: slice | None) -> bool:
    """Whether two ranges have a member in common; ``None`` is everything."""
    return second is None or (first.start < second.stop and second.start < first.stop)


def refuse_large(shape: Sequence[int], what: str = "this site's map") -> None:
    """Refuse a map that is too large to be made, with what to ask instead."""
    entries = 1
    for size in shape:
        entries *= size
    if entries > LARGEST_MAP:
        raise InputError(
            f"expected a map of at most {LARGEST_MAP / 2**28:.0f} GiB in float32; {what} of {' x '.join(map(str, shape))} would "
            f"take {entries / 2**28:.1f} GiB. Ask for a product with it, for columns, or for it pooled to a coarser grid=: "
            "those never make the map."
        )
