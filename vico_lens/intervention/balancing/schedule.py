"""When to move the latents: which denoising steps, how often in each, and when to stop.

Layout is settled in the first steps of sampling and texture in the last, so updates come early. Every rule that ends an update
early has a name that appears in the log, so that a reader can tell "it was good enough" from "it ran out of budget".
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from vico_lens.errors import InputError

__all__ = ["Plan", "Refinement", "Schedule", "StopReason"]

StopReason = Literal["", "threshold", "reached", "iterations", "plateau", "cost cap", "one concept", "no concept", "observed"]
"""Why a denoising step saw no further update: empty while updates go on, "reached" where the loss is zero, "one concept" and
"no concept" where there is nothing to balance."""


@dataclass(frozen=True, slots=True)
class Refinement:
    """Extra effort at one denoising step.

    Attributes
    ----------
    at : float
        Where in the sampling pass, as a share of its steps (0 is the first).
    iterations : int
        Updates at most.
    threshold : float
        Stop once the loss is below.

    Examples
    --------
    >>> Schedule(refinements=(Refinement(at=0.0, iterations=10, threshold=0.95),)).plan(0, 50)
    Plan(iterations=10, threshold=0.95)
    """

    at: float
    iterations: int
    threshold: float

    def __post_init__(self) -> None:
        if not 0 <= self.at <= 1 or self.iterations < 0:
            raise InputError(
                f"expected a refinement at 0..1 of the sampling pass with 0 or more iterations; got at={self.at}, "
                f"iterations={self.iterations}."
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do at one denoising step: at most `iterations` updates, none once the loss is below `threshold`."""

    iterations: int
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which denoising steps are balanced, and how hard.

    Parameters
    ----------
    start, stop : float
        Share of the sampling pass: steps from ``start * steps`` up to and without ``stop * steps``.
    steps : collection of int or None
        These steps instead.
    iterations : int
        Updates a step; 0 evaluates the objective and moves nothing.
    threshold : float or None
        No further update of a step once its loss is below.
    plateau : float or None
        No further update of a step once an iteration lowered its loss by less than this.
    refinements : tuple of Refinement
        Steps with their own iterations and threshold.
    cost_cap : float or None
        Whole cost at most this many times the plain call's, counted in denoiser forwards of one row: an update is taken as two
        (forward, and backward to the latents only), a plain step as one for each guidance branch. An update that would go over it
        is left out.

    Examples
    --------
    >>> schedule = Schedule(stop=0.5, iterations=1, refinements=(Refinement(0.2, 10, 0.5),))
    >>> [schedule.plan(step, 10).iterations if schedule.plan(step, 10) else 0 for step in range(10)]
    [1, 1, 10, 1, 1, 0, 0, 0, 0, 0]
    """

    start: float = 0.0
    stop: float = 0.5
    steps: Collection[int] | None = None
    iterations: int = 1
    threshold: float | None = None
    plateau: float | None = None
    refinements: tuple[Refinement, ...] = field(default=())
    cost_cap: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop <= 1:
            raise InputError(
                f"expected 0 <= start <= stop <= 1 as shares of the sampling pass, got start={self.start}, stop={self.stop}."
            )
        if self.iterations < 0:
            raise InputError(f"expected 0 or more iterations a step, got {self.iterations}.")
        if self.cost_cap is not None and self.cost_cap < 1:
            raise InputError(f"expected a cost cap of at least 1 (the plain call alone costs 1), got {self.cost_cap}.")

    def plan(self, step: int, steps: int) -> Plan | None:
        """What to do at denoising step `step` of `steps`; None leaves it alone.

        Raises
        ------
        InputError
            If the pass is too short for every one of the steps asked for.
        """
        if self.steps and not any(0 <= chosen < steps for chosen in self.steps):
            raise InputError(f"expected steps of the sampling pass, 0 to {steps - 1}; got {sorted(self.steps)}, none of them.")
        chosen = step in self.steps if self.steps is not None else round(self.start * steps) <= step < round(self.stop * steps)
        if not chosen:
            return None
        for refinement in self.refinements:
            if step == round(refinement.at * steps):
                return Plan(refinement.iterations, refinement.threshold)
        return Plan(self.iterations, self.threshold)

    def affords(self, updates: int, steps: int, rows: int) -> bool:
        """Whether one more update of one video, after `updates` of them, stays within the cost cap.

        Parameters
        ----------
        updates : int
            Made so far in this sampling pass.
        steps : int
            Denoising steps of the pass.
        rows : int
            Rows the plain pipeline evaluates a step and video: 2 with guidance, 1 without.
        """
        return self.cost_cap is None or 1 + 2 * (updates + 1) / (steps * rows) <= self.cost_cap + 1e-9
