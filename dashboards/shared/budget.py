"""How much of a trace a page computes on when it opens: a page opens in seconds, whatever the size of the trace.

What a method takes follows from the sizes that the trace declares, without reading anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from vico_lens.store.layout import attention_groups

__all__ = ["UNASKED", "Plan", "frame_bytes", "plan", "step_bytes"]

UNASKED = 96 << 20
"""Bytes of attention that a page computes on when it opens."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a page computes when it opens.

    Attributes
    ----------
    method : str or None
        Attribution method; None if even summed cross-attention would take too much.
    steps : tuple of int or None
        Steps it is computed on; None for all.
    asked_bytes : int
        Bytes of attention in one step of the method that was asked for.
    """

    method: str | None
    steps: tuple[int, ...] | None
    asked_bytes: int


def step_bytes(tree: xr.DataTree, method: str | None = None) -> int:
    """Bytes of attention that a method computes on in one step; of all that was recorded without a method.

    Summed cross-attention reads what places pay to text: the maps of cross sites, and of joint sites the block over text alone.
    """
    return sum(_bytes_of(node, kind, method) for _, kind, _, node in attention_groups(tree))


def frame_bytes(tree: xr.DataTree) -> int:
    """Bytes of one step in which frames are connected, which `temporal_matrix` reads."""
    kinds = {"temporal": "weights", "spacetime": "weights", "joint": "video_video"}
    return sum(_step(node[kinds[kind]]) for _, kind, _, node in attention_groups(tree) if kind in kinds)


def _bytes_of(node: xr.DataTree, kind: str, method: str | None) -> int:
    if method != "cross_attention":
        return sum(_step(array) for array in node.data_vars.values())
    names = {"cross": "weights", "joint": "video_text"}
    return _step(node[names[kind]]) if kind in names else 0


def _step(array: xr.DataArray) -> int:
    return int(array.nbytes) // max(1, array.sizes["step"])


def plan(tree: xr.DataTree, method: str, limit: int = UNASKED) -> Plan:
    """Choose what to compute unasked: the method on as many steps as fit, else a look at one step, else nothing.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> plan(fake_trace(steps=(0, 1, 2)), "rollout")
    Plan(method='rollout', steps=None, asked_bytes=24064)
    >>> plan(fake_trace(steps=(0, 1, 2)), "rollout", limit=50_000).steps
    (0, 2)
    """
    labels = [int(step) for step in tree.coords["step"].values]
    whole = step_bytes(tree, method)
    fitting = min(len(labels), limit // max(1, whole))
    if fitting == len(labels):
        return Plan(method, None, whole)
    if fitting:
        chosen = np.unique(np.linspace(0, len(labels) - 1, fitting).round().astype(int)) if fitting > 1 else [len(labels) // 2]
        return Plan(method, tuple(labels[index] for index in chosen), whole)
    if labels and step_bytes(tree, "cross_attention") <= limit:
        return Plan("cross_attention", (labels[len(labels) // 2],), whole)
    return Plan(None, None, whole)
