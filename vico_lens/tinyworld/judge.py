"""The exact judge: whether a clip shows what its prompt asks for, and how it failed if not.

The judge was written and fixed before anyone looked at a balancing result. Its own error rate is measured against rendered truth
in ``tests/tinyworld/test_judge.py`` and, wider, by ``make check-all``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vico_lens.errors import InputError
from vico_lens.tinyworld.prompts import TinyPrompt, parse_prompt
from vico_lens.tinyworld.tracks import Track, find_tracks
from vico_lens.tinyworld.vocabulary import FRAMES, RELATIONS, SIDE

__all__ = ["FAILURES", "Failure", "Verdict", "judge", "judge_clip"]

Failure = Literal[
    "missing_subject",
    "extra_object",
    "unreadable",
    "attribute_swap",
    "attribute_leak",
    "wrong_attribute",
    "motion_mixing",
    "wrong_motion",
    "wrong_size",
    "wrong_relation",
]
FAILURES: dict[Failure, str] = {
    "missing_subject": "fewer objects than asked for",
    "extra_object": "more objects than asked for",
    "unreadable": "an object whose shape cannot be told",
    "attribute_swap": "two objects that exchanged colour or shape",
    "attribute_leak": "an object that took the colour or shape of another",
    "wrong_attribute": "a colour or shape that nobody asked for",
    "motion_mixing": "an object that moves as another one should",
    "wrong_motion": "a motion that nobody asked for",
    "wrong_size": "right but for a size that was named",
    "wrong_relation": "right but for the place relative to the other object",
}

_RELATION_LEAD = 2.0  # pixels by which an object must be left of or above the other


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge's verdict on one clip.

    Attributes
    ----------
    all_correct : bool
        Every object with every attribute that was named, nothing extra, the relation as asked.
    subjects_correct : bool
        The same, motions, sizes and relation left aside.
    present : tuple of bool
        For each object of the prompt: something in the clip has its colour or its shape and is not better explained by another
        object.
    attributes : tuple of dict
        For each object: ``{"shape": bool, "colour": bool, "motion": bool, "size": bool}``; all false where it is not present.
    failure : str or None
        The first of `FAILURES` that applies, ``None`` if all is correct.
    tracks : tuple of Track
        Everything seen.

    Examples
    --------
    >>> from vico_lens.tinyworld import render
    >>> prompt = parse_prompt("a red circle moving right")
    >>> verdict = judge(render(prompt, seed=0).frames, prompt)
    >>> verdict.all_correct, verdict.failure
    (True, None)
    """

    all_correct: bool
    subjects_correct: bool
    present: tuple[bool, ...]
    attributes: tuple[dict[str, bool], ...]
    failure: Failure | None
    tracks: tuple[Track, ...]


def judge(frames: Any, prompt: TinyPrompt | str) -> Verdict:
    """Judge a clip against its prompt.

    Parameters
    ----------
    frames : array, tensor or list of PIL images
        ``[frame, row, column, rgb]``: uint8, or float in 0..1. Eight frames of 32 x 32.
    prompt : TinyPrompt or str
        What was asked for.

    Raises
    ------
    InputError
        If the clip has another shape, holds non-finite values, or the prompt is not one of the tiny world.

    Examples
    --------
    >>> from vico_lens.tinyworld import render
    >>> clip = render("a red circle moving right and a blue square moving up", seed=0)
    >>> judge(clip.frames, "a red circle moving right and a blue square moving up").all_correct
    True
    >>> judge(clip.frames, "a red circle moving up and a blue square moving right").failure
    'motion_mixing'
    """
    asked = parse_prompt(prompt) if isinstance(prompt, str) else prompt
    tracks = find_tracks(_as_unit_floats(frames))
    matched = _match(asked, tracks)
    attributes = tuple(
        {
            "shape": track is not None and track.shape == item.shape,
            "colour": track is not None and track.colour == item.colour,
            "motion": track is not None and track.motion == item.motion,
            "size": track is not None and item.size in (None, track.size),
        }
        for item, track in zip(asked.objects, matched, strict=True)
    )
    failure = _failure(asked, tracks, matched, attributes)
    return Verdict(
        all_correct=failure is None,
        subjects_correct=len(tracks) == len(asked.objects) and all(a["shape"] and a["colour"] for a in attributes),
        present=tuple(track is not None for track in matched),
        attributes=attributes,
        failure=failure,
        tracks=tuple(tracks),
    )


