"""Attention weights, exactly, from query and key: the one definition of this package, and its columns in bounded memory.

The map of one head over N keys has N * N entries, its query and key 2 * N * d. `attention` is the definition, a few lines that
materialise the map: live stages, stored weights and stored factors all are what it says. `attention_columns` gives the same
numbers for the columns asked for while it holds a few megabytes of logits at a time: a first pass streams each row's maximum and
sum over blocks of keys, a second one evaluates the columns. Its gradient recomputes the blocks instead of keeping them.
`vico_lens.kernels.factored` applies the same map to vectors. A row that a mask hides altogether has no weights (zeros), as in
torch's own attention, and is never NaN. Autocast, which would round the operands, is off in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "MASKED",
    "Normaliser",
    "attention",
    "attention_columns",
    "block_bias",
    "exact_dtype",
    "hides",
    "row_normaliser",
    "without_autocast",
]

MASKED = -1e37
"""A bias at or below this hides its key. Finite, so that a row hidden everywhere stays free of NaN."""

# `MASKED` itself must hide its key after it was rounded to any dtype.
_HIDES = 0.99 * MASKED

# Logits that may be materialised at once (elements); above it, rows are streamed in blocks that stay in the processor's cache.
_AT_ONCE = 1 << 22
_ROWS, _KEYS = 256, 1024

Normaliser = tuple[Tensor, Tensor]
F = TypeVar("F", bound=Callable[..., Any])


def without_autocast(kernel: F) -> F:
    """Keep the digits of the operands also where the pipeline, or whoever reads its trace, runs under autocast.

    The first argument of `kernel` says on which device it works: it is a tensor, or has a `device`.
    """

    @wraps(kernel)
    def run(first: Any, *args: Any, **kwargs: Any) -> Any:
        kind = first.device.type
        if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
            return kernel(first, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return kernel(first, *args, **kwargs)

    return cast(F, run)


def exact_dtype(*values: Tensor) -> torch.dtype:
    """The dtype in which attention weights are computed: float32, or float64 where an operand is that."""
    dtype = torch.float32
    for value in values:
        dtype = torch.promote_types(dtype, value.dtype)
    return dtype


def _exact(*values: Tensor) -> tuple[Tensor, ...]:
    """Bring half precision to float32, and leave float32 and float64 alone."""
    dtype = exact_dtype(*values)
    return tuple(value.to(dtype) for value in values)


def hides(bias: Tensor) -> Tensor:
    """Which entries of a bias hide their key.

    >>> hides(torch.tensor([0.0, -5e36, MASKED, -torch.inf])).tolist()
    [False, False, True, True]
    """
    return bias <= _HIDES


def block_bias(bias: Tensor | None, rows: slice, keys: slice | Tensor, causal: bool, device: torch.device) -> Tensor | None:
    """The part of a bias ``[.., query, key]`` that a block of logits gets; causal attention hides the keys after each query."""
    part = None if bias is None else bias[..., rows, keys]
    if not causal:
        return part
    at = torch.arange(keys.start, keys.stop, device=device) if isinstance(keys, slice) else keys
    later = at[None] > torch.arange(rows.start, rows.stop, device=device)[:, None]
    whole = torch.zeros(later.shape, device=device) if part is None else part
    return whole.masked_fill(later, -torch.inf)


@without_autocast
def attention(query: Tensor, key: Tensor, scale: float, bias: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Softmax attention weights: the definition, in float32 at least.

    Parameters
    ----------
    query : Tensor
        ``[..., query, channel]``.
    key : Tensor
        ``[..., key, channel]``; leading axes broadcast against those of `query`.
    scale : float
        Factor on the dot product.
    bias : Tensor, optional
        Broadcasts against ``[..., query, key]``; an entry at or below `MASKED` hides its key.
    causal : bool
        Hide every key after its query.

    Returns
    -------
    Tensor
        ``[..., query, key]``, rows sum to 1, or to 0 where every key is hidden.

    Examples
    --------
    >>> query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    >>> attention(query, key, 1.0, torch.tensor([0.0, 0.0, -torch.inf]))
    tensor([[0.7311, 0.2689, 0.0000]])
    """
    query, key = _exact(query, key)
    logits = (query * scale) @ key.transpose(-1, -2)
    if causal:
        bias = None if bias is None else bias.expand(*bias.shape[:-2], *logits.shape[-2:])
        bias = block_bias(bias, slice(0, query.shape[-2]), slice(0, key.shape[-2]), True, query.device)
    if bias is None:
        return logits.softmax(-1)
    logits = logits + bias.to(logits).clamp_min(10 * MASKED)
    return logits.softmax(-1).masked_fill(hides(bias), 0.0)


