"""What takes long to compute when a page opens: the page says its cost, and a button computes it, with progress and cancel."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import streamlit as st
import xarray as xr

from shared import notices, runner
from shared.budget import step_bytes
from shared.methods import READING
from shared.opening import Opened

__all__ = ["costly", "costly_influence"]

T = TypeVar("T")
_KEPT = "costly_results"
_MOST = 8  # results a session keeps
_COPIES = 3  # of one part's attention that are in memory while it is computed


def costly(
    key: str, what: str, size: int, parts: Sequence[Callable[[], T]], join: Callable[[list[T]], T], advice: str
) -> T | None:
    """Return the result if it was computed before; else say what it costs and offer to compute it.

    Parameters
    ----------
    key : str
        Names the result: trace, version and all that is computed.
    what : str
        What would be computed, as the subject of a sentence.
    size : int
        Bytes of attention that one part computes on.
    parts : sequence of callable
        The work in parts, between which it can be cancelled.
    join : callable
        Makes the result of the parts' results.
    advice : str
        What else the reader can do.
    """
    results: dict[str, Any] = st.session_state.setdefault(_KEPT, {})
    job = f"costly {key}"
    done = runner.finished(job)
    if done is not None:
        results[key] = done
        while len(results) > _MOST:
            results.pop(next(iter(results)))
    if key in results:
        kept: T = results[key]
        return kept
    if runner.running(job):
        runner.watch(job)
        return None
    cost = f"{what} computes on {_bytes(size)} of attention" + (f", {len(parts)} times" if len(parts) > 1 else "") + "."
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    if free and _COPIES * size > free:
        notices.too_large(cost, f"This machine has {_bytes(free)} of memory free, which is not enough. {advice}")
        return None
    notices.too_large(cost, f"It can be computed anyway, and cancelled. {advice}")
    if st.button("Compute anyway", key=f"ask {job}"):
        runner.begin_without_model(job, lambda progress: join(_in_turn(parts, what, progress)))
    return None


def costly_influence(opened: Opened, method: str, names: tuple[str, ...], advice: str, **options: Any) -> xr.DataArray | None:
    """Return influence over all steps of a trace that is too large to compute on when a page opens; None until it was asked for.

    Parameters
    ----------
    opened, method, names
        Trace, attribution method and concepts.
    advice : str
        What else the reader can do.
    **options
        As in `vico_lens.attribute`; ``steps`` selects some.
    """
    chosen = options.pop("steps", None) or [int(step) for step in opened.tree.coords["step"].values]

    def one(step: int) -> xr.DataArray:
        import vico_lens as vl

        return vl.attribute(opened.tree, method, list(names), steps=[step], **options)

    return costly(
        f"{opened.key} {method} {names} {chosen} {options}",
        READING[method].title,
        step_bytes(opened.tree, method),
        [partial(one, step) for step in chosen],
        lambda parts: xr.concat(parts, "step", combine_attrs="override"),
        advice,
    )


def _in_turn(parts: Sequence[Callable[[], T]], what: str, progress: runner.Progress) -> list[T]:
    results = []
    for number, part in enumerate(parts):
        progress.report(f"{what}: part {number + 1} of {len(parts)}", number, len(parts))
        results.append(part())
    progress.check()
    return results


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