def _as_unit_floats(frames: Any) -> NDArray[np.float32]:
    if hasattr(frames, "detach"):
        frames = frames.detach().float().cpu().numpy()
    array = np.stack([np.asarray(frame) for frame in frames]) if isinstance(frames, (list, tuple)) else np.asarray(frames)
    if array.shape != (FRAMES, SIDE, SIDE, 3):
        raise InputError(
            f"the judge reads one clip [frame, row, column, rgb] of shape {(FRAMES, SIDE, SIDE, 3)}, got {array.shape}: "
            "pass pipe(...).frames[0]."
        )
    unit = array.astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)
    if not np.isfinite(unit).all():
        raise InputError("the clip holds values that are not finite.")
    return unit


def _match(asked: TinyPrompt, tracks: list[Track]) -> list[Track | None]:
    """Give every object the track that explains it best, none twice, and none that shares neither its colour nor its shape."""
    from scipy.optimize import linear_sum_assignment

    if not tracks:
        return [None] * len(asked.objects)
    score = np.array(
        [
            [
                8 * (t.colour == o.colour) + 4 * (t.shape == o.shape) + 2 * (t.motion == o.motion) + (o.size in (None, t.size))
                for t in tracks
            ]
            for o in asked.objects
        ]
    )
    matched: list[Track | None] = [None] * len(asked.objects)
    for row, column in zip(*linear_sum_assignment(score, maximize=True), strict=True):
        if score[row, column] >= 4:
            matched[row] = tracks[column]
    return matched


def _failure(
    asked: TinyPrompt, tracks: list[Track], matched: list[Track | None], attributes: tuple[dict[str, bool], ...]
) -> Failure | None:
    if len(tracks) < len(asked.objects):
        return "missing_subject"
    if len(tracks) > len(asked.objects):
        return "extra_object"
    if any(track.shape == "unreadable" for track in tracks):
        return "unreadable"
    for word in ("colour", "shape"):
        if not all(a[word] for a in attributes):
            wanted, seen = [getattr(o, word) for o in asked.objects], [getattr(t, word) for t in tracks]
            # A colour decides which object a track is matched to, so exchanged colours show as exchanged shapes.
            if Counter(wanted) == Counter(seen):
                return "attribute_swap"
            return "attribute_leak" if set(seen) <= set(wanted) and len(wanted) > 1 else "wrong_attribute"
    if not all(a["motion"] for a in attributes):
        others = [
            {o.motion for o in asked.objects if o is not item}
            for item, a in zip(asked.objects, attributes, strict=True)
            if not a["motion"]
        ]
        moved = [t.motion for t, a in zip(matched, attributes, strict=True) if t is not None and not a["motion"]]
        return "motion_mixing" if any(m in o for m, o in zip(moved, others, strict=True)) else "wrong_motion"
    if not all(a["size"] for a in attributes):
        return "wrong_size"
    if asked.relation is not None and matched[0] is not None and matched[1] is not None:
        step = RELATIONS[asked.relation]
        axis = 0 if step[0] else 1
        if matched[1].centre[axis] - matched[0].centre[axis] < _RELATION_LEAD:
            return "wrong_relation"
    return None


def judge_clip(video: np.ndarray, prompt: str) -> dict[str, Any]:
    """What the exact judge says of a clip of the bundled model; nothing where the prompt is no sentence of its world."""
    try:
        verdict = judge(video, parse_prompt(prompt))
    except InputError:
        return {}
    return {
        "all_correct": bool(verdict.all_correct),
        "subjects_correct": bool(verdict.subjects_correct),
        "failure": verdict.failure or "",
    }