@without_autocast
def attention_columns(
    query: Tensor,
    key: Tensor,
    scale: float,
    bias: Tensor | None = None,
    columns: Tensor | None = None,
    *,
    normaliser: Normaliser | None = None,
    causal: bool = False,
) -> Tensor:
    """Columns of the attention weights, normalised over all keys; equal to `attention` and bounded in memory.

    Holds a few tens of megabytes beside its operands and its result, whatever the number of keys, in the backward pass too.
    Differentiable once in `query` and `key`.

    Parameters
    ----------
    query, key, scale, bias, causal
        As for `attention`. Rows are chosen by handing only those rows of `query` (and of `bias`), unless it is causal.
    columns : Tensor, optional
        Indices of the keys wanted, int64 ``[column]``; all by default.
    normaliser : tuple of Tensor, optional
        What `row_normaliser` returned for the same operands, to save the first pass.

    Returns
    -------
    Tensor
        ``[..., query, column]``.
    """
    query, key = _exact(query, key)
    batch, rows, keys = _extent(query, key, bias)
    volume = batch.numel() * rows * keys
    if normaliser is None and volume <= _AT_ONCE:
        weights = attention(query, key, scale, bias, causal=causal)
        return weights if columns is None else weights[..., columns]
    if columns is None:
        columns = torch.arange(keys, device=key.device)
    query, key, bias = _spread(query, key, bias, batch, rows, keys)
    if not batch:
        return _columns_of_one(query, key, scale, bias, columns, normaliser, causal)
    graph = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    size = 1 if graph or normaliser is not None else max(1, _AT_ONCE * batch[0] // max(volume, 1))
    parts = []
    for first in range(0, batch[0], size):
        item: slice | int = first if size == 1 else slice(first, first + size)
        part = attention_columns(
            query[item],
            key[item],
            scale,
            None if bias is None else bias[item],
            columns,
            normaliser=None if normaliser is None else (normaliser[0][item], normaliser[1][item]),
            causal=causal,
        )
        parts.append(part[None] if size == 1 else part)
    return torch.cat(parts) if parts else query.new_zeros(*batch, rows, len(columns))


@without_autocast
def row_normaliser(query: Tensor, key: Tensor, scale: float, bias: Tensor | None = None, *, causal: bool = False) -> Normaliser:
    """Return the maximum logit and the sum of ``exp(logit - maximum)`` of each row, each ``[..., query]``.

    Kept apart rather than as one log-sum-exp: ``exp(logit - maximum) / sum`` loses no digits when logits are large.
    """
    query, key = _exact(query, key)
    batch, rows, keys = _extent(query, key, bias)
    query, key, bias = _spread(query, key, bias, batch, rows, keys)
    if not batch:
        with torch.no_grad():
            return _normaliser_of_one(query, key, scale, bias, causal)
    pairs = [row_normaliser(query[i], key[i], scale, None if bias is None else bias[i], causal=causal) for i in range(batch[0])]
    return torch.stack([peak for peak, _ in pairs]), torch.stack([total for _, total in pairs])


def _extent(query: Tensor, key: Tensor, bias: Tensor | None) -> tuple[torch.Size, int, int]:
    """Leading axes of the weights, rows and keys."""
    # numpy's, for torch's imports its symbolic algebra, which takes longer than a small map
    batch = torch.Size(np.broadcast_shapes(query.shape[:-2], key.shape[:-2], () if bias is None else bias.shape[:-2]))
    return batch, query.shape[-2], key.shape[-2]


def _spread(
    query: Tensor, key: Tensor, bias: Tensor | None, batch: torch.Size, rows: int, keys: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Expand the operands to the leading axes of the weights, as views."""
    query, key = query.expand(*batch, *query.shape[-2:]), key.expand(*batch, *key.shape[-2:])
    return query, key, None if bias is None else bias.expand(*batch, rows, keys)


def _blocks(
    query: Tensor, key: Tensor, scale: float, bias: Tensor | None, causal: bool
) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
    """Yield rows, keys, logits and bias of one block after another; the logits in a buffer that is used again for the next."""
    scaled, turned = query * scale, key.t().contiguous()
    buffer = scaled.new_empty(_ROWS * _KEYS)
    for first in range(0, len(query), _ROWS):
        rows = slice(first, min(first + _ROWS, len(query)))
        for start in range(0, len(key), _KEYS):
            keys = slice(start, min(start + _KEYS, len(key)))
            shape = (rows.stop - rows.start, keys.stop - keys.start)
            logits = torch.mm(scaled[rows], turned[:, keys], out=buffer[: shape[0] * shape[1]].view(shape))
            part = block_bias(bias, rows, keys, causal, query.device)
            if part is not None:
                logits += part.to(logits).clamp_min(10 * MASKED)
            yield rows, keys, logits, part


def _normaliser_of_one(query: Tensor, key: Tensor, scale: float, bias: Tensor | None, causal: bool) -> Normaliser:
    peak = query.new_full((len(query),), -torch.inf)
    total = query.new_zeros(len(query))
    for rows, _, logits, _ in _blocks(query, key, scale, bias, causal):
        higher = torch.maximum(peak[rows], logits.amax(-1))
        total[rows] = total[rows] * (peak[rows] - higher).exp_() + logits.sub_(higher[:, None]).exp_().sum(-1)
        peak[rows] = higher
    return peak, total


def _weights(logits: Tensor, peak: Tensor, total: Tensor, bias: Tensor | None) -> Tensor:
    """Turn a block of logits into weights, in place; keys that the block's bias hides get none."""
    weights = logits.sub_(peak[:, None]).exp_().div_(total[:, None])
    return weights if bias is None else weights.masked_fill_(hides(bias), 0.0)


def _columns_of_one(
    query: Tensor,
    key: Tensor,
    scale: float,
    bias: Tensor | None,
    columns: Tensor,
    normaliser: Normaliser | None,
    causal: bool,
) -> Tensor:
    if normaliser is None:
        normaliser = row_normaliser(query.detach(), key.detach(), scale, bias, causal=causal)
    return _StreamedColumns.apply(query, key, bias, scale, causal, columns, *normaliser)  # type: ignore[no-any-return, no-untyped-call]


class _StreamedColumns(torch.autograd.Function):
    """Columns of one softmax matrix; the backward pass recomputes blocks of the whole matrix, one at a time.

    With weights W, gradient G on the chosen columns and r = sum over them of G * W, the gradient on the logits is
    ``W * (G - r)``, where G is zero outside the chosen columns.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        bias: Tensor | None,
        scale: float,
        causal: bool,
        columns: Tensor,
        peak: Tensor,
        total: Tensor,
    ) -> Tensor:
        weights = query.new_empty(len(query), len(columns))
        picked = key[columns]
        for first in range(0, len(query), _ROWS):
            rows = slice(first, min(first + _ROWS, len(query)))
            logits = (query[rows] * scale) @ picked.t()
            part = block_bias(bias, rows, columns, causal, query.device)
            if part is not None:
                logits += part.to(logits).clamp_min(10 * MASKED)
            weights[rows] = _weights(logits, peak[rows], total[rows], part)
        ctx.scale, ctx.bias, ctx.causal = scale, bias, causal
        ctx.save_for_backward(query, key, columns, peak, total, weights)
        return weights

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, columns, peak, total, weights = ctx.saved_tensors
        direct = gradient * weights
        row_sum = direct.sum(-1)
        to_query = direct @ key[columns]
        to_key = torch.zeros_like(key).index_add_(0, columns, direct.t() @ query)
        for rows, keys, logits, part in _blocks(query, key, ctx.scale, ctx.bias, ctx.causal):
            pull = _weights(logits, peak[rows], total[rows], part).mul_(row_sum[rows][:, None])
            to_query[rows] -= pull @ key[keys]
            to_key[keys] -= pull.t() @ query[rows]
        return to_query * ctx.scale, to_key * ctx.scale, None, None, None, None, None, None
