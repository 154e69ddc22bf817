"""What a capture will cost, before it runs; and a refusal that says what would fit."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vico_lens.capture import Capture
from vico_lens.dry import DryCalls, dry_calls, first_moment
from vico_lens.errors import BudgetError
from vico_lens.kernels.softmax import attention_columns
from vico_lens.schema import AttentionCall, AttentionSite
from vico_lens.watch import Moment

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Cost", "check_budget", "cost_of", "estimate", "site_bytes", "total_bytes"]


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
        factors = 0 if call.query is None else factors + (0 if call.bias is None else _distinct(call.bias) * 4)
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
    frames, rows, columns = site.grid
    text = site.tokens if site.kind == "joint" else 0
    queries = site.cells + text
    keys = {
        "cross": site.tokens,
        "spatial": rows * columns,
        "temporal": frames,
        "spacetime": queries,
        "joint": queries,
    }[site.kind]
    distinct = site.tokens if site.kind == "cross" else queries
    values = (site.heads if heads is None else heads) * itemsize
    return values * queries * keys, values * (queries + distinct) * site.head_size


def total_bytes(costs: Iterable[Cost], form: str, steps: int) -> int:
    """Sum the bytes of sites over steps."""
    return sum(cost.stored(form) for cost in costs) * steps


def estimate(pipe: Any, prompt: str | list[str], *, capture: Capture | None = None, **call: Any) -> xr.Dataset:
    """Say what tracing a pipeline call would take, without running the model.

    Parameters
    ----------
    pipe : diffusers pipeline
        The pipeline.
    prompt : str or list of str
        As for the call.
    capture : Capture or None
        What would be recorded; None for everything.
    **call
        Other arguments of the call (``num_frames``, ``height``, ``num_inference_steps``).

    Returns
    -------
    xarray.Dataset
        Along ``site``: ``kind``, ``frames``, ``rows``, ``columns``, ``tokens``, ``heads``, ``head_size``, and for the whole run
        ``weights_bytes``, ``factors_bytes``, ``stored_bytes``, before compression. Scalars: ``total_bytes``, ``seconds``
        (processor time of computing the maps that are stored as maps, and of copying, compressing and writing, measured on
        this machine; the model's own time is not in it), ``steps``. Attributes: ``capture``, and ``forward``: fake or real.

    Raises
    ------
    TracingError
        If the pipeline is not known and its attention cannot be classified.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> table = estimate(tiny.pipe, tiny.prompt, capture=Capture(steps=[0]), height=64, width=96)
    >>> sorted(set(table.kind.values.tolist())), bool(table.total_bytes == table.stored_bytes.sum())
    (['cross', 'spatial', 'temporal'], True)
    """
    import xarray as xr

    capture = capture or Capture()
    call = {"generator": torch.Generator().manual_seed(0)} | call
    moment = first_moment(pipe, lambda: pipe(prompt=prompt, **call))
    dry = dry_calls(pipe, moment, capture.branches)
    costs = cost_of(dry.calls, capture, _halves(moment, dry, capture))
    steps = _steps(moment, capture)
    columns: dict[str, list[Any]] = {
        "kind": [cost.call.site.kind for cost in costs],
        **{name: [cost.call.site.grid[axis] for cost in costs] for axis, name in enumerate(("frames", "rows", "columns"))},
        **{name: [getattr(cost.call.site, name) for cost in costs] for name in ("tokens", "heads", "head_size")},
        "weights_bytes": [cost.weights * steps for cost in costs],
        "factors_bytes": [cost.factors * steps for cost in costs],
        "stored_bytes": [cost.stored(capture.store) * steps for cost in costs],
    }
    total = total_bytes(costs, capture.store, steps)
    return xr.Dataset(
        {name: ("site", np.array(values)) for name, values in columns.items()}
        | {"total_bytes": total, "seconds": round(_seconds(costs, capture, steps), 6), "steps": steps},
        coords={"site": [cost.call.site.module for cost in costs]},
        attrs={"capture": capture.to_json(), "forward": "real" if dry.real else "fake", "pipeline": type(pipe).__name__},
    )


def check_budget(pipe: Any, moment: Moment, capture: Capture) -> None:
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
    steps = _steps(moment, capture)
    halves = _halves(moment, dry, capture)
    need = total_bytes(cost_of(dry.calls, capture, halves), capture.store, steps)
    if need <= budget:
        return
    fits = []
    for words, other in _smaller(capture, steps):
        fewer = 1 if other.branch != capture.branch and halves > 1 else halves
        size = total_bytes(cost_of(dry.calls, other, fewer), other.store, _steps(moment, other))
        if other.branch != capture.branch and halves == 1:
            size //= 2
        if 0 < size <= budget:
            fits.append(f"{words} ({_human(size)})")
    raise BudgetError(
        f"expected the capture to fit its budget of {_human(budget)}, but {steps} steps need {_human(need)}. "
        + (f"What would fit: {'; '.join(fits)}." if fits else "Not even one step of cross-attention would fit: raise the budget.")
    )


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


def _steps(moment: Moment, capture: Capture) -> int:
    timesteps = None if moment.call is None else moment.call.timesteps
    return 1 if timesteps is None else len(capture.chosen_steps(len(timesteps)))


def _halves(moment: Moment, dry: DryCalls, capture: Capture) -> int:
    """Halves that each dry call stands for: two where the halves come in passes of their own and both are asked for."""
    labelled = {label[0] for label in moment.labels if label is not None}
    return len(capture.branches) if labelled != {"cond", "uncond"} else 1


def _itemsize(capture: Capture, dtype: torch.dtype) -> int:
    if capture.dtype == "model":
        return min(4, dtype.itemsize)
    return 4 if capture.dtype == "float32" else 2


def _distinct(x: torch.Tensor) -> int:
    return math.prod(size for size, stride in zip(x.shape, x.stride(), strict=True) if stride)


def _seconds(costs: Iterable[Cost], capture: Capture, steps: int) -> float:
    """Processor time of a run: what is written, and the softmax of the sites that are stored as maps."""
    costs = list(costs)
    written = total_bytes(costs, capture.store, steps) / _bytes_a_second()
    values: dict[tuple[int, torch.dtype], float] = {}
    for cost in costs:
        query = cost.call.query
        if query is not None and cost.stored(capture.store) == cost.weights:
            kind = (cost.call.site.head_size, query.dtype)
            values[kind] = values.get(kind, 0.0) + cost.weights / _itemsize(capture, query.dtype)
    return written + steps * sum(count / _weights_a_second(*kind) for kind, count in values.items())


def _weights_a_second(head_size: int, dtype: torch.dtype) -> float:
    """Attention weights that this machine computes a second of processor time: the best of a few maps of 256 by 256."""
    query = torch.randn(8, 256, head_size, generator=torch.Generator().manual_seed(0)).to(dtype)
    best = math.inf
    for _ in range(4):
        start = time.process_time()  # not this thread's alone: torch may compute on several
        maps = attention_columns(query.clone(), query.clone(), head_size**-0.5, None).to(dtype)
        best = min(best, time.process_time() - start)
    return maps.numel() / best


def _bytes_a_second() -> float:
    """Bytes that this machine copies, compresses and writes a second of processor time: the best of a few files."""
    from numcodecs.blosc import Blosc  # type: ignore[import-untyped]

    sample = np.random.default_rng(0).standard_normal(2**18, dtype=np.float32)
    codec, best = Blosc(cname="lz4", clevel=3, shuffle=Blosc.BITSHUFFLE), math.inf
    with tempfile.TemporaryDirectory() as folder:
        for number in range(4):
            start = time.thread_time()
            Path(folder, str(number)).write_bytes(codec.encode(sample.copy()))
            best = min(best, time.thread_time() - start)
    return sample.nbytes / best


def _human(size: int) -> str:
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"
