"""How far to move the latents along a gradient: step rules.

The published rule is Adam, re-created at every denoising step. Its first step moves every number by the learning rate whatever
the gradient says, and in float16 its second moment underflows and the move becomes a discontinuous function of the gradient. So
the default here is a step whose root mean square is fixed, in the units in which the denoiser sees its input; Adam is offered in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import sqrt
from typing import Protocol

import torch
from torch import Tensor

from vico_lens.errors import InputError

__all__ = ["Adam", "FixedRms", "Move", "RandomDirection", "StepRule", "clips_of", "rms"]

Move = Callable[[Tensor], Tensor]


def rms(values: Tensor) -> Tensor:
    """Root mean square over all axes but the first, which is kept: [video, ...] -> [video].

    Examples
    --------
    >>> rms(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [3.535533905029297, 0.0]
    """
    return values.flatten(1).square().mean(1).sqrt()


def clips_of(latents: Tensor) -> tuple[int, ...]:
    """A number for each video, made of its initial latents [video, ...]: the same in any batch, order and process.

    Examples
    --------
    >>> one, other = torch.zeros(1, 4), torch.ones(1, 4)
    >>> clips_of(torch.cat([one, other])) == clips_of(one) + clips_of(other)
    True
    """
    return tuple(_number(row.detach().to("cpu", torch.float32).numpy().tobytes()) for row in latents)


def _number(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=7).digest(), "little")


def _per_video(factors: Tensor, values: Tensor) -> Tensor:
    return factors.reshape(-1, *[1] * (values.dim() - 1)) * values


class StepRule(Protocol):
    """Turns gradients into moves.

    Examples
    --------
    >>> move = FixedRms(0.5).start(step=0, steps=10)
    >>> move(torch.tensor([[1.0, -1.0]])).tolist()
    [[-0.5, 0.5]]
    """

    def start(self, step: int, steps: int, clips: Sequence[int] = ()) -> Move:
        """Begin a denoising step (number `step` of `steps`); returns a function from gradient [video, ...] to the change of
        latents. For rules that draw at random, `clips` holds one number a video, see `clips_of`.
        """
        ...


def _decayed(value: float, decay: float, step: int, steps: int) -> float:
    return value * sqrt(1 + (decay - 1) * step / max(1, steps - 1))


@dataclass(frozen=True, slots=True)
class FixedRms:
    """Against the gradient, by a fixed root mean square a video.

    Parameters
    ----------
    size : float
        Root mean square of one move, where clean latents and noise have about 1.
    decay : float
        The squared size falls linearly to this share over the sampling pass; 1 keeps it.

    Examples
    --------
    >>> move = FixedRms(0.02).start(0, 10)
    >>> round(float(rms(move(torch.randn(1, 100)))), 6)
    0.02
    """

    size: float = 0.02
    decay: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("size", self.size)

    def start(self, step: int, steps: int, clips: Sequence[int] = ()) -> Move:
        """See `StepRule`."""
        size = _decayed(self.size, self.decay, step, steps)
        return lambda gradient: _per_video(-size / rms(gradient), gradient)


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam (arXiv:1412.6980) in float32; its moments live for the iterations of one denoising step, as published.

    Parameters
    ----------
    rate : float
        Learning rate in latent units: the size of the first move of every number.
    decay : float
        The squared rate falls linearly to this share over the sampling pass (0.5 as published).
    betas : tuple of float
        Decay of the first and second moment.
    epsilon : float
        Added to the root of the second moment.

    Examples
    --------
    >>> move = Adam(rate=0.01).start(0, 10)
    >>> [round(value, 4) for value in move(torch.tensor([[4.0, -0.5]])).flatten().tolist()]
    [-0.01, 0.01]
    """

    rate: float = 1e-4
    decay: float = 0.5
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        _check_positive("rate", self.rate)

    def start(self, step: int, steps: int, clips: Sequence[int] = ()) -> Move:
        """See `StepRule`."""
        rate = _decayed(self.rate, self.decay, step, steps)
        first_beta, second_beta = self.betas
        count = 0
        first: Tensor | float = 0.0
        second: Tensor | float = 0.0

        def move(gradient: Tensor) -> Tensor:
            nonlocal count, first, second
            count += 1
            gradient = gradient.float()
            first = first_beta * first + (1 - first_beta) * gradient
            second = second_beta * second + (1 - second_beta) * gradient.square()
            root = (second / (1 - second_beta**count)).sqrt() + self.epsilon
            return -rate / (1 - first_beta**count) * first / root

        return move


@dataclass(frozen=True, slots=True)
class RandomDirection:
    """The null beside every balancing result: moves of the same size as another rule's, in a random direction.

    Every video has directions of its own. They depend on its initial latents, the seed and the denoising step alone: not on what
    else is in the batch, nor on what was sampled before.

    Parameters
    ----------
    rule : StepRule
        Gives the size, video by video.
    seed : int
        Of the directions; the same seed draws the same ones for the same video, whatever the global random state.

    Examples
    --------
    >>> move = RandomDirection(FixedRms(0.02)).start(0, 10)
    >>> round(float(rms(move(torch.ones(1, 100)))), 6)
    0.02
    """

    rule: StepRule
    seed: int = 0

    def start(self, step: int, steps: int, clips: Sequence[int] = ()) -> Move:
        """See `StepRule`."""
        sized = self.rule.start(step, steps, clips)
        generators: list[torch.Generator] = []

        def move(gradient: Tensor) -> Tensor:
            if not generators:  # without clips the videos are told apart by their place
                numbers = clips or range(len(gradient))
                seeds = (_number(f"{self.seed} {step} {number}".encode()) for number in numbers)
                generators.extend(torch.Generator().manual_seed(seed) for seed in seeds)
            rows = [torch.randn(row.shape, generator=own) for row, own in zip(gradient, generators, strict=True)]
            # Cells without a gradient are given and not generated, or do not matter: the other rule leaves them alone too.
            direction = torch.stack(rows).to(gradient.device).masked_fill(gradient == 0, 0.0)
            return _per_video(rms(sized(gradient)) / rms(direction), direction)

        return move


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InputError(f"expected a positive {name} for a step rule, got {value!r}; use iterations=0 to only watch.")
