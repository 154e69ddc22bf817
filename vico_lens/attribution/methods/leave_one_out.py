"""Leave one out: what changes when a concept's words are taken away. The causal reference that other methods are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vico_lens.attribution.base import Answer, Problem, register_method
from vico_lens.attribution.replay import (
    DenoiserCall,
    Sampling,
    record_calls,
    run_video,
    sampling_of,
    text_of_prompt,
    to_grid,
    with_text,
)
from vico_lens.errors import AttributionError, InputError
from vico_lens.store.selection import text_coordinate

__all__ = ["Replacement", "leave_one_out", "replaced_text"]

Replacement = Literal["padding", "neutral", "null"]


@register_method(
    "leave_one_out",
    exact=True,
    needs_pipe=True,
    cost="one sampling run up to the last step, then K + 1 denoiser calls a step; K + 1 whole runs for target='video'",
    needs=("cross", "joint"),
    references="Zeiler and Fergus, arXiv 1311.2901 (occlusion)",
)
def leave_one_out(
    problem: Problem,
    replacement: Replacement = "padding",
    target: Literal["prediction", "video"] = "prediction",
    region: Any = None,
    neutral: str = "thing",
    seed: int | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> Answer:
    """Change of the denoiser's prediction, or of the final video, when a concept's text states are replaced.

    Parameters
    ----------
    problem : Problem
        With the trace and the pipeline that made it.
    replacement : {"padding", "neutral", "null"}
        What takes the place of each text state of the concept: the state of this prompt's own padding; the state of a neutral
        word put there; the state at the same place of the empty prompt. A text encoder may have spread a word over the states of
        its neighbours, above all over padding and end tokens; what it spread stays.
    target : {"prediction", "video"}
        Root mean square change over channels of the conditional prediction at each step, everything before that step unchanged;
        or mean change of the final video (pixels in 0..1), the concept replaced at all steps.
    region : array, optional
        Mask ``[frame, y, x]`` on the token grid; change outside it counts as none.
    neutral : str
        The neutral word.
    seed : int, optional
        Seed of the run; the trace's own by default.
    sampling : mapping, optional
        Arguments of the pipeline call that differ from its defaults and from what the trace recorded.

    Returns
    -------
    Answer
        ``[concept, step, frame, y, x]``, without step for the video.
    """
    if target not in ("prediction", "video"):
        raise InputError(f"target: expected 'prediction' or 'video'; got {target!r}.")
    run = sampling_of(problem.trace, seed, sampling, problem.prompt)
    mask = None if region is None else _region(region, problem)
    if target == "video":
        return _video(problem, run, replacement, neutral, mask)
    calls = record_calls(problem.pipe, run, problem.steps)
    texts = [
        replaced_text(problem, run, calls[problem.steps[0]].text, index, replacement, neutral)
        for index in range(len(problem.tokens))
    ]
    maps = torch.stack([_change(calls[step], texts, problem) for step in problem.steps], 1)
    return Answer(maps if mask is None else maps * mask, ("concept", "step", "frame", "y", "x"))


def _change(call: DenoiserCall, texts: list[Tensor], problem: Problem) -> Tensor:
    """Root mean square change over channels on the token grid, ``[concept, frame, y, x]``."""
    with torch.no_grad():
        plain = call.predict(call.text, problem.grid)
        return torch.stack(
            [to_grid((call.predict(text, problem.grid) - plain).square().mean(-1).sqrt(), problem.grid) for text in texts]
        )


def _video(problem: Problem, run: Sampling, replacement: Replacement, neutral: str, mask: Tensor | None) -> Answer:
    plain = run_video(problem.pipe, run)
    maps = []
    for index in range(len(problem.tokens)):
        text = record_calls(problem.pipe, run, [0])[0].text
        changed = replaced_text(problem, run, text, index, replacement, neutral)
        with with_text(problem.pipe, lambda _, changed=changed: changed):  # type: ignore[misc]
            moved = run_video(problem.pipe, run)
        maps.append(to_grid((moved - plain).abs().mean(-1), problem.grid))
    return Answer(torch.stack(maps) if mask is None else torch.stack(maps) * mask)


def replaced_text(
    problem: Problem, run: Sampling, text: Tensor, index: int, replacement: Replacement, neutral: str = "thing"
) -> Tensor:
    """Text states ``[token, channel]`` with those of one concept replaced; see `leave_one_out`."""
    tokens = list(problem.tokens[index])
    if max(tokens) >= len(text):
        raise AttributionError(
            f"expected the denoiser's {len(text)} text states to include tokens {tokens} of {problem.names[index]!r}; the trace "
            "numbers its tokens differently. Use a method that works on the trace."
        )
    changed = text.clone()
    if replacement == "padding":
        kinds = text_coordinate(problem.trace, "token_kind", problem.prompt)[: len(text)]
        places = [place for place, kind in enumerate(kinds) if kind == "padding"] or [
            place for place, kind in enumerate(kinds) if kind == "special" and place > max(tokens)
        ]
        if not places:
            raise AttributionError(
                "replacement='padding' expected padding or an end token after the prompt; there is none. Use 'null'."
            )
        changed[tokens] = text[places[0]]
    elif replacement == "null":
        changed[tokens] = text_of_prompt(problem.pipe, run, "", len(text))[tokens]
    elif replacement == "neutral":
        starts = text_coordinate(problem.trace, "token_start", problem.prompt)
        stops = text_coordinate(problem.trace, "token_stop", problem.prompt)
        spans = sorted((int(starts[token]), int(stops[token])) for token in tokens)
        other = run.prompt[: spans[0][0]] + neutral + run.prompt[spans[-1][1] :]
        changed[tokens] = text_of_prompt(problem.pipe, run, other, len(text))[tokens[0]]
    else:
        raise InputError(f"replacement: expected 'padding', 'neutral' or 'null'; got {replacement!r}.")
    return changed


def _region(region: Any, problem: Problem) -> Tensor:
    mask = torch.as_tensor(np.array(getattr(region, "values", region)), dtype=torch.float32)
    if tuple(mask.shape) != problem.grid:
        raise InputError(f"region: expected a mask of shape {problem.grid} on the token grid; got {tuple(mask.shape)}.")
    return mask
