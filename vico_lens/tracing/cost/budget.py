"""Bytes that a capture will take, site by site; and a refusal that says what would fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from vico_lens.errors import BudgetError
from vico_lens.tracing.attention_calls import Pass
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.cost.dry_forward import DryCalls, dry_calls
from vico_lens.vocabulary.schema import AttentionCall, AttentionSite, factor_dims, softmax_dims

__all__ = ["Cost", "check_budget", "cost_of", "halves_of", "site_bytes", "steps_of", "total_bytes"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of one site, one step, in either form, over all rows recorded.

    Attributes
    ----------
    call : AttentionCall
        One of its calls.
    rows : int
        Calls a step: prompt rows times guidance halves.
    weights, factors : int
        Bytes a step, as maps and as query and key; factors are 0 where the model gives its softmax only.
    """

    call: AttentionCall
    rows: int
    weights: int
    factors: int

    def stored(self, form: str) -> int:
        """Bytes a step in a form; ``auto`` is the smaller."""
        if not self.factors:
            return self.weights
        return {"weights": self.weights, "factors": self.factors}.get(form, min(self.weights, self.factors))


def cost_of(calls: Iterable[AttentionCall], capture: Capture, halves: int = 1) -> list[Cost]:
    """Return the cost of every site that a capture selects, in order of execution.

    Parameters
    ----------
    calls : iterable of AttentionCall
        Of one denoiser forward.
    capture : Capture
        What to record.
    halves : int
        Guidance halves that each call stands for.
    """
    costs: dict[str, Cost] = {}
    for call in calls:
        if not capture.wants(call.site):
            continue
        known = costs.get(call.site.module)
        if known is not None:
            rows = known.rows + halves
            costs[call.site.module] = replace(
                known, rows=rows, weights=known.weights // known.rows * rows, factors=known.factors // known.rows * rows
            )
            continue
        heads = capture.chosen_heads(call.site)
        sample = call.query if call.query is not None else call.probabilities
        assert sample is not None
        weights, factors = site_bytes(call.site, _itemsize(capture, sample.dtype), None if heads is None else len(heads))
        if capture.tokens is not None and call.site.kind == "cross":
            weights = weights // call.site.tokens * capture.most_tokens(call.site)
        factors = (
            0
            if call.query is None or (capture.tokens is not None and call.site.kind == "cross")
            else factors + (0 if call.bias is None else _distinct(call.bias) * 4)
        )
        costs[call.site.module] = Cost(call, halves, halves * weights, halves * factors)
    return list(costs.values())


def site_bytes(site: AttentionSite, itemsize: int, heads: int | None = None) -> tuple[int, int]:
    """Return the bytes of one call of a site, as its map and as its query and key.

    Examples
    --------
    >>> joint = AttentionSite("transformer.blocks.0.attn1", "joint", (13, 30, 45), 30, 64, 226, 0)
    >>> weights, factors = site_bytes(joint, 2)
    >>> round(weights / factors)
    139
    """
    values = (site.heads if heads is None else heads) * itemsize
    factors = sum(math.prod(site.shape(dims[1:])) for dims in factor_dims(site.kind).values())
    return values * math.prod(site.shape(softmax_dims(site.kind)[1:])), values * factors


def total_bytes(costs: Iterable[Cost], form: str, steps: int) -> int:
    """Sum the bytes of sites over steps."""
    return sum(cost.stored(form) for cost in costs) * steps


def check_budget(pipe: Any, moment: Pass, capture: Capture) -> None:
    """Refuse a capture that would not fit its budget.

    Raises
    ------
    BudgetError
        With the captures that would fit.
    """
    budget = capture.bytes
    if budget is None:
        return
    dry = dry_calls(pipe, moment, capture.branches)
    steps = steps_of(moment, capture)
    halves = halves_of(moment, dry, capture)
    need = total_bytes(cost_of(dry.calls, capture, halves), capture.store, steps)
    if need <= budget:
        return
    fits = []
    for words, other in _smaller(capture, steps):
        fewer = 1 if other.branch != capture.branch and halves > 1 else halves
        size = total_bytes(cost_of(dry.calls, other, fewer), other.store, steps_of(moment, other))
        if other.branch != capture.branch and halves == 1:
            size //= 2
        if 0 < size <= budget:
            fits.append(f"{words} ({_human(size)})")
    raise BudgetError(
        f"expected the capture to fit its budget of {_human(budget)}, but {steps} steps need {_human(need)}. "
        + (f"What would fit: {'; '.join(fits)}." if fits else "Not even one step of cross-attention would fit: raise the budget.")
    )


def steps_of(moment: Pass, capture: Capture) -> int:
    """Return how many denoising steps of the call of `moment` a capture records."""
    timesteps = None if moment.call is None else moment.call.timesteps
    return 1 if timesteps is None else len(capture.chosen_steps(len(timesteps)))


def halves_of(moment: Pass, dry: DryCalls, capture: Capture) -> int:
    """Return how many halves each dry call stands for: two where halves come in passes of their own and both are asked for."""
    labelled = {label[0] for label in moment.labels if label is not None}
    return len(capture.branches) if labelled != {"cond", "uncond"} else 1


def _smaller(capture: Capture, steps: int) -> list[tuple[str, Capture]]:
    """Captures that record less, the least loss first."""
    options: list[tuple[str, Capture]] = []
    if capture.store == "weights":
        options.append(('store="auto"', replace(capture, store="auto")))
    if capture.branch == "both":
        options.append(('branch="cond"', replace(capture, branch="cond")))
    if capture.dtype == "float32":
        options.append(('dtype="float16"', replace(capture, dtype="float16")))
    base = replace(capture, store="auto", branch="cond" if capture.branch == "both" else capture.branch)
    for every in (2, 5, 10, 25):
        if every < steps and capture.steps is None:
            options.append((f"steps=slice(0, None, {every})", replace(base, steps=slice(0, None, every))))
    options.append(("steps=-1", replace(base, steps=-1)))
    for kinds in (("cross", "temporal"), ("cross",)):
        if capture.kinds is None:
            options.append((f"kinds={kinds!r}", replace(base, kinds=kinds)))
    if capture.heads is None:
        options.append(("heads=[0]", replace(base, heads=[0])))
    options.append(("one step of one head: steps=-1, heads=[0]", replace(base, steps=-1, heads=[0])))
    return options


def _itemsize(capture: Capture, dtype: torch.dtype) -> int:
    if capture.dtype == "model":
        return min(4, dtype.itemsize)
    return 4 if capture.dtype == "float32" else 2


def _distinct(x: torch.Tensor) -> int:
    return math.prod(size for size, stride in zip(x.shape, x.stride(), strict=True) if stride)


def _human(size: int) -> str:
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"
