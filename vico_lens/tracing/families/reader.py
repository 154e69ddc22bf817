"""From a flat attention call to named axes: undo what the model did to its latents before calling the kernel.

Models fold the axes that do not attend into the batch (``(row frame) head (y x)`` for spatial attention) and flatten those that
do. Given the grid and the folded axes, the way back is a reshape, and wherever the sizes do not multiply up it is an error that
says which site and which sizes: a trace with silently mixed-up axes would look as good as a right one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vico_lens.errors import TracingError
from vico_lens.tracing.families.base import Axis, Family, Forward, Grid, Rule, Unfolded
from vico_lens.tracing.raw_calls import Attended, RawCall

__all__ = ["LEVEL", "MASKED", "additive", "grid_of", "plain", "read", "sizes", "split_rows"]

MASKED = -3.0e38
"""Stands for minus infinity in a bias: finite, so that a fully masked row gives numbers and not NaN, in the value and in its
gradient."""

LEVEL = -1.0e30
"""Makes a row uniform over the keys that have it: too low for a logit to show beside it, too high to hide a key."""

_AXES: tuple[Axis, ...] = ("frame", "y", "x")


def read(run: Attended, rule: Rule, family: Family, forward: Forward, rows: Sequence[int]) -> Iterator[Unfolded]:
    """Unfold one execution of an attention module, one result a batch row.

    Parameters
    ----------
    run : Attended
        What was seen.
    rule : Rule
        The family's rule for this module; its `kind` is not None.
    family : Family
        The row of the table.
    forward : Forward
        Inputs of the denoiser's forward.
    rows : sequence of int
        Batch rows to unfold.

    Yields
    ------
    Unfolded
        In order of `rows`.

    Raises
    ------
    TracingError
        If the sizes of the call do not fit the grid.
    """
    if rule.read is not None:
        yield from rule.read(run, rule, family, forward, rows)
    else:
        yield from plain(run, rule, forward, rows, text_last=family.text == "last")


def plain(run: Attended, rule: Rule, forward: Forward, rows: Sequence[int], *, text_last: bool = False) -> Iterator[Unfolded]:
    """Unfold a call whose layout the rule says in full; in a joint softmax the text stands first, or behind the video."""
    raw = _chosen(run, rule, forward)
    batch, heads, queries, keys, channels = sizes(raw)
    grid, text = grid_of(run, rule, forward, batch, queries)
    fold = tuple(grid[_AXES.index(axis)] for axis in rule.fold)
    query_axes = tuple(size for axis, size in zip(_AXES, grid, strict=True) if axis not in rule.fold)
    if rule.kind == "joint":
        query_axes = (queries,)
    key_axes = (keys,) if rule.kind == "cross" else query_axes
    if keys != math.prod(key_axes):
        raise _misfit(run, rule, forward, f"{keys} keys", f"{math.prod(key_axes)} of the grid {grid}")
    if rule.kind == "cross" and forward.text and keys != forward.text:
        raise _misfit(run, rule, forward, f"{keys} keys", f"the {forward.text} text tokens that the denoiser was given")
    roll = text if rule.kind == "joint" and text_last else 0
    for row, call in split_rows(raw, forward.batch, rows):
        query = None if call.query is None else _unfold(call.query, fold, query_axes)
        key = None if call.key is None else _unfold(call.key, fold, key_axes)
        bias = additive(call, queries, keys)
        bias = None if bias is None else _unfold_bias(bias, fold, query_axes, key_axes)
        probabilities = call.probabilities
        if probabilities is not None:
            probabilities = probabilities.reshape(*fold, heads, *query_axes, *key_axes).movedim(len(fold), 0)
        query, key, bias, probabilities = (None if x is None else _in_order(x, rule) for x in (query, key, bias, probabilities))
        if rule.kind == "cross" and fold:  # the text is repeated for every frame: once is enough
            key = None if key is None else key[:, 0]
            bias = None if bias is None else bias[:, :1]
        if roll:
            query = None if query is None else query.roll(roll, 1)
            key = None if key is None else key.roll(roll, 1)
            bias = None if bias is None else _roll(bias, roll)
            probabilities = None if probabilities is None else _roll(probabilities, roll)
        tokens = keys if rule.kind == "cross" else text
        yield Unfolded(row, grid, heads, channels, tokens, query, key, call.scale, bias, probabilities)


def _chosen(run: Attended, rule: Rule, forward: Forward) -> RawCall:
    """Choose the call of a module that counts, where it makes several.

    Raises
    ------
    TracingError
        If two of them could be it: processors that attend to a second text do that (normalized attention guidance).
    """
    call = run.calls[0 if rule.pick == "first" else -1]
    if len(run.calls) == 1:
        return call
    fits = [other for other in run.calls if sizes(other)[3] == forward.text]
    if rule.kind == "cross" and len(fits) == 1:
        return fits[0]
    alike = [other for other in run.calls if sizes(other)[2:4] == sizes(call)[2:4]]
    processor = getattr(run.owner, "processor", None)
    if len(alike) > 1 and processor is not None and not type(processor).__module__.startswith("diffusers."):
        raise TracingError(
            f"{run.denoiser}.{run.module}: expected one attention call to the text, got {len(alike)} of the same size from "
            f"{type(processor).__name__}, a processor that diffusers does not have: which of them holds the prompt cannot be "
            "told. Put the stock processor back while tracing (in diffusers: model.set_default_attn_processor()), or register a "
            "Family whose Rule for this module has a `read` function."
        )
    return call


def sizes(raw: RawCall) -> tuple[int, int, int, int, int]:
    """Return batch, heads, queries, keys and channels of a call (0 channels if only its result is known)."""
    if raw.probabilities is not None:
        batch, heads, queries, keys = raw.probabilities.shape
        return batch, heads, queries, keys, 0
    assert raw.query is not None and raw.key is not None
    if raw.query.ndim != 4:
        raise TracingError(
            f"expected a query [batch, head, token, channel], got {raw.query.ndim} dimensions {tuple(raw.query.shape)}."
        )
    batch, heads, queries, channels = raw.query.shape
    return batch, heads, queries, int(raw.key.shape[-2]), channels


def grid_of(run: Attended, rule: Rule, forward: Forward, batch: int, queries: int) -> tuple[Grid, int]:
    """Find the grid that a call of these sizes works on, and the number of text tokens among its queries.

    Raises
    ------
    TracingError
        If none of the forward's grids fits.
    """
    for grid in forward.grids:
        fold = math.prod(size for axis, size in zip(_AXES, grid, strict=True) if axis in rule.fold)
        text = queries - math.prod(grid) // fold
        if batch == forward.batch * fold and (text >= 0 if rule.kind == "joint" else text == 0):
            return grid, text
    grids = ", ".join("x".join(map(str, grid)) for grid in forward.grids)
    raise _misfit(
        run, rule, forward, f"batch {batch} and {queries} queries", f"what the grid {grids} makes with {rule.fold} in the batch"
    )


def split_rows(raw: RawCall, batch: int, rows: Sequence[int]) -> Iterator[tuple[int, RawCall]]:
    """Cut rows of the denoiser's batch out of a call; axes folded behind the row stay in the batch axis of each."""
    count = sizes(raw)[0]
    size = count // batch
    mask = raw.mask
    if mask is not None:
        mask = mask[(None,) * (4 - mask.ndim)]
    for row in rows:
        part = slice(row * size, (row + 1) * size)
        yield (
            row,
            RawCall(
                None if raw.query is None else raw.query[part],
                None if raw.key is None else raw.key[part],
                None if mask is None else mask[part] if mask.shape[0] == count else mask,  # one for all, or one each
                raw.causal,
                raw.scale,
                None if raw.probabilities is None else raw.probabilities[part],
            ),
        )


