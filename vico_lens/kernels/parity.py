"""The loss that Vico's released code minimises, from the flow maps of its groups (arXiv 2407.06182, section 3.2 and the code).

Kept apart from the flow itself because none of it is in the paper: a softmax over words at a gain of 100, a small Gaussian, the
maximum over the video. Reproduced so that a balancer in parity mode takes the published step.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import torch
from torch import Tensor

from vico_lens.errors import InputError

__all__ = ["mean_of_groups", "parity_influence", "parity_loss", "smooth"]

GAIN = 100.0
"""Factor on the flow before the softmax over words."""


def smooth(maps: Tensor, axes: int = 3, sigma: float = 0.5) -> Tensor:
    """Smooth maps over their last `axes` axes with the released 3-tap kernel, reflecting at the borders.

    Its exponent lacks a factor 1/2, ``exp(-(d / (2 sigma))^2)``, so the standard deviation is ``sqrt(2) sigma``. The only cell
    of an axis stands for both of its neighbours, so that a constant is kept.

    Parameters
    ----------
    maps : Tensor [.., frame, row, column]
    axes : int
        3 smooths over frames, rows and columns; 2 over rows and columns.
    sigma : float
        Kernel parameter in cells.

    Raises
    ------
    InputError
        If the maps have fewer axes than that.

    Examples
    --------
    >>> point = torch.zeros(3, 3, 3)
    >>> point[1, 1, 1] = 1
    >>> round(smooth(point)[1, 1, 1].item(), 5)
    0.19122
    """
    if maps.ndim < axes:
        raise InputError(f"expected maps of at least {axes} axes to smooth; got {tuple(maps.shape)}.")
    side = exp(-((1 / (2 * sigma)) ** 2))
    taps = torch.tensor([side, 1.0, side], dtype=maps.dtype, device=maps.device) / (1 + 2 * side)
    for axis in range(maps.ndim - axes, maps.ndim):
        size = maps.shape[axis]
        before, after = (maps.narrow(axis, 1, 1), maps.narrow(axis, size - 2, 1)) if size > 1 else (maps, maps)
        padded = torch.cat([before, maps, after], axis)
        maps = sum((padded.narrow(axis, tap, size) * taps[tap] for tap in range(1, 3)), padded.narrow(axis, 0, size) * taps[0])
    return maps


def mean_of_groups(maps: Sequence[Tensor]) -> Tensor:
    """Average the flow maps of several groups on one grid, as the released code does."""
    if not maps:
        raise InputError("expected the flow map of at least one group; got none.")
    shapes = {tuple(group.shape) for group in maps}
    if len(shapes) > 1:
        raise InputError(f"expected groups on one grid; got {sorted(shapes)}. Resample them first.")
    return torch.stack(list(maps)).mean(0)


def parity_influence(flow: Tensor, tokens: Sequence[int], last: int) -> Tensor:
    """Influence of each token in the released objective.

    Parameters
    ----------
    flow : Tensor
        Mean flow map ``[frame, row, column, token]``.
    tokens : sequence of int
        Token numbers, counted with the begin token at 0.
    last : int
        Number of the end token: it and all after it are left out of the softmax, as is the begin token.

    Returns
    -------
    Tensor
        ``[len(tokens)]``: the largest voxel of the smoothed share of each token.
    """
    if flow.ndim != 4:
        raise InputError(f"flow: expected [frame, row, column, token]; got shape {tuple(flow.shape)}.")
    if not 1 < last <= flow.shape[-1]:
        raise InputError(f"last: expected the end token's number in 2..{flow.shape[-1]}; got {last}.")
    outside = [token for token in tokens if not 1 <= token < last]
    if outside or not tokens:
        raise InputError(f"tokens: expected one or more numbers in 1..{last - 1}; got {list(tokens)}.")
    shares = torch.softmax(GAIN * flow[..., 1:last], dim=-1)
    chosen = shares[..., [token - 1 for token in tokens]].movedim(-1, 0)
    return smooth(chosen).flatten(1).amax(1)


def parity_loss(flow: Tensor, tokens: Sequence[int], last: int) -> Tensor:
    """The released loss ``max_i max(0, 1 - A_i)``, that is 1 minus the influence of the weakest token; a scalar."""
    return (1 - parity_influence(flow, tokens, last)).clamp(min=0).max()
