"""Stages from a stored trace: the same list that `vico_lens.kernels.stages.stages_from_calls` makes from live attention calls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vico_lens.errors import AttributionError, InputError
from vico_lens.kernels.stages import Grid, Heads, Stage, resample, stage_shape
from vico_lens.vocabulary.schema import JOINT_BLOCKS, KINDS, Kind, group_name, parse_group

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["GridChoice", "Layers", "Record", "choose_grid", "matches", "records", "stages_from_trace", "text_coordinate"]

Layers = str | int | Sequence[str | int] | None
GridChoice = Grid | str | None


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded attention site of a trace: what it is, and which entry of which group holds it."""

    kind: Kind
    grid: Grid
    module: str
    order: int
    layer: int

    @property
    def group(self) -> str:
        """Name of the trace group, such as ``cross/8x8x8``."""
        return group_name(self.kind, self.grid)


def records(tree: xr.DataTree, *, layers: Layers = None, kinds: Collection[Kind] | None = None) -> list[Record]:
    """List the sites of a trace in execution order, after selection.

    Parameters
    ----------
    tree : DataTree
        A trace.
    layers : str, int or sequence of them, optional
        Glob patterns on the module path or on the group name (``"*up_blocks*"``, ``"*8x4x4"``), or places in the execution order.
    kinds : collection of str, optional
        Kinds of site to keep; all by default.

    Raises
    ------
    AttributionError
        If the trace holds none of `kinds`.
    InputError
        If `tree` is not a trace, or `layers` selects nothing.
    """
    if not hasattr(tree, "subtree"):
        raise InputError(f"expected a trace (an xarray.DataTree); got {type(tree).__name__}. Open one with vico_lens.open_trace.")
    found = []
    for node in tree.subtree:
        parsed = parse_group(node.path.removeprefix(tree.path))
        if parsed is not None:
            data = node.to_dataset()
            pairs = zip(data["module"].values, data["order"].values, strict=True)
            found += [Record(*parsed, str(module), int(order), layer) for layer, (module, order) in enumerate(pairs)]
    found.sort(key=lambda record: record.order)
    present = [record for record in found if kinds is None or record.kind in kinds]
    if not present:
        have = ", ".join(sorted({record.kind for record in found})) or "no attention sites"
        want = " or ".join(kind for kind in KINDS if kinds is None or kind in kinds)
        raise AttributionError(
            f"expected a trace with {want} attention; this one holds {have}. Capture those kinds, or use another method."
        )
    if layers is None:
        return present
    kept = [record for record in present if matches(record, layers)]
    if not kept:
        raise InputError(
            f"layers={layers!r} selects none of the {len(present)} usable sites. Present: "
            f"{', '.join(f'{record.order} {record.module} ({record.group})' for record in present)}."
        )
    return kept


def matches(site: Record | Stage, layers: Layers) -> bool:
    """Whether a site is selected by `layers`: a glob on its module path or group name, or its place in the execution order."""
    if layers is None:
        return True
    for pattern in [layers] if isinstance(layers, (str, int)) else layers:
        if isinstance(pattern, str):
            if fnmatchcase(site.module, pattern) or fnmatchcase(group_name(site.kind, site.grid), pattern):
                return True
        elif site.order == pattern:
            return True
    return False


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


def select_run(data: xr.Dataset, *, step: int, branch: str | None, prompt: int | None) -> xr.Dataset:
    """Pick one step, guidance branch and prompt row of a group; what is not there is an error that lists what is."""
    have = data["step"].values.tolist()
    if step not in have:
        raise InputError(f"step {step} was not captured; captured steps: {have}.")
    data = data.isel(step=have.index(step))
    for name, value in (("branch", branch), ("prompt", prompt)):
        if name not in data.dims:
            continue
        choices = data[name].values.tolist() if name in data.coords else list(range(data.sizes[name]))
        if value is None and name == "branch" and "cond" in choices:
            value = "cond"
        if value is None and len(choices) == 1:
            value = choices[0]
        if value not in choices:
            asked = f"{value!r} was not captured" if value is not None else "is needed, because the trace holds several"
            raise InputError(f"{name} {asked}; choose {name}= one of {choices}.")
        data = data.isel({name: choices.index(value)})
    return data


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

    Returns
    -------
    list of Stage
        float32, or float64 where the trace holds that.

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
    only = tree.coords["branch"].values if "branch" in tree.coords else np.array("cond")
    if branch is not None and branch not in np.atleast_1d(only):
        raise InputError(f"branch {branch!r} was not captured; this trace holds {', '.join(map(str, np.atleast_1d(only)))}.")
    stages = []
    for site in sites:
        data = select_run(tree[site.group].to_dataset(), step=step, branch=branch, prompt=prompt).isel(layer=site.layer)
        data = _select_heads(data, heads, site.module)
        weights = _joint(data, site) if site.kind == "joint" else _head_mean(data["weights"])
        if not bool(torch.isfinite(weights).all()):
            raise AttributionError(
                f"expected finite attention weights; {site.module} at step {step} holds NaN or infinity. Trace in float32."
            )
        tokens = weights.shape[-1] if site.kind == "cross" else data.sizes.get("token", 0) if site.kind == "joint" else 0
        weights = weights.reshape(stage_shape(site.kind, site.grid, tokens))
        stage = Stage(site.kind, site.module, site.order, site.grid, weights)
        stages.append(stage if target is None else resample(stage, target))
    return stages


def text_coordinate(tree: xr.DataTree, name: str, prompt: int | None = None) -> list[Any]:
    """Values of a coordinate of the tokens (``token_text``, ``token_kind``, ..), of one prompt where the trace holds several."""
    values = tree.coords[name].values
    return list(values[prompt or 0] if values.ndim == 2 else values)


def _select_heads(data: xr.Dataset, heads: Heads, module: str) -> xr.Dataset:
    if "heads" in data.coords:
        # Sites of one group may differ in heads: the rest of the axis is filling.
        data = data.isel(head=slice(0, int(data.coords["heads"])))
    if heads is None:
        return data
    chosen = [heads] if isinstance(heads, (int, np.integer)) else list(heads)
    have = data["head"].values.tolist() if "head" in data.coords else list(range(data.sizes["head"]))
    if not chosen or not set(chosen) <= set(have):
        raise InputError(f"heads: expected one or more of {have}, those recorded of {module}; got {chosen}.")
    return data.isel(head=[have.index(head) for head in chosen])


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
    missing = [name for name in JOINT_BLOCKS if name not in data]
    if missing:
        raise AttributionError(
            f"expected the four blocks of a joint softmax in {site.group}; missing: {', '.join(missing)}. Trace it again."
        )
    block = {name: _head_mean(data[name]).reshape(sizes[name]) for name in JOINT_BLOCKS}
    text = torch.cat([block["text_text"], block["text_video"]], 1)
    return torch.cat([text, torch.cat([block["video_text"], block["video_video"]], 1)], 0)
