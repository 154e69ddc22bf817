"""One prompt and one seed, sampled once or twice: traced, attributed, judged; plain, and balanced for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.runs.request import Request
from vico_lens.vocabulary.concepts import Concept, find_concepts

__all__ = ["Run", "by_frame", "judged", "run_once", "shares", "shares_text", "verdict_of", "verdict_text"]


@dataclass(frozen=True, slots=True)
class Run:
    """What one sampling left behind.

    Attributes
    ----------
    video : ndarray
        uint8 ``(frame, row, column, channel)``.
    tree : DataTree
        The trace.
    concepts : list of Concept
        Concepts that were followed.
    influence : DataArray
        ``(concept, step, frame, y, x)``.
    dominance : Dataset
        Of `influence`.
    verdict : Verdict or None
        What the exact judge of the tiny world says, where the prompt is one of its sentences.
    log : Dataset or None
        What balancing did, if it took part.
    session : Session or None
        The balancing session, for `vico_lens.balance_report`.
    """

    video: np.ndarray
    tree: xr.DataTree
    concepts: list[Concept]
    influence: xr.DataArray
    dominance: xr.Dataset
    verdict: Any | None
    log: xr.Dataset | None
    session: Any | None = None

    def summary(self) -> dict[str, Any]:
        """Shares, who leads, and the verdict, as plain values."""
        return {**shares(self.dominance), "judge": judged(self.verdict)}


def run_once(
    request: Request,
    pipe: Any,
    *,
    label: str,
    to: Path | None = None,
    concepts: Sequence[str] | None = None,
    method: str,
    options: Mapping[str, Any] | None = None,
    balance: Mapping[str, Any] | None = None,
    keep: Callable[[np.ndarray], object] | None = None,
) -> Run:
    """Sample once with tracing on, balanced if `balance` is given, and say what drove the video.

    Parameters
    ----------
    request, pipe
        What to sample, and the pipeline that ``request.load()`` gave.
    label : str
        Name of the progress bar.
    to : Path, optional
        Where to keep the trace; in memory by default.
    concepts : sequence of str, optional
        By name; the noun phrases of the prompt by default.
    method, options
        Attribution method and its options.
    balance : mapping, optional
        Arguments of `vico_lens.balance` besides pipeline and concepts. None samples plainly.
    keep : callable, optional
        Takes the video as soon as it is sampled, before anything is computed from it that may fail.

    Raises
    ------
    ConceptError
        If a concept is not in the prompt: before anything is sampled, where the pipeline has a tokenizer that can tell.
    """
    # Imported here, because these load torch and the command line imports this module for every verb.
    from vico_lens.attribution.dominance import dominance
    from vico_lens.attribution.facade import attribute
    from vico_lens.intervention.balancing.balancer import balance as start_balance
    from vico_lens.tracing.recording import trace

    names = list(concepts) if concepts else None
    tokenizer = getattr(pipe, "tokenizer", None)
    if getattr(tokenizer, "is_fast", False):
        find_concepts(request.prompt, names, tokenizer)
    with ExitStack() as stack:
        recording = stack.enter_context(trace(pipe, to=to))
        balancing = None if balance is None else stack.enter_context(start_balance(pipe, names, **balance))
        video = request.sample(pipe, label)
        if keep is not None:
            keep(video)
        recording.video = video
    found = find_concepts(recording.tree, names)
    influence = attribute(recording.tree, method, found, **(options or {}))
    log = None if balancing is None else balancing.log
    return Run(video, recording.tree, found, influence, dominance(influence), verdict_of(request, video), log, balancing)


def verdict_of(request: Request, video: np.ndarray) -> Any | None:
    """Ask the exact judge of the tiny world; None where the prompt is not one of its sentences."""
    if not request.bundled:
        return None
    from vico_lens.tinyworld import judge, parse_prompt

    try:
        asked = parse_prompt(request.prompt)
    except InputError:
        return None
    return judge(video, asked)


def judged(verdict: Any | None) -> dict[str, Any] | None:
    """A verdict as plain values, without the tracks."""
    if verdict is None:
        return None
    return {name: getattr(verdict, name) for name in ("all_correct", "subjects_correct", "present", "attributes", "failure")}


def shares(dominance: xr.Dataset) -> dict[str, Any]:
    """Share of each concept, who dominates and who is weakest, and how even it is."""
    return {
        "share": {
            str(name): float(value) for name, value in zip(dominance["concept"].values, dominance["share"].values, strict=True)
        },
        "dominant": str(dominance["dominant"].item()),
        "weakest": str(dominance["weakest"].item()),
        "evenness": float(dominance["evenness"]),
    }


def by_frame(dominance: xr.Dataset) -> dict[str, list[float]] | None:
    """Share of each concept in every frame, where the influence has frames."""
    if "share_by_frame" not in dominance:
        return None
    table = dominance["share_by_frame"]
    return {str(name): table.sel(concept=name).values.tolist() for name in dominance["concept"].values}


def shares_text(dominance: xr.Dataset) -> str:
    """Shares in a line, the largest first.

    >>> shares_text(xr.Dataset({"share": ("concept", [0.25, 0.75])}, {"concept": ["circle", "square"]}))
    'square 75 %, circle 25 %'
    """
    order = np.argsort(-dominance["share"].values, kind="stable")
    return ", ".join(f"{dominance['concept'].values[index]} {100 * float(dominance['share'][index]):.0f} %" for index in order)


def verdict_text(verdict: Any | None) -> str:
    """What the judge says, in words."""
    if verdict is None:
        return "not judged (the prompt is not a sentence of the tiny world)"
    from vico_lens.tinyworld import FAILURES

    return "everything right" if verdict.failure is None else f"{verdict.failure.replace('_', ' ')}: {FAILURES[verdict.failure]}"
