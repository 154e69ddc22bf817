"""How the bundled model was trained: every number in one place, saved beside the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

__all__ = ["RECIPE", "Recipe", "Stage"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of training.

    Attributes
    ----------
    name : str
        For the log.
    steps : int
        Updates.
    batch : int
        Clips an update.
    frames : int
        Frames a clip: a random subset, at their true temporal positions.
    full_share : float
        Share of updates that see all eight frames instead (with fewer clips, so that the cost stays about equal).
    mix : dict
        Share of each of `data.KINDS`.
    """

    name: str
    steps: int
    batch: int
    frames: int
    full_share: float
    mix: dict[str, float]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The whole training.

    Attributes
    ----------
    clips : dict
        Training clips of each kind.
    stages : tuple of Stage
        In order.
    rates : tuple of (int, float)
        Factor on the learning rates at some updates, straight lines between them.
    shift : float
        Time shift of flow matching: noise level ``shift u / (1 + (shift - 1) u)`` for uniform ``u``.
    mean_share : float
        Share of clips of one object that are trained at full noise on their caption's mean clip.
    caption_dropout : float
        Share of clips that see the empty caption, for guidance.
    """

    seed: int = 20261123
    widths: tuple[int, int] = (32, 64)
    clips: dict[str, int] = field(default_factory=lambda: {"one": 24000, "two": 24000, "three": 6000, "relation": 6000})
    stages: tuple[Stage, ...] = ()
    muon_rate: float = 0.015
    adam_rate: float = 1.5e-3
    rates: tuple[tuple[int, float], ...] = ((0, 0.0), (100, 1.0))
    shift: float = 3.0
    mean_share: float = 0.12
    caption_dropout: float = 0.1
    ema: float = 0.998

    @property
    def steps(self) -> int:
        """Updates in all."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """Return the stage that update `step` (0-based) belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def rate_at(self, step: int) -> float:
        """Return the factor on the learning rates at update `step`."""
        updates, factors = zip(*self.rates, strict=True)
        return float(np.interp(step + 1, updates, factors))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


# One object first: words, shapes and motions are learned there in minutes, and pairs only then teach binding.
_SINGLES = {"one": 0.6, "two": 0.25, "three": 0.05, "relation": 0.1}
_PAIRS = {"one": 0.3, "two": 0.5, "three": 0.08, "relation": 0.12}
# After the first decay single objects still came doubled in one prompt of ten: a second, gentler round leans on them.
_BALANCED = {"one": 0.55, "two": 0.33, "three": 0.04, "relation": 0.08}

RECIPE = Recipe(
    stages=(
        Stage("single frames", 1500, 32, 1, 0.0, _SINGLES),
        Stage("four of eight frames", 7500, 10, 4, 0.2, _SINGLES),
        Stage("four of eight frames, more pairs", 3500, 10, 4, 0.2, _PAIRS),
        Stage("whole clips", 3500, 8, 8, 0.0, _PAIRS),
        Stage("whole clips, second round", 3400, 8, 8, 0.0, _BALANCED),
    ),
    rates=(
        (0, 0.0),
        (100, 1.0),
        (11000, 1.0),
        (15850, 0.03),
        (16000, 0.03),
        (16100, 0.4),
        (16600, 0.4),
        (19300, 0.02),
        (19400, 0.02),
    ),
)
