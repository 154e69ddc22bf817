"""How much of a trace a page may read before it is asked to: a page opens in seconds, whatever the size of the trace.

Attribution reads every weight of a step, so what it takes is told by the sizes that the trace declares, without reading anything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import xarray as xr

from vico_lens.store.layout import attention_groups

__all__ = ["UNASKED", "Plan", "plan", "step_bytes"]

UNASKED = 96 << 20
"""Bytes of attention that a page computes on without being asked."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a page computes when it opens.

    Attributes
    ----------
    method : str or None
        Attribution method; None if even the cheapest would take too much.
    steps : tuple of int or None
        Steps it is computed on; None for all.
    asked_bytes : int
        What one step of the method that was asked for would take.
    """

    method: str | None
    steps: tuple[int, ...] | None
    asked_bytes: int


def step_bytes(tree: xr.DataTree, kinds: Collection[str] | None = None) -> int:
    """Bytes of the weights of one step in memory, of sites of these kinds (all if None)."""
    total = 0
    for _, kind, _, node in attention_groups(tree):
        if kinds is None or kind in kinds:
            total += sum(int(array.nbytes) // max(1, array.sizes["step"]) for array in node.data_vars.values())
    return total


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
    cheapest = ("cross", "joint")
    whole = step_bytes(tree, cheapest if method == "cross_attention" else None)
    fitting = min(len(labels), limit // max(1, whole))
    if fitting == len(labels):
        return Plan(method, None, whole)
    if fitting:
        chosen = np.unique(np.linspace(0, len(labels) - 1, fitting).round().astype(int)) if fitting > 1 else [len(labels) // 2]
        return Plan(method, tuple(labels[index] for index in chosen), whole)
    if labels and step_bytes(tree, cheapest) <= limit:
        return Plan("cross_attention", (labels[len(labels) // 2],), whole)
    return Plan(None, None, whole)
