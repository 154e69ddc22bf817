"""Balance the concepts of a prompt while a stock pipeline samples: Vico's latent update (arXiv:2407.06182) as one `with`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from inspect import signature
from types import TracebackType
from typing import Any

from vico_lens.attribution.base import methods
from vico_lens.errors import InputError
from vico_lens.intervention.balancing.attention import LiveAttention
from vico_lens.intervention.balancing.influences import Flow
from vico_lens.intervention.balancing.injection import StepState, inject
from vico_lens.intervention.balancing.log import Update
from vico_lens.intervention.balancing.objectives import Objective, objectives
from vico_lens.intervention.balancing.presets import Preset, presets
from vico_lens.intervention.balancing.schedule import Schedule
from vico_lens.intervention.balancing.session import Session
from vico_lens.intervention.balancing.steps import StepRule
from vico_lens.intervention.balancing.updater import Updater
from vico_lens.intervention.balancing.words import Names, Words, words_of_call
from vico_lens.kernels.stages import Grid
from vico_lens.tracing.tokens import SeenIds, seen_ids
from vico_lens.vocabulary.concepts import Concept

__all__ = ["Balance", "balance"]


class Balance(Session):
    """A stretch of a program in which every call of the pipeline is balanced; made by `balance`.

    Attributes
    ----------
    pipe, videos, cost
        See `Session`.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with balance(tiny.pipe, ["circle", "square"]) as session:
    ...     _ = tiny.run(seed=0)
    >>> session.cost.backwards == (session.log.latent_change > 0).sum().item()
    True
    """

    def __init__(
        self,
        pipe: Any,
        concepts: Names | Sequence[Names] | None,
        attention: LiveAttention,
        objective: Objective,
        step: StepRule,
        schedule: Schedule,
    ) -> None:
        super().__init__(pipe, attention.denoisers)
        self._concepts = concepts
        self._seen: SeenIds = {}
        self._ids: SeenIds = {}
        self._updater = Updater(attention, objective, step, schedule, self._find_words, self.cost)

    def install(self, undo: ExitStack) -> None:
        """Collect token ids and inject the update."""
        self._seen = undo.enter_context(seen_ids(self.pipe))
        # Entered again, the session counts its sampling passes on: each has words of its own.
        undo.enter_context(inject(self.pipe, self.denoisers, self._updater, first_run=max(self._updater.passes, default=-1) + 1))

    def __repr__(self) -> str:
        updater, moves = self._updater, [update for update in self.updates if update.latent_change > 0]
        return (
            f"<{type(self).__name__} of {type(self.pipe).__name__}: {type(updater.objective).__name__} over "
            f"{updater.attention.flow.method}, {len(moves)} updates in {len(updater.passes)} sampling passes>"
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        schedule = self._updater.schedule
        if kind is None and schedule.iterations and not self.updates:
            warnings.warn(
                f"balancing moved nothing, so the video is the plain one: {schedule} covers none of the denoising steps of this "
                "call, or its cost cap allows no update. Sample with more steps, or name some: schedule=Schedule(steps=[0]).",
                stacklevel=2,
            )

    @property
    def settings(self) -> dict[str, Any]:
        """Objective, step rule, schedule and flow."""
        updater = self._updater
        return {
            "objective": updater.objective,
            "step": updater.rule,
            "schedule": updater.schedule,
            "flow": updater.attention.flow,
        }

    @property
    def updates(self) -> list[Update]:
        """Every evaluation of the objective so far."""
        return self._updater.updates

    def _find_words(self, state: StepState, tokens: int) -> list[Words]:
        # A text encoder runs before the denoiser of its call: what was seen since the last look-up belongs to this sampling pass.
        # Further passes of one call (FreeInit, chunks) encode nothing anew.
        self._ids = dict(self._seen) or self._ids
        self._seen.clear()
        # Who only watches has nothing to see without concepts; who balances leaves such a prompt alone.
        watching = self._updater.schedule.iterations == 0
        return words_of_call(self.pipe, self._concepts, tokens, state.latents.shape[0], self._ids, needed=watching)


def balance(
    pipe: Any,
    concepts: Names | Sequence[Names] | None = None,
    *,
    objective: str | Objective | None = None,
    flow: str | Flow | None = None,
    preset: str | Preset = "default",
    step: StepRule | None = None,
    schedule: Schedule | None = None,
    layers: str | int | Sequence[str | int] | None = None,
    grid: Grid | None = None,
    heads: int | Sequence[int] | None = None,
    checkpointing: bool = False,
    **flow_options: Any,
) -> Balance:
    """Balance the concepts of a prompt while the pipeline samples.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Any video pipeline that `vico_lens.trace` knows. Its call is not changed.
    concepts : sequence of str or Concept, or one such sequence a prompt, optional
        Names are looked up in the prompt of the running call; by default its noun phrases. A prompt with fewer than two is left
        alone, and the log says so (``stop``). Names that are not in the prompt are an error.
    objective : str or Objective, optional
        Name in `vico_lens.intervention.balancing.objectives`, or an instance with settings; the preset's by default.
    flow : str or Flow, optional
        The attribution method whose influences are balanced: any differentiable one; the preset's by default.
    preset : str or Preset
        ``"default"``, ``"vico"`` (the published schedule, step and loss), ``"observe"`` (log influences, move nothing),
        ``"random"`` (the default in a random direction, the null to compare with).
    step : StepRule, optional
        `FixedRms`, `Adam` or `RandomDirection`, in the place of the preset's.
    schedule : Schedule, optional
        Steps, iterations, thresholds, stop rules and cost cap, in the place of the preset's.
    layers, grid, heads : optional
        Which sites and heads are read, and the grid of the maps, see `Flow`.
    checkpointing : bool
        Trade time for memory in the denoisers that can.
    **flow_options
        Options of the attribution method (``kind``, ``tau``, ``rho``, ...); they override the preset's.

    Returns
    -------
    Balance
        A context manager; its ``log`` says what was done.

    Raises
    ------
    InputError
        For names that are not in a registry, options that the flow does not have, or options that exclude each other.
    ConceptError
        While the pipeline runs: a named concept is not in the prompt, or ``"observe"`` finds none to watch.
    BalanceError
        While the pipeline runs: unknown latents, a zero or non-finite gradient, inference mode.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with balance(tiny.pipe, ["circle", "square"]) as session:
    ...     _ = tiny.run(seed=0)
    >>> session.log.loss.dims, session.log.concept.values.tolist()
    (('update',), ['circle', 'square'])
    """
    from vico_lens.tracing.families import denoisers

    concepts = [concepts] if isinstance(concepts, (str, Concept)) else concepts
    base = presets[preset] if isinstance(preset, str) else preset
    wanted = base.objective if objective is None else objective
    judge = objectives[wanted]() if isinstance(wanted, str) else wanted
    source = _flow_of(judge, base, flow, flow_options, layers=layers, grid=grid, heads=heads)
    attention = LiveAttention(pipe, denoisers(pipe), source, checkpointing=checkpointing)

    return Balance(pipe, concepts, attention, judge, step or base.step, schedule or base.schedule)


def _flow_of(judge: Objective, base: Preset, flow: str | Flow | None, options: Mapping[str, Any], **sites: Any) -> Flow:
    if isinstance(flow, Flow):
        if options or any(value is not None for value in sites.values()):
            raise InputError(
                "expected flow options, layers, grid and heads inside the Flow object when one is given; got them beside it."
            )
        chosen = flow
    else:
        method = flow or judge.flow or base.flow
        defaults = base.flow_options if method == base.flow else {}
        chosen = Flow(method, {**defaults, **options}, **sites)
        _check_options(method, options)
    if judge.flow is not None and chosen.method != judge.flow:
        raise InputError(
            f"expected flow={judge.flow!r} with {type(judge).__name__}, which is defined on it alone; got {chosen.method!r}."
        )
    return chosen


def _check_options(method: str, options: Mapping[str, Any]) -> None:
    """Refuse a word that neither `balance` nor its flow knows, naming what both take."""
    own = [*methods()[method].options, "rho", "residual"]
    unknown = sorted(set(options) - set(own))
    if unknown:
        taken = [name for name, entry in signature(balance).parameters.items() if entry.kind is entry.KEYWORD_ONLY]
        raise InputError(
            f"expected arguments of balance ({', '.join(taken)}) or options of its flow {method} ({', '.join(own)}); got "
            f"{', '.join(unknown)}. How far a move goes is said by the step: step=FixedRms(0.1)."
        )
