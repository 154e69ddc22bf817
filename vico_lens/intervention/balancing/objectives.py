"""What balancing lowers: functions of the influence that each concept has on the video, differentiable in the latents.

An objective is an entry of the registry `objectives`. It is given the influences of the running step and returns one loss and one
strength a concept; the strengths say which concept is starved, the loss says how badly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.intervention.balancing.directions import Direction
from vico_lens.kernels.parity import smooth
from vico_lens.vocabulary.registry import Registry

__all__ = [
    "AttendAndExcite",
    "Directed",
    "Equal",
    "Influences",
    "Objective",
    "Variance",
    "Verdict",
    "Weakest",
    "objectives",
    "travel",
]


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
    directions : tuple of (float, float) or None
        For each concept where the prompt sends it, in rows down and columns to the right; None where it does not say. Empty if
        nothing is known.

    Examples
    --------
    >>> maps = torch.ones(2, 1, 2, 2)
    >>> Influences(tokens=maps, members=((0,), (1,)), concepts=maps).concepts.flatten(1).sum(1).tolist()
    [4.0, 4.0]
    """

    tokens: Tensor
    members: tuple[tuple[int, ...], ...]
    concepts: Tensor
    directions: tuple[Direction | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Loss (scalar) and strengths [concept] of one video at one step.

    Examples
    --------
    >>> Verdict(torch.tensor(0.5), torch.tensor([0.5, 1.0])).strengths.argmin().item()
    0
    """

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

    Examples
    --------
    >>> objectives["equal"].per_token, objectives["attend_and_excite"].flow
    (False, 'cross_attention')
    """

    per_token: ClassVar[bool]
    flow: ClassVar[str | None]

    def __call__(self, influences: Influences) -> Verdict:
        """Judge one video; differentiable."""
        ...


objectives: Registry[type[Objective]] = Registry("balancing objective", "vico_lens.objectives")


def _contested(influences: Influences, sharpness: float) -> Tensor:
    """Let the content tokens compete at every position: softmax over tokens, then sum over each concept's tokens."""
    shares = torch.softmax(influences.tokens * sharpness, dim=0)
    return torch.stack([shares[list(places)].sum(0) for places in influences.members])


def _strengths(influences: Influences, sharpness: float, sigma: float) -> Tensor:
    """Highest value anywhere in the video of each concept's contested and smoothed map, ``A_i`` [concept]."""
    return smooth(_contested(influences, sharpness), 3, sigma).flatten(1).amax(1)


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
        Smoothing in cells, see `vico_lens.kernels.parity.smooth`.

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
        strengths = _strengths(influences, self.sharpness, self.sigma)
        return Verdict((1 - strengths).clamp_min(0).amax(), strengths)


@objectives.register("variance")
@dataclass(frozen=True, slots=True)
class Variance:
    """Spread of the same strengths as `Weakest`: ``sum_i (A_i - mean A)^2``, the ablation of arXiv:2407.06182.

    Parameters
    ----------
    sharpness, sigma : float
        As in `Weakest`.

    Examples
    --------
    >>> maps = torch.stack([torch.ones(3, 3, 3), torch.zeros(3, 3, 3)])
    >>> verdict = Variance()(Influences(maps, ((0,), (1,)), maps))
    >>> round(float(verdict.loss), 3)
    0.5
    """

    per_token: ClassVar[bool] = True
    flow: ClassVar[str | None] = None

    sharpness: float = 100.0
    sigma: float = 0.5

    def __call__(self, influences: Influences) -> Verdict:
        """Loss [scalar] and strengths ``A_i`` [concept]."""
        strengths = _strengths(influences, self.sharpness, self.sigma)
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

    Examples
    --------
    >>> maps = torch.zeros(2, 3, 3, 3)
    >>> maps[0] = 1.0
    >>> verdict = AttendAndExcite()(Influences(maps, ((0,), (1,)), maps))
    >>> [round(value, 3) for value in verdict.strengths.tolist()], round(float(verdict.loss), 3)
    ([1.0, 0.0], 1.0)
    """

    per_token: ClassVar[bool] = True
    flow: ClassVar[str | None] = "cross_attention"

    sharpness: float = 100.0
    sigma: float = 0.5

    def __call__(self, influences: Influences) -> Verdict:
        """Loss [scalar] and strengths ``A_i`` [concept]."""
        strengths = smooth(_contested(influences, self.sharpness), 2, self.sigma).flatten(2).amax(2).mean(1)
        return Verdict((1 - strengths).amax(), strengths)


def travel(maps: Tensor, power: float = 3.0) -> Tensor:
    """How far the centre of each map travels from the first third of the frames to the last, as a share of the picture.

    The centre is that of the map's `power`, which keeps the faint influence that every concept has everywhere from holding it in
    the middle of the picture.

    Parameters
    ----------
    maps : Tensor [concept, frame, y, x]
        Not negative.
    power : float
        1 takes the map as it is.

    Returns
    -------
    Tensor [concept, 2]
        Rows down and columns to the right.

    Examples
    --------
    >>> maps = torch.zeros(1, 3, 1, 4)
    >>> maps[0, 0, 0, 0] = maps[0, 1, 0, 1] = maps[0, 2, 0, 2] = 1.0
    >>> travel(maps).tolist()
    [[0.0, 0.5]]
    """
    mass = maps.clamp_min(1e-12) ** power
    mass = mass / mass.sum((2, 3), keepdim=True)
    frames, rows, columns = maps.shape[1:]
    down = (torch.arange(rows, device=maps.device) + 0.5) / rows
    right = (torch.arange(columns, device=maps.device) + 0.5) / columns
    centre = torch.stack([mass.sum(3) @ down.to(mass.dtype), mass.sum(2) @ right.to(mass.dtype)], -1)
    third = max(1, round(frames / 3))
    return centre[:, -third:].mean(1) - centre[:, :third].mean(1)


@objectives.register("directed")
@dataclass(frozen=True, slots=True)
class Directed:
    """Lift the weakest concept, and send every concept where its words send it.

    The first term is that of `Weakest`. The second is a hinge on the travel of each concept's influence from the early to the
    late frames: ``sum_i max(0, margin - d_i . travel_i)`` for a concept told to move in direction ``d_i``, ``|travel_i|`` for one
    told to stay; concepts whose direction the prompt leaves open are left out of it. Steering generation by the centre of
    attention maps is from diffusion self-guidance (arXiv:2306.00986), there on images and towards positions set by hand. Where
    no direction is named it is `Weakest`.

    Parameters
    ----------
    motion : float
        Weight of the second term.
    margin : float
        Travel that is enough, as a share of the picture.
    power : float
        See `travel`.
    sharpness, sigma : float
        As in `Weakest`.

    Examples
    --------
    >>> maps = torch.zeros(2, 3, 3, 3)
    >>> maps[0, 0, 1, 0] = maps[0, 1, 1, 1] = maps[0, 2, 1, 2] = 1.0  # the first travels to the right
    >>> told = Influences(maps, ((0,), (1,)), maps, ((0.0, 1.0), None))
    >>> mistold = Influences(maps, ((0,), (1,)), maps, ((0.0, -1.0), None))
    >>> bool(Directed()(told).loss < Directed()(mistold).loss)
    True
    """

    per_token: ClassVar[bool] = True
    flow: ClassVar[str | None] = None

    motion: float = 3.0
    margin: float = 0.2
    power: float = 3.0
    sharpness: float = 100.0
    sigma: float = 0.5

    def __call__(self, influences: Influences) -> Verdict:
        """Loss [scalar] and strengths ``A_i`` of `Weakest` [concept]."""
        lifted = Weakest(self.sharpness, self.sigma)(influences)
        told = [place for place, direction in enumerate(influences.directions) if direction is not None]
        if not told:
            return lifted
        travelled = travel(influences.concepts[told], self.power)
        wanted = travelled.new_tensor([influences.directions[place] for place in told])
        # The root of zero has no gradient; 1e-4 of the picture is as good as still.
        strayed = (travelled.square().sum(1) + 1e-8).sqrt()
        short = (self.margin - (travelled * wanted).sum(1)).clamp_min(0)
        misled = torch.where(wanted.abs().sum(1) > 0, short, strayed).sum()
        return Verdict(lifted.loss + self.motion * misled, lifted.strengths)
