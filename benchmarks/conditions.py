"""The conditions of the study, and how a batch of its clips is sampled under one of them.

Every setting stands here in full, the presets' included, so that a run is known by what was done and not by a name whose meaning
may change. Clips of one condition are sampled several at a time: videos of a batch do not touch each other, and on one core this
is about half of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import process_time
from typing import Any

import numpy as np
import torch

import vico_lens as vl
from vico_lens.intervention.balancing import FixedRms, Preset, RandomDirection, Schedule, Session, presets
from vico_lens.intervention.balancing.composition import compose
from vico_lens.intervention.balancing.reweighting import reweight
from vico_lens.intervention.balancing.seed_search import early_loss
from vico_lens.runs.sweeps import Run
from vico_lens.tracing.families import denoisers
from vico_lens.tracing.video import to_rgb

__all__ = ["CONDITIONS", "SINGLE", "Sampled", "sample_batch"]

Sampled = tuple[np.ndarray, dict[str, Any]]
"""A clip, uint8 (frame, row, column, channel), and what is to be recorded beside it."""

_EARLY = Schedule(stop=0.4, iterations=1, threshold=0.01)


def _early(objective: str, flow: str = "subgraph_flow", **options: Any) -> dict[str, Any]:
    """Moves of 0.03 in the first 40 % of the steps, whatever is lowered."""
    return {"preset": Preset(FixedRms(0.03), _EARLY, objective, flow, options)}


CONDITIONS: dict[str, Mapping[str, Any] | None] = {
    "plain": None,
    "default": {"preset": presets["default"]},
    "random direction": {"preset": presets["random"]},
    "random direction, 0.03": {
        "preset": Preset(RandomDirection(FixedRms(0.03)), _EARLY, "weakest", flow_options={"kind": "sum"})
    },
    "best of 2 seeds": {"baseline": "best_of", "count": 2, "preset": presets["observe"]},
    "best of 3 at step 4": {"baseline": "best_of", "count": 3, "look": 4, "preset": presets["observe"]},
    "best of 5 at step 4": {"baseline": "best_of", "count": 5, "look": 4, "preset": presets["observe"]},
    "best of 3, then default": {
        "baseline": "best_of",
        "count": 3,
        "look": 4,
        "preset": presets["observe"],
        "then": presets["default"],
    },
    "attend and excite": _early("attend_and_excite", "cross_attention"),
    "weakest, sum flow": _early("weakest", kind="sum"),
    "weakest, hard flow": _early("weakest", kind="hard"),
    "weakest, soft flow": _early("weakest", kind="soft", tau=0.01),
    "variance, hard flow": _early("variance", kind="hard"),
    "equal, sum flow": _early("equal", kind="sum"),
    "equal, rollout": _early("equal", "rollout"),
    "equal, cross-attention": _early("equal", "cross_attention"),
    "vico": {"preset": presets["vico"]},
    "token weight 1.5": {"baseline": "reweight", "weight": 1.5},
    "composed clauses": {"baseline": "compose"},
}
"""Name to settings: arguments of `vico_lens.balance`, or of a baseline named by ``baseline``; None is the plain call."""

SINGLE = ("plain", "default", "vico", "attend and excite", "token weight 1.5")
"""Conditions that are also tried on prompts of one object."""

_NEXT_SEED = 1_000_000


def sample_batch(pipe: Any, runs: Sequence[Run]) -> list[Sampled]:
    """Sample runs that have their condition in common, in one pipeline call (one a seed for ``best_of``).

    Returns
    -------
    list of (ndarray, dict)
        One a run: the clip, and ``row_forwards`` (denoiser forwards of one row, a backward counted as one), ``updates``,
        ``first_loss``, ``last_loss`` and ``seconds`` of processor time.
    """
    settings = dict(runs[0].settings or {})
    concepts = [list((run.settings or {}).get("concepts", ())) for run in runs]
    settings.pop("concepts", None)
    baseline = settings.pop("baseline", None)
    if baseline == "compose":  # its parts belong to a call, not to a prompt
        return [_sampled(pipe, [run], compose(pipe, run.prompt.split(" and ")))[0] for run in runs]
    if baseline == "reweight":
        return _sampled(pipe, runs, reweight(pipe, concepts, **settings))
    if baseline == "best_of" and settings.get("look") is not None:
        return _best_at(pipe, runs, concepts, **settings)
    if baseline == "best_of":
        tries = [
            _sampled(pipe, runs, vl.balance(pipe, concepts, **settings), _NEXT_SEED * place)
            for place in range(settings.pop("count"))
        ]
        return [_best(clips) for clips in zip(*tries, strict=True)]
    return _sampled(
        pipe, runs, Session(pipe, denoisers(pipe)) if runs[0].settings is None else vl.balance(pipe, concepts, **settings)
    )


def _sampled(pipe: Any, runs: Sequence[Run], session: Session, shift: int = 0) -> list[Sampled]:
    generators = [torch.Generator().manual_seed(run.seed + shift) for run in runs]
    began = process_time()
    with session:
        frames = pipe([run.prompt for run in runs], generator=generators, output_type="np", **runs[0].call).frames
    seconds = (process_time() - began) / len(runs)
    log, count = session.log, len(runs)
    # What the log does not know of, composed predictions for one, is spent on all videos alike.
    logged = log.sizes["update"]
    shared = (session.cost.rows + (0 if logged else session.cost.extra_rows)) / count
    found = []
    for video, clip in enumerate(frames):
        own = log.isel(update=log.video.values == video) if logged else log
        moves = int((own.latent_change.values > 0).sum())
        told = {"row_forwards": shared + own.sizes["update"] + moves, "updates": moves, "seconds": seconds}
        if own.sizes["update"]:
            losses = own.loss.values
            told |= {"first_loss": float(losses[0]), "last_loss": float(losses[-1]), "mean_loss": float(losses.mean())}
        found.append((to_rgb(clip), told))
    return found


def _best(clips: Sequence[Sampled]) -> Sampled:
    """The clip of the lowest mean loss, with the cost of all."""
    video, told = min(clips, key=lambda clip: clip[1].get("mean_loss", 0.0))
    return video, told | {name: sum(other[name] for _, other in clips) for name in ("row_forwards", "seconds")}


def _best_at(
    pipe: Any,
    runs: Sequence[Run],
    concepts: Sequence[list[str]],
    count: int,
    look: int,
    then: Preset | None = None,
    **settings: Any,
) -> list[Sampled]:
    """Judge every seed at an early step, sample the best alone to its end, balanced if `then` says how."""
    losses, spent, began = [], 0.0, process_time()
    for place in range(count):
        generators = [torch.Generator().manual_seed(run.seed + _NEXT_SEED * place) for run in runs]
        call = {"prompt": [run.prompt for run in runs], "generator": generators, **runs[0].call}
        session = early_loss(pipe, concepts, look, call, **settings)
        losses.append(session.log.sortby("video").loss.values)
        spent += session.cost.row_forwards / len(runs)
    seconds = (process_time() - began) / len(runs)
    shifts = _NEXT_SEED * np.argmin(losses, axis=0)
    chosen = [replace(run, seed=run.seed + int(shift)) for run, shift in zip(runs, shifts, strict=True)]
    last = Session(pipe, denoisers(pipe)) if then is None else vl.balance(pipe, concepts, preset=then)
    return [
        (video, told | {"row_forwards": told["row_forwards"] + spent, "seconds": told["seconds"] + seconds})
        for video, told in _sampled(pipe, chosen, last)
    ]
