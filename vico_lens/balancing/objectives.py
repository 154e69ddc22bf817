"""What balancing lowers: functions of the influence that each concept has on the video, differentiable in the latents.

An objective is an entry of the registry `objectives`. It is given the influences of the running step and returns one loss and one
strength a concept; the strengths say which concept is starved, the loss says how badly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.registry import Registry

__all__ = ["AttendAndExcite", "Equal", "Influences", "Objective", "Variance", "Verdict", "Weakest", "objectives", "smooth"]


@dataclass(frozen=True, slots=True)
class Influences:
    """Influence of the prompt on the video at one step, for one video.

    Attributes
    ----------
    tokens : Tensor [token, frame, y, x]
        Of every content token of the prompt on its own (no start, end or padding). With an objective that does not ask for single
        tokens it is empty.
    members : tuple of tuple of int
        For each concept the places of its tokens on the first axis of `tokens`.
    concepts : Tensor [concept, frame, y, x]
        Of every concept, its tokens acting together as one source.
    """

    tokens: Tensor
    members: tuple[tuple[int, ...], ...]
    concepts: Tensor


@dataclass(frozen=True, slots=True)
class Verdict:
    """Loss (scalar) and strengths [concept] of one video at one step."""

    loss: Tensor
    strengths: Tensor


class Objective(Protocol):
    """A loss over concept influences.

    Attributes
    ----------
    per_token : bool
        Whether it reads the influence of single tokens.
    flow : str or None
        The only flow it is defined on, or None when any will do.
    """

    per_token: ClassVar[bool]
    flow: ClassVar[str | None]

    def __call__(self, influences: Influences) -> Verdict:
        """Judge one video; differentiable."""
        ...


objectives: Registry[type[Objective]] = Registry("balancing objective", "vico_lens.objectives")


def smooth(maps: Tensor, axes: int = 3, sigma: float = 0.5) -> Tensor:
    """Smooth maps over their last `axes` axes with the published 3-tap kernel, reflecting at the borders.

    The published kernel is ``exp(-(d / (2 sigma))^2)``, so its standard deviation is ``sqrt(2) sigma``.

    Parameters
    ----------
    maps : Tensor [map, frame, y, x]
    axes : int
        3 smooths over frame, y and x; 2 over y and x.
    sigma : float
        Kernel parameter in cells.

    Examples
    --------
    >>> point = torch.zeros(1, 3, 3, 3)
    >>> point[0, 1, 1, 1] = 1
    >>> round(float(smooth(point)[0, 1, 1, 1]), 5)
    0.19122
    """
    side = exp(-((1 / (2 * sigma)) ** 2))
    taps = torch.tensor([side, 1.0, side], dtype=maps.dtype, device=maps.device) / (1 + 2 * side)
    for axis in range(maps.dim() - axes, maps.dim()):
        size = maps.shape[axis]
        # One cell has no neighbour to reflect: it stands for both.
        before, after = (maps.narrow(axis, 1, 1), maps.narrow(axis, size - 2, 1)) if size > 1 else (maps, maps)
        padded = torch.cat([before, maps, after], axis)
        maps = sum((padded.narrow(axis, tap, size) * taps[tap] for tap in range(1, 3)), padded.narrow(axis, 0, size) * taps[0])
    return maps


def _contested(influences: Influences, sharpness: float) -> Tensor:
    """Let the content tokens compete at every position: softmax over tokens, then sum over each concept's tokens."""
    shares = torch.softmax(influences.tokens * sharpness, dim=0)
    return torch.stack([shares[list(places)].sum(0) for places in influences.members])


