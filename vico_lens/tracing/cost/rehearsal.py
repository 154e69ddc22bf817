"""What tracing costs in time, by rehearsing it: the attention calls of a denoising step, on random numbers, into a scratch store.

The parts of tracing cost very differently from one machine to the next (memory, caches, compression, file system), and their sum
is not the sum of what each takes alone. So the very code of a trace runs on tensors laid out as the model's, and is timed. Large
calls are rehearsed in part and their time is scaled: fewer heads, fewer of many layers that are alike, and, for maps that would
not fit in memory, a smaller grid.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from vico_lens.store.forms import factor_dims
from vico_lens.store.layout import bias_dims
from vico_lens.store.writer import TraceWriter
from vico_lens.tracing.attention_calls import Pass, Watch
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.cost.budget import Cost, site_bytes
from vico_lens.tracing.cost.dry_forward import DryCalls
from vico_lens.tracing.interception import intercept
from vico_lens.tracing.raw_calls import Attended
from vico_lens.vocabulary.schema import AttentionCall, AttentionSite, TokenKind, TokenTable

__all__ = ["rehearse"]

_CALL = 16 << 20
"""Bytes up to which a call is rehearsed with all its heads."""

_MAP = 64 << 20
"""Bytes up to which the map of one head is rehearsed on the whole grid."""

_ALIKE = 32 << 20
"""Bytes up to which all sites that are alike are rehearsed."""

_CACHES = 32 << 20
"""Bytes that fill the caches of a processor."""

_STEPS = 4
"""Steps rehearsed: the first makes the arrays, the median of the others stands for all that follow."""


def rehearse(
    pipe: Any, moment: Pass, dry: DryCalls, costs: Iterable[Cost], capture: Capture, *, steps: int, halves: int, passes: int
) -> float:
    """Return the processor time that tracing to disk adds to a pipeline call on this machine, in seconds.

    Parameters
    ----------
    pipe : object
        The pipeline.
    moment : Pass
        Its first denoiser forward.
    dry : DryCalls
        What that forward does.
    costs : iterable of Cost
        Bytes of each site that the capture selects.
    capture : Capture
        What would be recorded.
    steps : int
        Steps that would be recorded.
    halves : int
        Forwards a step that would be recorded, in passes of their own.
    passes : int
        Forwards in the whole call, recorded or not.

    Notes
    -----
    Takes a second or two, for a model at its native size several; and some hundred megabytes. Torch's own random numbers are
    not drawn from.
    """
    parts = _parts(dry, {cost.call.site.module: cost for cost in costs}, capture, next(iter(Watch(pipe, _ignore).roots)))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        _play(pipe, moment, dry, capture, parts, Path(folder, "warm"), 1)
        first, *others = _play(pipe, moment, dry, capture, parts, Path(folder, "timed"), min(steps, _STEPS))
    later = median(others) if others else 0.0
    return halves * (first + (steps - 1) * later) + passes * dry.functions * _watching()


@dataclass(frozen=True, slots=True)
class _Part:
    """One execution of an attention module to rehearse.

    Attributes
    ----------
    run : Attended
        With numbers, and the first heads only.
    site : AttentionSite or None
        What is written of it; None if it is not recorded.
    times : float
        How many times its time counts.
    """

    run: Attended
    site: AttentionSite | None
    times: float


def _parts(dry: DryCalls, costs: dict[str, Cost], capture: Capture, root: str) -> list[_Part]:
    """Cut large calls down to a few heads, and many large calls that are alike to a few."""
    known = [(run, costs.get(f"{root}.{run.module}")) for run in dry.runs]
    alike = Counter(_likeness(run, cost) for run, cost in known)
    taken: Counter[object] = Counter()
    parts: list[_Part] = []
    for run, cost in known:
        kind, site, heads, times, size = _likeness(run, cost), None, 1, 1.0, 1
        if cost is not None:
            whole = cost.stored(capture.store)
            chosen = capture.chosen_heads(cost.call.site)
            recorded = cost.call.site.heads if chosen is None else len(chosen)
            per_head = max(1, whole // cost.rows // recorded)
            heads = recorded if run.pieces else min(recorded, max(_CALL // per_head, _fewest(cost)))
            site = replace(cost.call.site, heads=heads)
            size = heads * per_head * cost.rows
            times = recorded / heads
            if whole == cost.weights and cost.factors:  # a map that is computed: its work goes with its size
                site = _smaller(site)
                times *= site_bytes(cost.call.site, 1, heads)[0] / site_bytes(site, 1, heads)[0]
        enough = min(alike[kind], max(2, _ALIKE // max(size, _bytes(run, heads))))
        if taken[kind] < enough:
            taken[kind] += 1
            parts.append(_Part(_numbers(run, heads), site, times * alike[kind] / enough))
    return parts


def _fewest(cost: Cost) -> int:
    """The fewest heads for which factors are still the smaller form: a mask that all heads share counts once."""
    map_of_one, factors_of_one = site_bytes(cost.call.site, 1, 1)
    if cost.call.bias is None or map_of_one <= factors_of_one:
        return 1
    return 1 + cost.call.bias.numel() // (map_of_one - factors_of_one)


def _bytes(run: Attended, heads: int) -> int:
    """Bytes of what a run hands over, of its first heads only."""
    tensors = [x for call in run.calls for x in (call.query, call.key, call.probabilities) if x is not None]
    return sum(x.nbytes for x in run.pieces) + sum(x.nbytes // x.shape[1] * min(heads, x.shape[1]) for x in tensors)


def _likeness(run: Attended, cost: Cost | None) -> object:
    """What calls have in common that cost the same: a site that is not recorded is like no recorded one."""
    tensors = [x for call in run.calls for x in (call.query, call.key, call.probabilities, call.mask)]
    layouts = [None if x is None else (x.shape, x.stride(), x.dtype) for x in (*tensors, *run.pieces)]
    return None if cost is None else replace(cost.call.site, module="", order=0), *layouts


def _smaller(site: AttentionSite) -> AttentionSite:
    """Halve the longest side of the grid until the map of a head is small enough."""
    while site_bytes(site, 4, 1)[0] > _MAP and max(site.grid) > 1:
        longest = site.grid.index(max(site.grid))
        frames, rows, columns = (-(-size // 2) if axis == longest else size for axis, size in enumerate(site.grid))
        site = replace(site, grid=(frames, rows, columns))
    return site


def _numbers(run: Attended, heads: int) -> Attended:
    """Fill a call with random numbers, in the model's memory order; of its heads, the first few."""
    device = next((p.device for p in run.owner.parameters() if not p.is_meta), torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(0)

    def fill(x: Tensor | None, *, mask: bool = False) -> Tensor | None:
        if x is None:
            return None
        if x.ndim == 4 and not run.pieces:
            x = x[:, :heads]
        if not x.is_meta:
            return x
        order = sorted(range(x.ndim), key=x.stride, reverse=True)
        sizes = [x.shape[axis] if x.stride(axis) else 1 for axis in order]
        if mask:  # one that lets everything through: random numbers would be masks of their own
            values = torch.full(sizes, float(x.dtype == torch.bool), dtype=x.dtype, device=device)
        else:
            values = torch.randn(sizes, generator=generator, device=device).to(x.dtype)
        return values.permute([order.index(axis) for axis in range(x.ndim)]).expand(x.shape)

    calls = [
        replace(
            raw,
            query=fill(raw.query),
            key=fill(raw.key),
            mask=fill(raw.mask, mask=True),
            probabilities=fill(raw.probabilities),
        )
        for raw in run.calls
    ]
    return replace(run, calls=calls, pieces=[piece for x in run.pieces if (piece := fill(x)) is not None])


def _play(
    pipe: Any, moment: Pass, dry: DryCalls, capture: Capture, parts: Sequence[_Part], folder: Path, steps: int
) -> list[float]:
    """Write some steps of the parts as a trace would, and return the processor time of each, scaled to all that it stands for."""
    labels: Any = dry.labels  # a row of neither half is None, which only a forward within a pipeline call may have
    writer = TraceWriter(folder, form=capture.store, dtype=capture.dtype)
    known = [label for label in dry.labels if label is not None]
    asked = [branch for branch in capture.branches if branch in {half for half, _ in known}] or ["cond"]
    longest = max((call.site.tokens for call in dry.calls), default=0)
    padding: list[TokenKind] = ["padding"] * longest
    nothing, nowhere = ("",) * longest, (-1,) * longest
    tokens = TokenTable(nothing, tuple(padding), nothing, nowhere, nowhere, nowhere)
    elsewhere = torch.zeros(_CACHES // 4)
    start = time.process_time()
    writer.start({}, [tokens], prompts=1 + max(row for _, row in known), branches=asked)
    seconds, opening = [], time.process_time() - start
    sites = {part.site.module: part.site for part in parts if part.site is not None}

    def emit(call: AttentionCall) -> None:
        writer.write(_crop(call, sites[call.site.module]))

    try:
        for step in range(steps):
            watch = Watch(pipe, emit, asked, capture.wants, rows=labels, step=step, timestep=0.0, forward=moment.forward)
            total, before = 0.0, time.process_time()
            watch.enter(moment.denoiser, moment.forward.module, (), {})
            total += time.process_time() - before
            for part in parts:
                elsewhere.add_(1)  # a model that computes in between leaves nothing of a call in the caches
                before = time.process_time()
                watch.attended(part.run)
                writer.flush()
                total += part.times * (time.process_time() - before)
            before = time.process_time()
            writer.finish_step(step)
            writer.flush()
            seconds.append(total + time.process_time() - before)
    finally:
        start = time.process_time()
        writer.close(complete=False)
        opening += time.process_time() - start
    seconds[0] += opening
    return seconds


def _crop(call: AttentionCall, site: AttentionSite) -> AttentionCall:
    """Cut a call down to the grid of `site`."""
    if call.site.grid == site.grid:
        return call
    sizes = dict(zip(("frame", "y", "x"), site.grid, strict=True))
    sizes |= {f"key_{name}": size for name, size in sizes.items()}
    sizes |= dict.fromkeys(("sequence", "key_sequence"), site.tokens + site.cells)
    factors = factor_dims(site.kind, framed=site.kind == "cross" and call.key is not None and call.key.ndim == 4)

    def cut(x: Tensor | None, dims: Sequence[str]) -> Tensor | None:
        return None if x is None else x[tuple(slice(sizes.get(dim)) for dim in dims)]

    query, key, bias = cut(call.query, factors["query"]), cut(call.key, factors["key"]), cut(call.bias, bias_dims(site.kind))
    return replace(call, site=site, query=query, key=key, bias=bias)


class _Modest(nn.Module):
    """A module of a few small operations, as denoisers have many: what hooks and mode cost shows on it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()

    def forward(self, x: Tensor) -> Tensor:
        """Do next to nothing, ten times."""
        for _ in range(10):
            x = x + 1
        return x


class _Deaf:
    """An observer that does nothing."""

    def enter(self, denoiser: str, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None: ...

    def attended(self, run: Attended) -> None: ...

    def leave(self, denoiser: str, *, failed: bool) -> None: ...


def _ignore(call: AttentionCall) -> None: ...


def _watching() -> float:
    """Processor time that being watched costs a call of a torch function, hooks of the modules included."""
    root = nn.Sequential(*(_Modest() for _ in range(20)))
    x, best = torch.zeros(1), [math.inf, math.inf]
    for _ in range(10):
        start = time.process_time()
        root(x)
        between = time.process_time()
        with intercept({"root": root}, _Deaf()):
            middle = time.process_time()
            root(x)
            end = time.process_time()
        best = [min(best[0], between - start), min(best[1], end - middle)]
    return max(0.0, best[1] - best[0]) / 200
