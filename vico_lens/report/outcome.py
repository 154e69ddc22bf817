"""One run as the report tells it: its video, its influence, and what the judge said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import xarray as xr

from vico_lens.errors import InputError

__all__ = ["Outcome", "Ruling", "ruling"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run and what is known of it.

    Attributes
    ----------
    video : array or sequence
        Frames, in any form that `vico_lens.plot.save_mp4` takes.
    influence : DataArray, dims ``concept [step] frame y x``
        What `vico_lens.attribute` returned for this run.
    dominance : Dataset, optional
        What `vico_lens.dominance` returned; computed from `influence` when None.
    verdict : object, optional
        What a judge said: ``tinyworld.judge(...)`` or a mapping with ``all_correct``, ``present``, ``attributes`` and
        ``failure``.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> import numpy as np
    >>> video = np.zeros((4, 16, 16, 3), np.uint8)
    >>> Outcome(video, influence).verdict is None
    True
    """

    video: Any
    influence: xr.DataArray
    dominance: xr.Dataset | None = None
    verdict: Any = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """A judge's verdict in the form the report writes.

    Attributes
    ----------
    correct : bool
        Everything as asked.
    failure : str
        Kind of failure in words, empty when correct.
    present : tuple of bool
        For each object asked for, whether it is in the video.
    attributes : tuple of dict
        For each object, its attributes and whether each is right.
    """

    correct: bool
    failure: str
    present: tuple[bool, ...]
    attributes: tuple[dict[str, bool], ...]


def ruling(verdict: Any) -> Ruling | None:
    """Read a verdict; None stays None.

    Raises
    ------
    InputError
        If it does not say whether all is correct.
    """
    if verdict is None:
        return None
    if isinstance(verdict, Mapping):
        fields = dict(verdict)
    elif is_dataclass(verdict) and not isinstance(verdict, type):
        fields = {
            name: getattr(verdict, name) for name in ("all_correct", "present", "attributes", "failure") if hasattr(verdict, name)
        }
    else:
        fields = {}
    if "all_correct" not in fields:
        raise InputError(f"a verdict must say all_correct, got {type(verdict).__name__} with {sorted(fields) or 'no fields'}.")
    present = fields.get("present") or ()
    attributes = fields.get("attributes") or ()
    failure = str(fields.get("failure") or "").replace("_", " ")
    return Ruling(
        correct=bool(fields["all_correct"]),
        failure="" if fields["all_correct"] else failure or "not as asked",
        present=tuple(bool(value) for value in (present.values() if isinstance(present, Mapping) else present)),
        attributes=tuple(
            {str(key): bool(value) for key, value in dict(one).items()}
            for one in (attributes.values() if isinstance(attributes, Mapping) else attributes)
        ),
    )
