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
from vico_lens.intervention.balancing.injection import Moment
from vico_lens.intervention.balancing.log import Update
from vico_lens.intervention.balancing.objectives import Objective, Verdict
from vico_lens.intervention.balancing.schedule import Plan, Schedule, StopReason
from vico_lens.intervention.balancing.session import Cost
from vico_lens.intervention.balancing.steps import StepRule, clips_of, rms
from vico_lens.intervention.balancing.words import Words

if TYPE_CHECKING:
    from vico_lens.vocabulary.schema import AttentionCall

__all__ = ["Updater"]

BLOWN_UP = 30.0
"""Root mean square of a denoiser input that no sampling reaches by itself."""


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
        Moment and number of text tokens to the words of every video's prompt.
    cost : Cost
        Takes what updates spend.
    updates : list of Update
        The log so far.
    runs : int
        Sampling passes seen so far.
    """

    attention: LiveAttention
    objective: Objective
    rule: StepRule
    schedule: Schedule
    find_words: Callable[[Moment, int], list[Words]]
    cost: Cost
    updates: list[Update] = field(default_factory=list)
    runs: int = 0
    _clips: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _words: dict[int, list[Words]] = field(default_factory=dict)
    _moves: dict[tuple[int, int], int] = field(default_factory=dict)
    _finished: set[int] = field(default_factory=set)
    _told: set[int] = field(default_factory=set)

    def __call__(self, moment: Moment) -> Tensor | None:
        """Return moved latents [video, ...] in float32, or None to leave this step alone."""
        self.runs = max(self.runs, moment.run + 1)
        if moment.run not in self._clips:
            self._clips[moment.run] = clips_of(moment.latents)
        plan = self.schedule.plan(moment.step, moment.steps)
        if plan is None:
            return None
        if moment.run in self._finished:
            return None
        began = perf_counter()
        with self.attention.prepared(moment.denoiser):
            latents = self._iterate(moment, plan)
        self.cost.update_seconds += perf_counter() - began
        if latents is None:
            return None
        applied = rms(latents.to(moment.dtype).float() - moment.latents)
        for update in self.updates:
            if (update.run, update.step) == (moment.run, moment.step) and update.stop:
                update.applied_change = float(applied[update.video])
        return latents

    def _iterate(self, moment: Moment, plan: Plan) -> Tensor | None:
        latents = moment.latents
        open_videos = [video for video in range(latents.shape[0]) if not plan.iterations or self._affords(moment, video)]
        if not open_videos:
            self._finished.add(moment.run)
            return None
        move = self.rule.start(moment.step, moment.steps, self._clips[moment.run])
        before: dict[int, float] = {}
        moved = False
        for iteration in range(max(1, plan.iterations)):
            began = perf_counter()
            with torch.enable_grad() if plan.iterations else torch.no_grad():
                variable = latents.clone().requires_grad_(plan.iterations > 0)
                calls = self.attention(moment, variable)
                self.cost.extra_forwards += 1
                self.cost.extra_rows += latents.shape[0]
                words = self._words_of(moment, calls)
                if plan.iterations:
                    self._leave_alone(moment, words)
                    open_videos = [video for video in open_videos if len(words[video].concepts) > 1]
                verdicts = {video: self._judge(calls[video], words[video]) for video in open_videos}
            rows = {
                video: self._row(moment, iteration, video, words[video], variable, *verdict)
                for video, verdict in verdicts.items()
            }
            for video, row in rows.items():
                row.stop = self._stop(moment, plan, row, before.get(video))
                before[video] = row.loss
            open_videos = [video for video in open_videos if not rows[video].stop]
            if open_videos:
                gradient = self._gradient(moment, variable, {video: verdicts[video][0] for video in open_videos}, rows)
                change = move(gradient) / moment.scale
                shut = [video for video in range(len(words)) if video not in open_videos]
                change[shut] = 0.0
                latents, moved = latents + change, True
                sizes = rms(change)
                for video in open_videos:
                    rows[video].latent_change = float(sizes[video])
                    self._moves[moment.run, video] = self._moves.get((moment.run, video), 0) + 1
                    if not self._affords(moment, video):
                        rows[video].stop = "cost cap"
                    elif iteration + 1 == plan.iterations:
                        rows[video].stop = "iterations"
            seconds = perf_counter() - began
            for row in rows.values():
                row.seconds = seconds
            self.updates.extend(rows.values())
            open_videos = [video for video in open_videos if not rows[video].stop]
            if not open_videos:
                break
        return latents if moved else None

    def _words_of(self, moment: Moment, calls: Sequence[Sequence[AttentionCall]]) -> list[Words]:
        """Words of every video, looked up once a sampling pass: only live attention says how many text tokens the denoiser
        sees.
        """
        if moment.run not in self._words:
            self._words[moment.run] = self.find_words(moment, max(call.site.tokens for row in calls for call in row))
        return self._words[moment.run]

    def _judge(self, calls: Sequence[AttentionCall], words: Words) -> tuple[Verdict, Tensor]:
        influences = self.attention.flow.read(calls, words, per_token=self.objective.per_token)
        verdict = self.objective(influences)
        self._check(verdict, len(words.concepts))
        return verdict, influences.concepts.detach().flatten(1).mean(1)

    def _check(self, verdict: object, concepts: int) -> None:
        """Refuse what an objective of one's own must not return."""
        parts = (getattr(verdict, "loss", None), getattr(verdict, "strengths", None))
        found = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
        if found != [(), (concepts,)]:
            raise BalanceError(
                f"expected {type(self.objective).__name__} to return a Verdict of a scalar loss and {concepts} strengths, both "
                f"tensors; got {type(verdict).__name__} with {found[0]} and {found[1]}."
            )

    def _row(
        self,
        moment: Moment,
        iteration: int,
        video: int,
        words: Words,
        latents: Tensor,
        verdict: Verdict,
        influence: Tensor,
    ) -> Update:
        names = [concept.name for concept in words.concepts]
        loss = float(verdict.loss)
        if loss != loss:
            raise BalanceError(
                f"expected a finite objective, got NaN at denoising step {moment.step}, iteration {iteration}, video {video}; "
                "the attention or the latents have overflowed: run the denoiser in float32 or bfloat16, or lower the size of "
                f"the update.{self._overdone(moment, latents, [video])}"
            )
        return Update(
            run=moment.run,
            step=moment.step,
            iteration=iteration,
            video=video,
            timestep=moment.timestep,
            loss=loss,
            influence=dict(zip(names, influence.tolist(), strict=True)),
            strength=dict(zip(names, verdict.strengths.detach().tolist(), strict=True)),
        )

    def _stop(self, moment: Moment, plan: Plan, row: Update, before: float | None) -> StopReason:
        if plan.iterations == 0:
            return "observed"
        if plan.threshold is not None and row.loss < plan.threshold:
            return "threshold"
        if row.loss == 0:
            return "reached"
        if self.schedule.plateau is not None and before is not None and before - row.loss < self.schedule.plateau:
            return "plateau"
        return ""

    def _affords(self, moment: Moment, video: int) -> bool:
        return self.schedule.affords(self._moves.get((moment.run, video), 0), moment.steps, moment.branches)

    def _gradient(self, moment: Moment, variable: Tensor, verdicts: dict[int, Verdict], rows: dict[int, Update]) -> Tensor:
        """Gradient of the summed losses; videos of a batch do not touch each other, so every one gets its own."""
        with torch.enable_grad():
            total = torch.stack([verdict.loss for verdict in verdicts.values()]).sum()
        if not total.requires_grad:
            raise self._no_gradient(moment, variable, "the objective does not depend on the latents at all", list(verdicts))
        (gradient,) = torch.autograd.grad(total, variable)
        self.cost.backwards += 1
        norms = gradient.float().flatten(1).norm(dim=1)
        for video in verdicts:
            norm = rows[video].gradient_norm = float(norms[video])
            if not norm > 0 or norm == float("inf"):
                found = "zero" if norm == 0 else "not finite"
                raise self._no_gradient(moment, variable, f"its gradient in the latents of video {video} is {found}", [video])
        return gradient.float()

    def _no_gradient(self, moment: Moment, latents: Tensor, what: str, videos: list[int]) -> BalanceError:
        name = type(self.objective).__name__
        return BalanceError(
            f"expected a finite gradient of {name} over {self.attention.flow.method} that is not zero, but {what} "
            f"(denoising step {moment.step}, videos {videos}). A saturated flow (max_flow over many layers), a padded-out "
            "concept or "
            "overflowing attention does this; choose another flow or objective, check the concepts' tokens, or run the denoiser "
            f"in a wider precision.{self._overdone(moment, latents, videos)}"
        )

    def _overdone(self, moment: Moment, latents: Tensor, videos: list[int]) -> str:
        """A sentence more where earlier updates blew the latents up."""
        size = float(rms(latents.detach())[videos].max()) * moment.scale
        if size <= BLOWN_UP or not any((moment.run, video) in self._moves for video in videos):
            return ""
        return (
            f" Here earlier updates were too large: the denoiser's input has a root mean square of {size:.1e}, where latents and "
            "noise have about 1. Lower the size of the step rule (the default is FixedRms(0.05))."
        )

    def _leave_alone(self, moment: Moment, words: Sequence[Words]) -> None:
        """Note, once a sampling pass, which videos have fewer than two concepts to balance; look no further if all have."""
        if moment.run in self._told:
            return
        self._told.add(moment.run)
        alone = [video for video, own in enumerate(words) if len(own.concepts) < 2]
        if len(alone) == len(words):
            self._finished.add(moment.run)
        nan = float("nan")
        for video in alone:
            unknown = {concept.name: nan for concept in words[video].concepts}
            stop: StopReason = "one concept" if unknown else "no concept"
            self.updates.append(
                Update(moment.run, moment.step, 0, video, moment.timestep, nan, unknown, dict(unknown), stop=stop)
            )
