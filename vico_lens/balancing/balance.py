"""Balance the concepts of a prompt while a stock pipeline samples: Vico's latent update (arXiv:2407.06182) as one `with`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, is_dataclass
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vico_lens.balancing.attention import LiveAttention
from vico_lens.balancing.influences import Flow
from vico_lens.balancing.injection import Calls, Moment, inject
from vico_lens.balancing.log import log_of
from vico_lens.balancing.objectives import Objective, objectives
from vico_lens.balancing.presets import Preset, presets
from vico_lens.balancing.schedule import Schedule
from vico_lens.balancing.steps import StepRule
from vico_lens.balancing.updater import Updater
from vico_lens.balancing.words import Words, words_of_table, words_without_prompt
from vico_lens.concepts import Concept
from vico_lens.errors import BalanceError, InputError
from vico_lens.kernels.stages import Grid
from vico_lens.running import running_call
from vico_lens.tokens import SeenIds, seen_ids, token_tables
from vico_lens.video import kept_frames, to_rgb

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["Balance", "Cost", "balance"]

Names = Sequence[str | Concept]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a balanced stretch spent.

    Attributes
    ----------
    forwards, rows : int
        Denoiser calls of the pipeline itself, and the rows of their batches together (guidance doubles them).
    extra_forwards, extra_rows, backwards : int
        Those that updates asked for; a forward may end early, after the last site that the objective reads.
    update_seconds, seconds : float
        Wall time inside updates, and of the whole ``with``.
    """

    forwards: int
    rows: int
    extra_forwards: int
    extra_rows: int
    backwards: int
    update_seconds: float
    seconds: float


class Balance:
    """A balanced stretch of a program: every call of the pipeline inside the ``with`` is balanced.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline.
    log : Dataset
        Everything that was done, see `vico_lens.balancing.log.log_of`.
    videos : list of ndarray
        What each call inside the ``with`` generated, uint8 (frame, row, column, channel); of a batch the first.
    cost : Cost
        Denoiser forwards and seconds, the pipeline's own and those of the updates.
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
        self.pipe = pipe
        self._concepts = concepts
        self._updater = Updater(attention, objective, step, schedule, self._find_words)
        self._seen: SeenIds = {}
        self._undo = ExitStack()
        self._calls = Calls()
        self._began = 0.0
        self._seconds = 0.0
        self.videos: list[np.ndarray] = []

    @property
    def log(self) -> xr.Dataset:
        """What every update did, and why it stopped; grows while the pipeline samples."""
        parts = {
            "objective": self._updater.objective,
            "step": self._updater.rule,
            "schedule": self._updater.schedule,
            "flow": self._updater.attention.flow,
        }
        return log_of(self._updater.updates, {name: _describe(part) for name, part in parts.items()} | asdict(self.cost))

    @property
    def cost(self) -> Cost:
        """What was spent so far."""
        attention = self._updater.attention
        seconds = perf_counter() - self._began if self._began else self._seconds
        own, own_rows = self._calls.forwards, self._calls.rows
        return Cost(own, own_rows, attention.forwards, attention.rows, self._updater.backwards, self._updater.seconds, seconds)

    @property
    def video(self) -> np.ndarray:
        """The last video generated inside the ``with``.

        Raises
        ------
        BalanceError
            If there is none: the pipeline was not called, or returned latents.
        """
        if not self.videos:
            raise BalanceError(
                "expected a pipeline call that decodes its video inside the `with`, got none; hand the frames over instead."
            )
        return self.videos[-1]

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._seen = undo.enter_context(seen_ids(self.pipe))
            undo.enter_context(kept_frames(self.pipe, lambda frames: self.videos.append(to_rgb(frames))))
            self._calls = undo.enter_context(inject(self.pipe, self._updater.attention.denoisers, self._updater))
            self._undo = undo.pop_all()
        self._began = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._seconds, self._began = perf_counter() - self._began, 0.0
        self._undo.__exit__(kind, error, trace)

    def _find_words(self, moment: Moment, tokens: int) -> list[Words]:
        """Concepts and content tokens of every video, from the ids that the text encoders were given for this sampling pass."""
        seen, concepts = {name: list(rows) for name, rows in self._seen.items()}, self._concepts
        self._seen.clear()
        if moment.prompts is None:
            return [words_without_prompt(concepts)] * moment.latents.shape[0]  # type: ignore[arg-type]
        prompts = list(dict.fromkeys(moment.prompts))
        nested = concepts is not None and any(not isinstance(entry, (str, Concept)) for entry in concepts)
        each: list[Any] = list(concepts) if nested and concepts is not None else [concepts] * len(prompts)
        if len(each) != len(prompts):
            raise InputError(f"expected one list of concepts for each of {len(prompts)} different prompts, got {len(each)}.")
        by_prompt = dict(zip(prompts, each, strict=True))
        call = running_call(self.pipe)
        tables = token_tables(self.pipe, call, tokens, seen=seen) if call else []
        return [words_of_table(table, prompt, by_prompt[prompt]) for table, prompt in zip(tables, moment.prompts, strict=True)]


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
        alone.
    objective : str or Objective, optional
        Name in `vico_lens.balancing.objectives`, or an instance with settings; the preset's by default.
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
        For names that are not in a registry, or options that exclude each other.
    BalanceError
        While the pipeline runs: unknown latents, a zero or non-finite gradient, inference mode.
    """
    from vico_lens.families import denoisers

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
    if judge.flow is not None and chosen.method != judge.flow:
        raise InputError(
            f"expected flow={judge.flow!r} with {type(judge).__name__}, which is defined on it alone; got {chosen.method!r}."
        )
    return chosen


def _describe(part: Any) -> str:
    """Name and settings of a part, for the attributes of a log."""
    if is_dataclass(part) and not isinstance(part, type):
        settings = ", ".join(f"{entry.name}={_describe(getattr(part, entry.name))}" for entry in fields(part))
        return f"{type(part).__name__}({settings})"
    return repr(dict(part)) if isinstance(part, Mapping) else repr(part)
