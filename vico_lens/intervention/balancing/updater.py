"""One denoising step of balancing: evaluate, stop or move, as often as the schedule says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vico_lens.errors import BalanceError
from vico_lens.intervention.balancing.attention import LiveAttention
from vico_lens.intervention.balancing.injection import StepState
from vico_lens.intervention.balancing.log import Update
from vico_lens.intervention.balancing.objectives import Objective, Verdict
from vico_lens.intervention.balancing.schedule import Plan, Schedule, StopReason
from vico_lens.intervention.balancing.session import Cost
from vico_lens.intervention.balancing.steps import Move, StepRule, clips_of, rms
from vico_lens.intervention.balancing.words import Words

if TYPE_CHECKING:
    from vico_lens.vocabulary.schema import AttentionCall

__all__ = ["Updater"]

BLOWN_UP = 30.0
"""Root mean square of a denoiser input that no sampling reaches by itself."""


@dataclass(slots=True)
class _Pass:
    """What is remembered of one sampling pass.

    Attributes
    ----------
    clips : tuple of int
        A number for each video, see `clips_of`.
    moves : list of int
        How often each video was moved.
    words : list of Words
        Of each video; empty until live attention has said how many text tokens the denoiser sees.
    finished : bool
        Whether nothing is left to do in this pass.
    """

    clips: tuple[int, ...]
    moves: list[int]
    words: list[Words] = field(default_factory=list)
    finished: bool = False


@dataclass(slots=True)
class _Step:
    """The updates of one denoising step.

    Attributes
    ----------
    state, plan, memory
        The step, what the schedule wants of it, and its pass.
    move : callable
        Gradient to change, from the step rule.
    latents : Tensor [video, ...]
        As moved so far.
    open : list of int
        Videos that may be updated further.
    losses : dict
        Loss of each video at the last iteration.
    """

    state: StepState
    plan: Plan
    memory: _Pass
    move: Move
    latents: Tensor
    open: list[int]
    losses: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class Updater:
    """What `inject` calls before every denoising step.

    Attributes
    ----------
    attention : LiveAttention
        Runs the denoiser; its flow gives the influences.
    objective : Objective
        Gives the loss.
    rule : StepRule
        Gives the move.
    schedule : Schedule
        Says when.
    find_words : callable
        State of the step and number of text tokens to the words of every video's prompt.
    cost : Cost
        Takes what updates spend.
    updates : list of Update
        The log so far.
    passes : dict
        What is remembered of each sampling pass, by its number.
    """

    attention: LiveAttention
    objective: Objective
    rule: StepRule
    schedule: Schedule
    find_words: Callable[[StepState, int], list[Words]]
    cost: Cost
    updates: list[Update] = field(default_factory=list)
    passes: dict[int, _Pass] = field(default_factory=dict)

    def __call__(self, state: StepState) -> Tensor | None:
        """Return moved latents [video, ...] in float32, or None to leave this step alone."""
        memory = self.passes.get(state.run)
        if memory is None:
            memory = self.passes[state.run] = _Pass(clips_of(state.latents), [0] * state.latents.shape[0])
        plan = self.schedule.plan(state.step, state.steps)
        if plan is None or memory.finished:
            return None
        open_videos = [video for video in range(len(memory.moves)) if not plan.iterations or self._affords(state, memory, video)]
        if not open_videos:
            memory.finished = True
            return None
        began, logged = perf_counter(), len(self.updates)
        step = _Step(state, plan, memory, self.rule.start(state.step, state.steps, memory.clips), state.latents, open_videos)
        with self.attention.prepared(state.denoiser):
            for iteration in range(max(1, plan.iterations)):
                self._iterate(step, iteration)
                if not step.open:
                    break
        self.cost.update_seconds += perf_counter() - began
        if step.latents is state.latents:
            return None
        applied = rms(step.latents.to(state.dtype).float() - state.latents)
        for update in self.updates[logged:]:
            if update.stop:
                update.applied_change = float(applied[update.video])
        return step.latents

    def _iterate(self, step: _Step, iteration: int) -> None:
        """Evaluate the objective once for every open video, and move those that go on."""
        began = perf_counter()
        with torch.enable_grad() if step.plan.iterations else torch.no_grad():
            variable = step.latents.clone().requires_grad_(step.plan.iterations > 0)
            judged = self._evaluate(step, variable)
        rows = {video: self._row(step, iteration, video, variable, *verdict) for video, verdict in judged.items()}
        for video, row in rows.items():
            row.stop = self._stop(step.plan, row, step.losses.get(video))
            step.losses[video] = row.loss
        step.open = [video for video in rows if not rows[video].stop]
        if step.open:
            gradient = self._gradient(step, variable, {video: judged[video][0] for video in step.open}, rows)
            self._move(step, gradient, rows, last=iteration + 1 == step.plan.iterations)
        seconds = perf_counter() - began
        for row in rows.values():
            row.seconds = seconds
        self.updates.extend(rows.values())

    def _evaluate(self, step: _Step, latents: Tensor) -> dict[int, tuple[Verdict, Tensor]]:
        """Verdict and mean influence of every open video that has concepts to balance."""
        state, memory = step.state, step.memory
        calls = self.attention(state, latents)
        self.cost.extra_forwards += 1
        self.cost.extra_rows += latents.shape[0]
        if not memory.words:
            memory.words = self.find_words(state, max(call.site.tokens for row in calls for call in row))
            if step.plan.iterations:
                self._leave_alone(state, memory)
        if step.plan.iterations:
            step.open = [video for video in step.open if len(memory.words[video].concepts) > 1]
        return {video: self._judge(calls[video], memory.words[video]) for video in step.open}

    def _move(self, step: _Step, gradient: Tensor, rows: dict[int, Update], *, last: bool) -> None:
        """Move the open videos along the gradient, and close those that may not be moved again."""
        state = step.state
        change = step.move(gradient) / state.scale
        closed = [video for video in range(len(change)) if video not in step.open]
        change[closed] = 0.0
        if state.given is not None:
            change = change.masked_fill(state.given, 0.0)
        step.latents = step.latents + change
        sizes = rms(change)
        for video in step.open:
            rows[video].latent_change = float(sizes[video])
            step.memory.moves[video] += 1
            if not self._affords(state, step.memory, video):
                rows[video].stop = "cost cap"
            elif last:
                rows[video].stop = "iterations"
        step.open = [video for video in step.open if not rows[video].stop]

    def _judge(self, calls: Sequence[AttentionCall], words: Words) -> tuple[Verdict, Tensor]:
        influences = self.attention.flow.read(calls, words, per_token=self.objective.per_token)
        verdict = self.objective(influences)
        self._check(verdict, len(words.concepts))
        return verdict, influences.concepts.detach().flatten(1).mean(1)

    def _check(self, verdict: object, concepts: int) -> None:
        """Refuse what an objective of one's own must not return."""
        parts = (getattr(verdict, "loss", None), getattr(verdict, "strengths", None))
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
        if shapes != [(), (concepts,)]:
            raise BalanceError(
                f"expected {type(self.objective).__name__} to return a Verdict of a scalar loss and {concepts} strengths, both "
                f"tensors; got {type(verdict).__name__} with {shapes[0]} and {shapes[1]}."
            )

    def _row(self, step: _Step, iteration: int, video: int, latents: Tensor, verdict: Verdict, influence: Tensor) -> Update:
        state, names = step.state, [concept.name for concept in step.memory.words[video].concepts]
        loss = float(verdict.loss)
        if loss != loss:
            raise BalanceError(
                f"expected a finite objective, got NaN at denoising step {state.step}, iteration {iteration}, video {video}; "
                "the attention or the latents have overflowed: run the denoiser in float32 or bfloat16, or lower the size of "
                f"the update.{self._overdone(step, latents, [video])}"
            )
        return Update(
            run=state.run,
            step=state.step,
            iteration=iteration,
            video=video,
            timestep=state.timestep,
            loss=loss,
            influence=dict(zip(names, influence.tolist(), strict=True)),
            strength=dict(zip(names, verdict.strengths.detach().tolist(), strict=True)),
        )

    def _stop(self, plan: Plan, row: Update, before: float | None) -> StopReason:
        if plan.iterations == 0:
            return "observed"
        if plan.threshold is not None and row.loss < plan.threshold:
            return "threshold"
        if row.loss == 0:
            return "reached"
        if self.schedule.plateau is not None and before is not None and before - row.loss < self.schedule.plateau:
            return "plateau"
        return ""

    def _affords(self, state: StepState, memory: _Pass, video: int) -> bool:
        return self.schedule.affords(memory.moves[video], state.steps, state.branches)

    def _gradient(self, step: _Step, variable: Tensor, verdicts: dict[int, Verdict], rows: dict[int, Update]) -> Tensor:
        """Gradient of the summed losses; videos of a batch do not touch each other, so every one gets its own."""
        with torch.enable_grad():
            total = torch.stack([verdict.loss for verdict in verdicts.values()]).sum()
        if not total.requires_grad:
            raise self._no_gradient(step, variable, "the objective does not depend on the latents at all", list(verdicts))
        (gradient,) = torch.autograd.grad(total, variable)
        self.cost.backwards += 1
        if step.state.given is not None:
            gradient = gradient.masked_fill(step.state.given, 0.0)
        norms = gradient.float().flatten(1).norm(dim=1)
        for video in verdicts:
            norm = rows[video].gradient_norm = float(norms[video])
            if not norm > 0 or norm == float("inf"):
                what = "zero" if norm == 0 else "not finite"
                raise self._no_gradient(step, variable, f"its gradient in the latents of video {video} is {what}", [video])
        return gradient.float()

    def _no_gradient(self, step: _Step, latents: Tensor, what: str, videos: list[int]) -> BalanceError:
        name = type(self.objective).__name__
        return BalanceError(
            f"expected a finite gradient of {name} over {self.attention.flow.method} that is not zero, but {what} "
            f"(denoising step {step.state.step}, videos {videos}). A saturated flow (max_flow over many layers), a padded-out "
            "concept or overflowing attention does this; choose another flow or objective, check the concepts' tokens, or run "
            f"the denoiser in a wider precision.{self._overdone(step, latents, videos)}"
        )

    def _overdone(self, step: _Step, latents: Tensor, videos: list[int]) -> str:
        """A sentence more where earlier updates blew the latents up."""
        size = float(rms(latents.detach())[videos].max()) * step.state.scale
        if size <= BLOWN_UP or not any(step.memory.moves[video] for video in videos):
            return ""
        return (
            f" Here earlier updates were too large: the denoiser's input has a root mean square of {size:.1e}, where latents and "
            "noise have about 1. Lower the size of the step rule (the default is FixedRms(0.05))."
        )

    def _leave_alone(self, state: StepState, memory: _Pass) -> None:
        """Log which videos have fewer than two concepts to balance; the pass is finished if all have."""
        alone = [video for video, own in enumerate(memory.words) if len(own.concepts) < 2]
        memory.finished = len(alone) == len(memory.words)
        nan = float("nan")
        for video in alone:
            unknown = {concept.name: nan for concept in memory.words[video].concepts}
            stop: StopReason = "one concept" if unknown else "no concept"
            self.updates.append(Update(state.run, state.step, 0, video, state.timestep, nan, unknown, dict(unknown), stop=stop))
