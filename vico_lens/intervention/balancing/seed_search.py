"""Spend the compute of balancing on more seeds, and keep the one whose objective is lowest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vico_lens.errors import InputError
from vico_lens.intervention.balancing.balancer import balance
from vico_lens.intervention.balancing.presets import Preset
from vico_lens.intervention.balancing.schedule import Schedule
from vico_lens.intervention.balancing.session import Cost, Session, is_extra, rows_of
from vico_lens.intervention.balancing.words import Names

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Best", "best_of", "early_loss"]


@dataclass(frozen=True, slots=True)
class Best:
    """The best of several seeds.

    Attributes
    ----------
    video : ndarray
        Uint8 (frame, row, column, channel).
    seed : int
        That made it.
    losses : dict
        Seed to loss: its mean over the denoising steps, or at the step looked at.
    cost : Cost
        Of all seeds together.
    """

    video: np.ndarray
    seed: int
    losses: dict[int, float]
    cost: Cost


class _Judged(Exception):
    """A seed has been judged: no error, it ends a pipeline call whose rest is not needed."""


def early_loss(pipe: Any, concepts: Names | Sequence[Names] | None, step: int, call: dict[str, Any], **settings: Any) -> Session:
    """Sample up to denoising step `step`, evaluate the objective there, and go no further.

    Parameters
    ----------
    pipe, concepts
        As in `balance`.
    step : int
        Counted from 0; that many steps are spent, and one conditional forward.
    call : dict
        Arguments of the pipeline's call, generator included.
    **settings
        Objective, flow and their options, as in `balance`.

    Returns
    -------
    Session
        Its `log` holds one row a video, its `cost` what was spent; it has no video.

    Raises
    ------
    InputError
        If the pass has no such step.
    """
    watched = {"preset": "observe", **settings, "schedule": Schedule(steps=(step,), iterations=0)}
    with ExitStack() as undo:
        session = undo.enter_context(balance(pipe, concepts, **watched))

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if session.updates and not is_extra():
                session.cost.forwards -= 1  # this one was counted and is not made
                session.cost.rows -= rows_of(args, kwargs)
                raise _Judged

        for module in session.denoisers.values():
            undo.callback(module.register_forward_pre_hook(stop, with_kwargs=True).remove)
        try:
            pipe(**call)
        except _Judged:
            return session
    raise InputError(f"expected a denoising step of the sampling pass, got step {step}; the pass ended before it.")


def best_of(
    pipe: Any,
    concepts: Names | None,
    seeds: Sequence[int],
    *,
    call: dict[str, Any],
    look: int | None = None,
    then: str | Preset | None = None,
    **settings: Any,
) -> Best:
    """Keep the seed whose objective is lowest, and balance that one if asked to.

    Without `then` this is the null of equal compute: balancing must do better than choosing. With it, the two work together.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline.
    concepts : sequence of str or Concept or None
        As in `balance`.
    seeds : sequence of int
        Of one sampling pass each.
    call : dict
        Arguments of the pipeline's call; its ``generator`` is made here.
    look : int, optional
        Judge every seed at this denoising step and sample only the best to its end; by default all are sampled to their end
        and judged by the mean over all steps.
    then : str or Preset, optional
        Balance the best seed with this preset (``"default"``); by default its video is the plain one.
    **settings
        Objective, flow and their options by which seeds are judged, as in `balance`; the updates are left out.

    Returns
    -------
    Best

    Raises
    ------
    InputError
        If there are no seeds, or `call` brings a generator of its own.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> best = best_of(tiny.pipe, ["circle", "square"], [0, 1], call=dict(tiny.kwargs, output_type="np"))
    >>> best.seed in best.losses, len(best.losses)
    (True, 2)
    """
    from vico_lens.tracing.families import denoisers

    if not seeds or "generator" in call:
        raise InputError(
            f"expected at least one seed and a call without a generator, got seeds={list(seeds)} and {sorted(call)}."
        )
    total, losses, videos = Cost(), {}, {}
    for seed in seeds:
        drawn = {**call, "generator": torch.Generator().manual_seed(seed)}
        if look is not None:
            session = early_loss(pipe, concepts, look, drawn, **settings)
        else:
            with balance(pipe, concepts, **{"preset": "observe", **settings}) as session:
                pipe(**drawn)
            videos[seed] = session.video
        losses[seed] = float(session.log.loss.mean())
        total = total + session.cost
    best = min(losses, key=losses.__getitem__)
    if look is not None or then is not None:
        with Session(pipe, denoisers(pipe)) if then is None else balance(pipe, concepts, preset=then) as whole:
            pipe(**call, generator=torch.Generator().manual_seed(best))
        videos[best], total = whole.video, total + whole.cost
    return Best(videos[best], best, losses, total)
