"""How a bundled model is trained: every number as data, one ``recipes/NAME.json`` a model, saved beside the weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vico_lens.errors import InputError, ModelError

__all__ = ["RECIPE_FOLDER", "Gate", "Recipe", "Stage", "load_recipe", "recipe_names"]

RECIPE_FOLDER = Path(__file__).parent / "recipes"
_PRECISIONS = ("float32", "bfloat16")
_SOURCES = ("rendered", "composed")


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
    patch : int, optional
        For architectures that cut the latent into patches: cells on a side. A later stage may make them finer.
    mean_share : float
        Share of clips that are trained at full noise on their caption's mean clip, where the source knows it.
    shift : float
        Time shift of the noise levels: ``shift u / (1 + (shift - 1) u)`` for uniform ``u``. A larger one means more high noise.
    posterior : bool
        Regress on the mean of all clips that the noisy one may come from, given its caption, instead of on the clip that it does
        come from, where the source knows it. The minimum is the same and the gradient's variance far smaller at high noise.
    """

    name: str
    steps: int
    batch: int
    frames: int
    full_share: float
    mix: dict[str, float]
    patch: int | None = None
    mean_share: float = 0.12
    shift: float = 3.0
    posterior: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """Stop a training whose model ignores the direction word: at update `step` its swapped-direction rise must reach `rise`."""

    step: int
    rise: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """The whole training.

    Attributes
    ----------
    model : str
        The architecture, one of `architectures.ARCHITECTURES`.
    network : dict
        What the builder of that architecture takes: widths, layers, heads.
    source : str
        ``"rendered"``: a fixed number of clips of each kind, rendered before training. ``"composed"``: clips drawn without end
        as sums of rendered clips of one object.
    clips : dict
        ``"rendered"``: clips of each kind. ``"composed"``: ``{"one": layouts}``, rendered clips of one object for each shape,
        colour, motion and size.
    stages : tuple of Stage
        In order.
    rates : tuple of (int, float)
        Factor on the learning rates at some updates, straight lines between them.
    precision : str
        ``"float32"``, or ``"bfloat16"``: weights and optimiser state stay in float32, products of matrices are taken in bfloat16.
    shift : float
        Time shift of the noise levels of sampling and validation.
    caption_dropout : float
        Share of clips that see the empty caption, for guidance.
    ema : float
        Decay of the average of the weights, which is what is shipped.
    gate : Gate, optional
        When to give up.
    """

    model: str = "unet"
    seed: int = 20261123
    network: dict[str, Any] = field(default_factory=dict)
    source: str = "rendered"
    clips: dict[str, int] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    muon_rate: float = 0.015
    adam_rate: float = 1.5e-3
    rates: tuple[tuple[int, float], ...] = ((0, 0.0), (100, 1.0))
    precision: str = "float32"
    shift: float = 3.0
    caption_dropout: float = 0.1
    ema: float = 0.998
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise InputError(f"expected precision to be one of {', '.join(_PRECISIONS)}, got {self.precision!r}.")
        if self.source not in _SOURCES:
            raise InputError(f"expected source to be one of {', '.join(_SOURCES)}, got {self.source!r}.")
        if not self.stages:
            raise InputError("expected at least one stage, got none.")
        updates = [update for update, _ in self.rates]
        if updates != sorted(updates):
            raise InputError(f"expected rates in order of their updates, got {updates}.")
        for stage in self.stages:
            if min(stage.mix.values(), default=-1.0) < 0 or sum(stage.mix.values()) <= 0:
                raise InputError(f"expected shares of at least 0 and one above it in stage {stage.name!r}, got {stage.mix}.")

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

    def check_continues(self, earlier: Recipe, step: int) -> None:
        """Refuse a recipe that differs from the one which made the first `step` updates, in anything but what is still to come.

        Raises
        ------
        ModelError
            Naming what differs.
        """
        for part in fields(self):
            if part.name in ("stages", "rates", "gate"):
                continue
            now, then = getattr(self, part.name), getattr(earlier, part.name)
            if now != then:
                raise ModelError(
                    f"the checkpoint was made with {part.name} = {then!r}, the recipe has {now!r}: move the checkpoint away, or "
                    "use its recipe."
                )
        for update in range(step):
            if self.stage_at(update) != _like(self.stage_at(update), earlier.stage_at(update)) or not np.isclose(
                self.rate_at(update), earlier.rate_at(update), rtol=1e-9
            ):
                raise ModelError(
                    f"the recipe's stage or rate at update {update} is not the one that made the checkpoint (of update {step}): "
                    "only updates that are still to come may change."
                )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Build a recipe from plain values.

        Raises
        ------
        InputError
            If a value has no place in a recipe, or does not fit.
        """
        known = {part.name for part in fields(cls)}
        if strangers := sorted(set(values) - known):
            raise InputError(f"expected a recipe of {', '.join(sorted(known))}, got also {', '.join(strangers)}.")
        gate = values.get("gate")
        return cls(
            **values
            | {
                "stages": tuple(Stage(**stage) for stage in values["stages"]),
                "rates": tuple((int(update), float(factor)) for update, factor in values["rates"]),
                "gate": None if gate is None else Gate(**gate),
            }
        )


def _like(now: Stage, then: Stage) -> Stage:
    """`then` with the length of `now`: a stage may end earlier or later than was planned when it began."""
    return replace(then, steps=now.steps)


def recipe_names() -> tuple[str, ...]:
    """Return the names that `load_recipe` takes."""
    return tuple(sorted(path.stem for path in RECIPE_FOLDER.glob("*.json")))


def load_recipe(name: str) -> Recipe:
    """Read the recipe of a bundled model.

    Raises
    ------
    InputError
        If there is none of that name.

    Examples
    --------
    >>> load_recipe("unet").steps
    19400
    """
    path = RECIPE_FOLDER / f"{name}.json"
    if not path.is_file():
        raise InputError(f"expected the name of a recipe ({', '.join(recipe_names())}), got {name!r}.")
    return Recipe.from_dict(json.loads(path.read_text()))
