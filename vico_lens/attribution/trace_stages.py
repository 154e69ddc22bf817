"""Stages from a stored trace: the same list that `vico_lens.kernels.stages.stages_from_calls` makes from live attention calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vico_lens.errors import AttributionError, InputError
from vico_lens.kernels.deferred import Cost, DeferredOperator
from vico_lens.kernels.dense import DenseOperator
from vico_lens.kernels.factored import FactorOperator
from vico_lens.kernels.operators import Operator
from vico_lens.kernels.stages import Grid, Heads, Stage, resample
from vico_lens.store.selection import Layers, Record, group_data, records, select_run
from vico_lens.store.stored_factors import StoredFactors, factors_of
from vico_lens.vocabulary.schema import JOINT_BLOCKS, Kind

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["GridChoice", "choose_grid", "stages_from_trace"]

GridChoice = Grid | str | None


def choose_grid(sites: Sequence[Record], grid: GridChoice = None) -> Grid:
    """Resolve a grid request: ``None`` or ``"finest"``, ``"coarsest"``, ``"8x4x4"``, or (frames, rows, columns).

    The named choices look at the sites that read text, where there are any: influence starts there.
    """
    grids = [site.grid for site in sites if site.kind in ("cross", "joint")] or [site.grid for site in sites]
    if grid is None or grid == "finest":
        return max(grids, key=lambda sizes: (int(np.prod(sizes)), sizes))
    if grid == "coarsest":
        return min(grids, key=lambda sizes: (int(np.prod(sizes)), sizes))
    sizes = grid.split("x") if isinstance(grid, str) else list(grid)
    if len(sizes) != 3 or not all(str(size).isdigit() and int(size) > 0 for size in sizes):
        raise InputError(
            f"grid: expected 'finest', 'coarsest', 'FxYxX' or three positive integers (frames, rows, columns); got {grid!r}."
        )
    frames, rows, columns = (int(size) for size in sizes)
    return frames, rows, columns


def stages_from_trace(
    tree: xr.DataTree,
    step: int,
    *,
    layers: Layers = None,
    kinds: Collection[Kind] | None = None,
    heads: Heads = None,
    grid: GridChoice = "finest",
    branch: str | None = None,
    prompt: int | None = None,
    device: str | torch.device | None = None,
    on_read: Callable[[], None] | None = None,
) -> list[Stage]:
    """Make stages from one step of a trace, in execution order, on one grid.

    Parameters
    ----------
    tree : DataTree
        A trace, in memory or opened from disk; only the selected sites and heads of `step` are read.
    step : int
        Denoising step, a value of the trace's `step` coordinate.
    layers, kinds : optional
        Selection of sites, see `records`.
    heads : int or sequence of int, optional
        Heads to average, by their number in the model; all recorded ones by default.
    grid : str or tuple of int, optional
        Grid to bring every site to (see `choose_grid`); ``None`` keeps each site's own.
    branch : str, optional
        Guidance branch, ``cond`` unless the trace holds only the other.
    prompt : int, optional
        Row of a batched trace; needed when it holds several.
    device : str or torch.device, optional
        Where the stages compute; where the trace was opened by default.
    on_read : callable, optional
        Called each time a site is read; what it raises stops the run.

    Returns
    -------
    list of Stage
        float32, or float64 where the trace holds that. Nothing is read yet: each stage reads its site when it is asked.

    Raises
    ------
    AttributionError
        If a recorded map is not finite, or a kind asked for is absent.
    InputError
        If a step, branch, prompt, head or layer asked for was not captured.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> stages = stages_from_trace(fake_trace(), 1, kinds=("cross", "temporal"))
    >>> [(stage.kind, tuple(stage.weights.shape)) for stage in stages][:2]
    [('cross', (4, 16, 20)), ('temporal', (16, 4, 4))]
    """
    sites = records(tree, layers=layers, kinds=kinds)
    target = None if grid is None else choose_grid(sites, grid)
    holes = tree.attrs.get("missing")
    stages = []
    for site in sites:
        data = group_data(tree, site.group)
        data = select_run(data, step=step, branch=branch, prompt=prompt, layer=site.layer, heads=heads)
        operator = _operator(data, _Reading(site, step, device, holes, on_read))
        stage = Stage(site.kind, site.module, site.order, site.grid, operator)
        stages.append(stage if target is None else resample(stage, target))
    return stages


@dataclass(frozen=True, slots=True)
class _Reading:
    """One site at one step that a stage will read: where it computes, what the run left out, and whom to tell of each read."""

    site: Record
    step: int
    device: str | torch.device | None
    holes: object
    on_read: Callable[[], None] | None

    def begin(self) -> None:
        """Tell that the site is read now."""
        if self.on_read is not None:
            self.on_read()

    def not_finite(self) -> AttributionError:
        """The error for NaN: the steps that the run left out, where the trace knows of any, or too narrow a dtype."""
        advice = "Trace in float32."
        if self.holes:
            advice = f"The run did not compute all of it (steps without: {self.holes}): choose others."
        return AttributionError(
            f"expected finite attention weights; {self.site.module} at step {self.step} holds NaN or infinity. {advice}"
        )


def _operator(data: xr.Dataset, reading: _Reading) -> Operator:
    """What one call of a trace answers with: its factors, read when asked, or else the head mean of its weights."""
    site = reading.site
    if site.kind == "joint":
        missing = [name for name in JOINT_BLOCKS if name not in data]
        if missing:
            raise AttributionError(
                f"expected the four blocks of a joint softmax in {site.group}; missing: {', '.join(missing)}. Trace it again."
            )
    stored = factors_of(data["video_video" if site.kind == "joint" else "weights"])
    default = "cpu" if stored is None else stored.device
    where = torch.device(default if reading.device is None else reading.device)
    if stored is not None:
        return DeferredOperator(lambda: _of_factors(stored, reading, where), stored.shape, torch.float32, where, _cost(stored))
    names = JOINT_BLOCKS if site.kind == "joint" else ("weights",)
    dtype = torch.float64 if any(data[name].dtype == np.float64 for name in names) else torch.float32
    shape = _shape_of(data, site)
    whole = sum(0 if data[name].variable._in_memory else data[name].size * 4 for name in names)
    cost = Cost(whole, whole + prod(shape) * dtype.itemsize, 0)
    return DeferredOperator(lambda: _of_weights(data, reading, shape, where), shape, dtype, where, cost)


def _cost(stored: StoredFactors) -> Cost:
    batch, queries, keys = stored.shape
    numbers = len(stored.heads) * batch * stored.head_size
    read = numbers * (queries + keys) * stored.itemsize
    # The factors as read, and some heads of query, key and result in float32.
    return Cost(read, 2 * read + min(1 << 28, 4 * numbers * (2 * queries + keys)), 2 * numbers * queries * keys)


def _of_factors(stored: StoredFactors, reading: _Reading, device: torch.device) -> Operator:
    reading.begin()
    query, key, scale, bias = stored.read("cpu")
    if not (bool(torch.isfinite(query).all()) and bool(torch.isfinite(key).all())):
        raise reading.not_finite()
    return FactorOperator(query.to(device), key.to(device), scale, None if bias is None else bias.to(device))


def _shape_of(data: xr.Dataset, site: Record) -> tuple[int, int, int]:
    """Batch, queries and keys of a map that is stored."""
    frames, cells = site.grid[0], site.grid[1] * site.grid[2]
    tokens = data.sizes.get("token", 0)
    shapes = {
        "cross": (1, frames * cells, tokens),
        "spatial": (frames, cells, cells),
        "temporal": (cells, frames, frames),
        "spacetime": (1, frames * cells, frames * cells),
        "joint": (1, tokens + frames * cells, tokens + frames * cells),
    }
    return shapes[site.kind]


def _of_weights(data: xr.Dataset, reading: _Reading, shape: tuple[int, int, int], device: torch.device) -> Operator:
    reading.begin()
    weights = _joint(data, reading.site) if reading.site.kind == "joint" else _head_mean(data["weights"])
    if not bool(torch.isfinite(weights).all()):
        raise reading.not_finite()
    return DenseOperator(weights.reshape(shape).to(device))


def _head_mean(weights: xr.DataArray) -> Tensor:
    """Mean over heads as a tensor, float32 or wider, in the order of the array's other dimensions."""
    values: np.ndarray[Any, Any] = np.asarray(weights.transpose("head", ...).values)
    return torch.from_numpy(np.ascontiguousarray(values.mean(0, dtype=np.promote_types(values.dtype, np.float32))))


def _joint(data: xr.Dataset, site: Record) -> Tensor:
    """Put the four blocks of a joint softmax together again, text first: ``[T + N, T + N]``."""
    tokens, volume = data.sizes["token"], int(np.prod(site.grid))
    sizes = {
        "video_text": (volume, tokens),
        "text_video": (tokens, volume),
        "text_text": (tokens, tokens),
        "video_video": (volume, volume),
    }
    block = {name: _head_mean(data[name]).reshape(sizes[name]) for name in JOINT_BLOCKS}
    text = torch.cat([block["text_text"], block["text_video"]], 1)
    return torch.cat([text, torch.cat([block["video_text"], block["video_video"]], 1)], 0)