@objectives.register("weakest")
@dataclass(frozen=True, slots=True)
class Weakest:
    """Lift the weakest concept: the published loss of Vico (arXiv:2407.06182), ``max_i max(0, 1 - A_i)``.

    ``A_i`` is the highest value anywhere in the video of concept i's map, after the content tokens competed at every position
    (softmax over tokens of ``sharpness`` times their flow) and the map was smoothed over frame, y and x.

    Parameters
    ----------
    sharpness : float
        Factor before the softmax over tokens.
    sigma : float
        Smoothing in cells, see `smooth`.

    Examples
    --------
    >>> maps = torch.zeros(2, 3, 3, 3)
    >>> verdict = Weakest()(Influences(maps, ((0,), (1,)), maps))
    >>> round(float(verdict.loss), 6)
    0.5
    """

    per_token: ClassVar[bool] = True
    flow: ClassVar[str | None] = None

    sharpness: float = 100.0
    sigma: float = 0.5

    def __call__(self, influences: Influences) -> Verdict:
        """Loss [scalar] and strengths ``A_i`` [concept]."""
        strengths = smooth(_contested(influences, self.sharpness), 3, self.sigma).flatten(1).amax(1)
        return Verdict((1 - strengths).clamp_min(0).amax(), strengths)


@objectives.register("variance")
@dataclass(frozen=True, slots=True)
class Variance:
    """Spread of the same strengths as `Weakest`: ``sum_i (A_i - mean A)^2``, the ablation of arXiv:2407.06182.

    Parameters
    ----------
    sharpness, sigma : float
        As in `Weakest`.
    """

    per_token: ClassVar[bool] = True
    flow: ClassVar[str | None] = None

    sharpness: float = 100.0
    sigma: float = 0.5

    def __call__(self, influences: Influences) -> Verdict:
        """Loss [scalar] and strengths ``A_i`` [concept]."""
        strengths = smooth(_contested(influences, self.sharpness), 3, self.sigma).flatten(1).amax(1)
        return Verdict((strengths - strengths.mean()).square().sum(), strengths)


@objectives.register("equal")
@dataclass(frozen=True, slots=True)
class Equal:
    """Divergence of the concepts' shares from target shares, ``sum_i t_i log(t_i / s_i)`` in nats.

    A share ``s_i`` is concept i's influence summed over the video, over that of all concepts. It has a gradient at every
    position, where `Weakest` has one around a single point.

    Parameters
    ----------
    targets : sequence of float or None
        One weight a concept, in their order; any positive scale ("crab 2 : beach 1" is ``(2, 1)``). None asks for equal shares.

    Examples
    --------
    >>> maps = torch.stack([torch.full((1, 2, 2), 0.2), torch.full((1, 2, 2), 0.1)])
    >>> verdict = Equal(targets=(2, 1))(Influences(maps, ((0,), (1,)), maps))
    >>> [round(value, 4) for value in verdict.strengths.tolist()], round(float(verdict.loss), 6)
    ([0.6667, 0.3333], 0.0)
    """

    per_token: ClassVar[bool] = False
    flow: ClassVar[str | None] = None

    targets: Sequence[float] | None = None

    def __call__(self, influences: Influences) -> Verdict:
        """Loss [scalar] and shares ``s_i`` [concept]."""
        totals = influences.concepts.flatten(1).sum(1)
        shares = totals / totals.sum()
        target = shares.new_ones(len(shares)) if self.targets is None else shares.new_tensor(list(self.targets))
        if len(target) != len(shares) or not bool((target > 0).all()):
            raise InputError(
                f"expected one positive target share for each of {len(shares)} concepts, got {list(self.targets or ())}."
            )
        target = target / target.sum()
        return Verdict((target * (target / shares).log()).sum(), shares)


@objectives.register("attend_and_excite")
@dataclass(frozen=True, slots=True)
class AttendAndExcite:
    """The loss of Attend-and-Excite (arXiv:2301.13826) on video: cross-attention only, every frame an image of its own.

    ``A_i`` is the mean over frames of the highest value in the frame of concept i's cross-attention, after the softmax over
    content tokens and smoothing over y and x; the loss is ``max_i (1 - A_i)``.

    Parameters
    ----------
    sharpness, sigma : float
        As in `Weakest`; the published values.
    """

    per_token: ClassVar[bool] = True
    flow: ClassVar[str | None] = "cross_attention"

    sharpness: float = 100.0
    sigma: float = 0.5

    def __call__(self, influences: Influences) -> Verdict:
        """Loss [scalar] and strengths ``A_i`` [concept]."""
        strengths = smooth(_contested(influences, self.sharpness), 2, self.sigma).flatten(2).amax(2).mean(1)
        return Verdict((1 - strengths).amax(), strengths)
