"""One prompt and seed, plain and balanced, with a report after every denoising step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from vico_lens.attribution.facade import attribute
from vico_lens.errors import InputError
from vico_lens.runs.background_job import Progress
from vico_lens.runs.request import Request, check_prompt
from vico_lens.runs.single_run import Run, run_once
from vico_lens.tinyworld.pipeline import STEPS
from vico_lens.vocabulary.concepts import find_concepts
from vico_lens.vocabulary.phrases import words_of
from vico_lens.vocabulary.schema import TokenKind, TokenTable

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from vico_lens.intervention.balancing.presets import Preset
    from vico_lens.intervention.balancing.steps import StepRule

__all__ = ["LONGEST", "MOST_STEPS", "Pair", "PairSettings", "Side", "check_settings", "found_concepts", "reporter", "run_pair"]

LONGEST = 300
"""Characters of a prompt that is taken from a page."""

MOST_STEPS = 60
"""Denoising steps of a run that is asked for on a page: a minute, not an hour, and memory in proportion."""


@dataclass(frozen=True, slots=True)
class PairSettings:
    """What to run.

    Attributes
    ----------
    prompt : str
    concepts : tuple of str
        At least two, as they stand in the prompt.
    preset : str
        Name in `vico_lens.intervention.balancing.presets`.
    objective : str or None
        Name in `vico_lens.intervention.balancing.objectives`; the preset's own when None.
    strength : float
        Factor on the size of the preset's updates.
    steps : int
        Denoising steps.
    seed : int
        Of both runs.
    """

    prompt: str
    concepts: tuple[str, ...]
    preset: str = "default"
    objective: str | None = None
    strength: float = 1.0
    steps: int = STEPS
    seed: int = 0

    @classmethod
    def of_demo(cls) -> PairSettings:
        """Prompt and seed of ``vico-lens demo``.

        Examples
        --------
        >>> check_settings(PairSettings.of_demo())
        """
        told = json.loads((files("vico_lens") / "tinyworld" / "demo.json").read_text(encoding="utf-8"))
        chosen = {name: value for name, value in told.get("balance", {}).items() if name in ("preset", "objective")}
        return cls(told["prompt"], tuple(found_concepts(told["prompt"])), seed=told["seed"], **chosen)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs.

    Attributes
    ----------
    video : ndarray
        uint8 ``(frame, row, column, channel)``.
    influence : mapping of str to DataArray
        By method, ``(concept, step, frame, y, x)``.
    verdict : Verdict or None
        Of the exact judge, where the prompt is a sentence of the tiny world.
    """

    video: np.ndarray
    influence: Mapping[str, xr.DataArray]
    verdict: Any | None


@dataclass(frozen=True, slots=True)
class Pair:
    """What both runs left behind; their traces are not kept.

    Attributes
    ----------
    settings : PairSettings
    plain, balanced : Side
    log : Dataset
        Every update, see `vico_lens.balance`.
    report : Dataset
        What it cost and whether it did harm, see `vico_lens.balance_report`.
    """

    settings: PairSettings
    plain: Side
    balanced: Side
    log: xr.Dataset
    report: xr.Dataset


def found_concepts(prompt: str) -> list[str]:
    """Names of the concepts that the rules find in a prompt, without a model; none in a prompt without noun phrases.

    Examples
    --------
    >>> found_concepts("a red circle moving right and a blue square moving up")
    ['red circle', 'blue square']
    """
    try:
        return [concept.name for concept in find_concepts(prompt, tokenizer=_words(prompt))]
    except InputError:
        return []


def check_settings(settings: PairSettings) -> None:
    """Refuse what cannot run, before a model is loaded.

    Raises
    ------
    InputError
        If the prompt is empty, too long or has words that the bundled model does not know; a concept is not in it; there are
        fewer than two; or a number is out of range.
    """
    if len(settings.prompt) > LONGEST:
        raise InputError(f"expected a prompt of at most {LONGEST} characters, got {len(settings.prompt)}: shorten it.")
    check_prompt(settings.prompt, bundled=True)
    if len(settings.concepts) < 2:
        raise InputError(f"expected two concepts or more to balance, got {len(settings.concepts)}: name words of the prompt.")
    find_concepts(settings.prompt, list(settings.concepts), _words(settings.prompt))
    if not 1 <= settings.steps <= MOST_STEPS:
        raise InputError(f"expected 1 to {MOST_STEPS} denoising steps, got {settings.steps}.")
    if not 0 < settings.strength <= 20:
        raise InputError(f"expected a strength above 0 and up to 20, got {settings.strength}; 1 is the preset's own.")
    if not 0 <= settings.seed < 2**63:
        raise InputError(f"expected a seed from 0 to 2**63 - 1, got {settings.seed}.")