def additive(call: RawCall, queries: int, keys: int) -> Tensor | None:
    """Turn the mask of a call into a finite float32 bias ``[batch, head, query, key]`` (axes of 1 broadcast), or None.

    Minus infinity and False hide a key, and a row without any other has no weights. The lowest finite number of a precision,
    which many models take for minus infinity, does not: in a row that holds nothing higher it swallows the logits, and torch's
    softmax is uniform there. Such a row gets `LEVEL`.
    """
    mask = call.mask
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)
    if call.causal:
        assert call.query is not None
        upper = torch.ones(queries, keys, dtype=torch.bool, device=call.query.device).triu(1)
        mask = torch.where(upper, -torch.inf, torch.zeros(1, 1, 1, 1, device=upper.device) if mask is None else mask)
    if mask is None:
        return None
    peak = mask.amax(-1, keepdim=True)  # in the precision of the mask: the lowest float64 is no float32
    level = (peak <= LEVEL) & (peak > -torch.inf)
    # no look at the numbers before this: a mask may be without any, where only shapes are asked for
    mask = torch.where(level, torch.where(mask == peak, LEVEL, -torch.inf), mask)
    return mask.float().clamp(min=MASKED)


def _unfold(x: Tensor, fold: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """``[fold, head, axes, channel]`` flat to ``[head, *fold, *axes, channel]``."""
    return x.reshape(*fold, x.shape[1], *axes, x.shape[-1]).movedim(len(fold), 0)


def _in_order(x: Tensor, rule: Rule) -> Tensor:
    """Bring ``[head, *fold, ...]`` to frame before y before x, whichever the model put outermost."""
    order = sorted(range(len(rule.fold)), key=lambda place: _AXES.index(rule.fold[place]))
    if order == list(range(len(order))):
        return x
    return x.permute(0, *(1 + place for place in order), *range(1 + len(order), x.ndim))


def _unfold_bias(bias: Tensor, fold: tuple[int, ...], query_axes: tuple[int, ...], key_axes: tuple[int, ...]) -> Tensor:
    sizes = zip(bias.shape, (fold, None, query_axes, key_axes), strict=True)
    shape = [
        n for size, axes in sizes for n in ((size,) if axes is None else axes if size == math.prod(axes) else (1,) * len(axes))
    ]
    return bias.reshape(shape).movedim(len(fold), 0)


def _roll(x: Tensor, text: int) -> Tensor:
    """Bring text behind the video to the front, on both axes of a joint softmax."""
    for axis in (-2, -1):
        x = x if x.shape[axis] == 1 else x.roll(text, axis)
    return x


def _misfit(run: Attended, rule: Rule, forward: Forward, got: str, expected: str) -> TracingError:
    return TracingError(
        f"{run.denoiser}.{run.module} ({rule.kind}): expected {expected} for a batch of {forward.batch} rows, got {got}. The "
        "model lays "
        "its tokens out in a way this family's row does not describe (windowed or chunked attention does that): switch that "
        "option "
        "off, or register a Family whose Rule has a `read` function for this module."
    )
