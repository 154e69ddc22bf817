"""Area resampling of attention weights from one video token grid to another, along single axes.

A query is a place that reads: several fine queries become one coarse query by *averaging* their rows. A key is a share of a row:
several fine keys become one coarse key by *summing*. Refining is the same arithmetic the other way: a fine query copies the
coarse row it lies in, a fine key gets its area share of the coarse weight. So a row keeps its sum in both directions, and cells
that do not divide evenly (5 columns to 8) are split by the length they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

__all__ = ["area_matrix", "resample_axes"]

Rule = Literal["mean", "sum"]


@lru_cache(maxsize=256)
def _shared_length(source: int, target: int) -> Tensor:
    """Length shared by target cell i and source cell j when the axis has length 1: ``[target, source]``, float64."""
    low = torch.maximum(torch.arange(target)[:, None] * source, torch.arange(source)[None] * target)
    high = torch.minimum((torch.arange(target)[:, None] + 1) * source, (torch.arange(source)[None] + 1) * target)
    return (high - low).clamp_min(0).double() / (source * target)


def area_matrix(source: int, target: int, rule: Rule) -> Tensor:
    """Return the matrix ``[target, source]`` that brings an axis of `source` cells to `target` cells.

    ``"mean"`` has rows that sum to 1 (queries), ``"sum"`` has columns that sum to 1 (keys).

    Examples
    --------
    >>> area_matrix(4, 2, "mean").tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    >>> area_matrix(4, 2, "sum").tolist()
    [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    >>> area_matrix(2, 3, "sum").sum(0).tolist()
    [1.0, 1.0]
    """
    return _shared_length(source, target) * (target if rule == "mean" else source)


def resample_axes(values: Tensor, axes: Sequence[int], sizes: Sequence[int], rule: Rule) -> Tensor:
    """Resample each of `axes` of `values` to the size beside it in `sizes`; axes that have that size already are left alone.

    Differentiable in `values`.

    Examples
    --------
    >>> row = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    >>> [round(x, 6) for x in resample_axes(row, [1], [2], "sum")[0].tolist()]
    [0.3, 0.7]
    """
    for axis, size in zip(axes, sizes, strict=True):
        if values.shape[axis] != size:
            matrix = area_matrix(values.shape[axis], size, rule).to(values)
            values = torch.tensordot(values, matrix, dims=([axis], [1])).movedim(-1, axis)
    return values