def run_pair(pipe: Any, settings: PairSettings, progress: Progress) -> Pair:
    """Sample twice from one seed, plain and balanced, and compare.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        The bundled pipeline.
    settings : PairSettings
    progress : Progress
        Told after every denoising step of both runs; what it raises ends the run, and the pipeline is left as it was.

    Raises
    ------
    VicoLensError
        As `check_settings`, `vico_lens.trace` and `vico_lens.balance` do.
    Cancelled
        If the job is cancelled.
    """
    from vico_lens.attribution.facade import DEFAULT_METHOD
    from vico_lens.intervention.balancing import Schedule, balance_report, presets

    check_settings(settings)
    preset = _strengthened(presets[settings.preset], settings.strength)
    # The plain run is watched where the balanced one is moved, by the same objective, so that the two logs compare.
    watch = Schedule(preset.schedule.start, preset.schedule.stop, preset.schedule.steps, iterations=0)
    methods = list(dict.fromkeys([preset.flow, DEFAULT_METHOD]))
    total = 2 * settings.steps + 2

    def side(label: str, used: Preset, done: int) -> tuple[Any, Side]:
        call = {"num_inference_steps": settings.steps, "callback_on_step_end": reporter(progress, label, done, total)}
        run = run_once(
            Request(settings.prompt, seed=settings.seed, call=call),
            pipe,
            label=label,
            concepts=settings.concepts,
            method=methods[0],
            balance={"preset": used, "objective": settings.objective},
        )
        progress.report(f"{label}: attributing", done + settings.steps, total)
        return run.session, Side(run.video, {methods[0]: run.influence, **_others(run, methods[1:])}, run.verdict)

    first, plain = side("plain run", replace(preset, schedule=watch), 0)
    second, balanced = side("balanced run", preset, settings.steps + 1)
    progress.report("comparing", total, total)
    return Pair(settings, plain, balanced, second.log, balance_report(first, second))


def _words(prompt: str) -> TokenTable:
    """Tokens of a prompt as if every word were one: enough to look names up before there is a tokenizer."""
    spans = words_of(prompt)
    words = tuple(prompt[start:stop] for start, stop in spans)
    starts, stops = tuple(start for start, _ in spans), tuple(stop for _, stop in spans)
    kinds: tuple[TokenKind, ...] = tuple("text" for _ in spans)
    return TokenTable(words, kinds, words, tuple(range(len(spans))), starts, stops)


def _strengthened(preset: Preset, factor: float) -> Preset:
    """The preset with updates `factor` times as large."""
    from vico_lens.intervention.balancing import Adam, FixedRms, RandomDirection

    def scaled(rule: StepRule) -> StepRule:
        if isinstance(rule, FixedRms):
            return replace(rule, size=rule.size * factor)
        if isinstance(rule, Adam):
            return replace(rule, rate=rule.rate * factor)
        if isinstance(rule, RandomDirection):
            return replace(rule, rule=scaled(rule.rule))
        raise InputError(f"expected a step rule whose size is known, got {type(rule).__name__}; leave the strength at 1.")

    return preset if factor == 1 else replace(preset, step=scaled(preset.step))


def reporter(progress: Progress, label: str, done: int, total: int) -> Callable[..., dict[str, Any]]:
    """A callback for the pipeline's call, which reports after every denoising step."""

    def report(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        progress.report(f"{label}: step {step + 1}", done + step + 1, total)
        return values

    return report


def _others(run: Run, methods: list[str]) -> dict[str, xr.DataArray]:
    return {method: attribute(run.tree, method, run.concepts) for method in methods}
