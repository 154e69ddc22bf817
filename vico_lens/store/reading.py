"""The usual questions to a trace: where a word acts, who looks at whom over time, how much falls in a region, what is missing.

These read attention as it was recorded: means over layers and heads, no flow and no claim of cause. One layer of one step is in
memory at a time, whatever the size of the trace. Attribution methods, which compose sites, are in `vico_lens.attribution`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from vico_lens.errors import InputError, SchemaError
from vico_lens.kernels.resampling import resample_axes
from vico_lens.store.layout import attention_groups
from vico_lens.store.selection import group_data, records, select_run
from vico_lens.vocabulary.concepts import Concept, find_concepts
from vico_lens.vocabulary.schema import Grid
from vico_lens.vocabulary.selection import Heads, Layers, step_positions

__all__ = ["concept_maps", "coverage", "region_sum", "temporal_matrix"]


def concept_maps(
    tree: xr.DataTree,
    concepts: Sequence[str | Concept] | Mapping[str, Sequence[int]] | str | None = None,
    *,
    step: int | None = None,
    layers: Layers = None,
    heads: Heads = None,
    branch: str | None = None,
    prompt: int | None = None,
    size: Grid | str | None = None,
) -> xr.DataArray:
    """Where each concept acts: the attention that video tokens pay to its words, averaged over layers and heads.

    Parameters
    ----------
    tree : xarray.DataTree
        A trace with cross or joint attention.
    concepts : sequence of str or Concept, or mapping, optional
        Words of the prompt, or names with token indices; found in the prompt if left out.
    step : int, optional
        Number of a denoising step, from the end if negative; all steps, as a dimension, if left out.
    layers : str, int or sequence of them, optional
        Patterns of module paths (``"*up_blocks*"``) or of groups (``"cross/8x8x8"``), or places in the execution order.
    heads : int or sequence of int, optional
        Heads to average.
    branch : str, optional
        Guidance branch; ``cond`` if both were recorded.
    prompt : int, optional
        Row of a batch; needed where the trace holds several.
    size : tuple of int or "video", optional
        Frames, rows and columns of the maps; the largest grid recorded if left out, the video's if ``"video"``. Other grids are
        resampled by area, so that values stay what they are: shares of a row of the softmax.

    Returns
    -------
    xarray.DataArray
        ``concept, [step], frame, y, x``: the share of its attention that a place pays to the concept, between 0 and 1.

    Raises
    ------
    InputError
        If nothing is selected, or a step, head or branch is not in the trace.
    ConceptError
        If a concept is not in the prompt.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> concept_maps(fake_trace(), ["red circle", "blue square"], step=1).dims
    ('concept', 'frame', 'y', 'x')
    """
    chosen = find_concepts(tree, concepts, prompt=prompt)
    tokens = sorted({token for concept in chosen for token in concept.tokens})
    member = torch.tensor([[token in concept.tokens for token in tokens] for concept in chosen], dtype=torch.float32)
    sites = records(tree, layers=layers, kinds=("cross", "joint"))
    target = _target(tree, [site.grid for site in sites], size)
    steps = step_positions(step, tree.coords["step"].values.tolist())
    total = torch.zeros(len(steps), len(chosen), *target)
    count = torch.zeros(len(steps))
    holes: list[tuple[str, int]] = []
    for site in sites:
        data = select_run(group_data(tree, site.group), branch=branch, prompt=prompt, layer=site.layer, heads=heads)
        weights = data["weights" if site.kind == "cross" else "video_text"]
        for place, index in enumerate(steps):
            part = weights.isel(step=index, token=tokens)
            values = torch.from_numpy(part.transpose("head", "frame", "y", "x", "token").values).nanmean(0)
            if bool(values.isnan().all()):
                holes.append((site.module, index))
                continue
            total[place] += resample_axes((values @ member.T).movedim(-1, 0), [1, 2, 3], target, "mean")
            count[place] += 1
    _warn_of_holes(tree, holes)
    mean = (total / count[:, None, None, None, None]).numpy()
    maps = xr.DataArray(
        mean,
        dims=("step", "concept", "frame", "y", "x"),
        coords={"step": tree.coords["step"].values[steps], "concept": [concept.name for concept in chosen]},
        name="attention",
        attrs={"long_name": "attention to the concept", "units": "1", "cell_methods": "layer: head: mean"},
    ).transpose("concept", "step", "frame", "y", "x")
    return maps if step is None else maps.isel(step=0)


def temporal_matrix(
    tree: xr.DataTree,
    position: tuple[float, float] | None = None,
    *,
    step: int | None = None,
    layers: Layers = None,
    heads: Heads = None,
    branch: str | None = None,
    prompt: int | None = None,
) -> xr.DataArray:
    """How much each frame looks at each frame, at one position of the picture or on average over it.

    Temporal sites are read as they are. In spacetime and joint sites a place looks at whole frames, so keys are summed over rows
    and columns; what a joint site pays to text is left out, and rows there sum to less than 1.

    Parameters
    ----------
    tree : xarray.DataTree
        A trace with temporal, spacetime or joint attention.
    position : tuple of float, optional
        Row and column as fractions of the picture, from 0 at the top left; the mean over positions if left out.
    step, layers, heads, branch, prompt
        As for `concept_maps`.

    Returns
    -------
    xarray.DataArray
        ``[step], frame, key_frame``, mean over layers and heads.

    Raises
    ------
    InputError
        If nothing is selected, or the position is outside the picture.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> matrix = temporal_matrix(fake_trace(), (0.5, 0.25), step=0)
    >>> bool(abs(matrix.sum("key_frame") - 1).max() < 1e-5)
    True
    """
    if position is not None and not all(0 <= value < 1 for value in position):
        raise InputError(f"position: expected row and column as fractions of the picture, in [0, 1); got {position}.")
    sites = records(tree, layers=layers, kinds=("temporal", "spacetime", "joint"))
    frames = max(site.grid[0] for site in sites)
    steps = step_positions(step, tree.coords["step"].values.tolist())
    total, count = torch.zeros(len(steps), frames, frames), torch.zeros(len(steps))
    holes: list[tuple[str, int]] = []
    for site in sites:
        data = select_run(group_data(tree, site.group), branch=branch, prompt=prompt, layer=site.layer, heads=heads)
        weights = data["video_video" if site.kind == "joint" else "weights"]
        if position is not None:
            _, rows, columns = site.grid
            weights = weights.isel(y=[int(position[0] * rows)], x=[int(position[1] * columns)])
        for place, index in enumerate(steps):
            matrix = _by_frame(weights.isel(step=index))
            if bool(matrix.isnan().all()):
                holes.append((site.module, index))
                continue
            total[place] += resample_axes(resample_axes(matrix, [0], [frames], "mean"), [1], [frames], "sum")
            count[place] += 1
    _warn_of_holes(tree, holes)
    matrices = xr.DataArray(
        (total / count[:, None, None]).numpy(),
        dims=("step", "frame", "key_frame"),
        coords={"step": tree.coords["step"].values[steps]},
        name="attention",
        attrs={"long_name": "attention between frames", "units": "1", "cell_methods": "layer: head: mean"},
    )
    return matrices if step is None else matrices.isel(step=0)


def region_sum(maps: xr.DataArray, region: Any, *, share: bool = False) -> xr.DataArray:
    """Sum maps over a region of the video, in each frame.

    Parameters
    ----------
    maps : xarray.DataArray
        With dimensions ``frame, y, x``, such as `concept_maps` or an influence.
    region : array
        bool or weights in [0, 1], ``frame, y, x`` or ``y, x``, on any grid: brought to that of the maps by area, so that a pixel
        mask will do.
    share : bool
        Divide by the sum over the whole frame.

    Returns
    -------
    xarray.DataArray
        The maps without ``y`` and ``x``.

    Examples
    --------
    >>> from vico_lens.testing.traces import blobs, fake_trace
    >>> maps = concept_maps(fake_trace(), ["red circle"], step=1)
    >>> inside = region_sum(maps, blobs((4, 16, 16))[..., 0] > 0.5, share=True)
    >>> inside.dims
    ('concept', 'frame')
    """
    missing = {"frame", "y", "x"} - set(map(str, maps.dims))
    if missing:
        raise InputError(f"maps: expected dimensions frame, y, x; got {maps.dims}, without {', '.join(sorted(missing))}.")
    mask = torch.as_tensor(np.asarray(region), dtype=torch.float64)
    if mask.ndim == 2:
        mask = mask[None].expand(maps.sizes["frame"], -1, -1)
    if mask.ndim != 3:
        raise InputError(f"region: expected (frame, y, x) or (y, x); got {mask.ndim} dimensions.")
    mask = resample_axes(mask, [0, 1, 2], [maps.sizes[dim] for dim in ("frame", "y", "x")], "mean")
    inside = (maps * xr.DataArray(mask.numpy(), dims=("frame", "y", "x"))).sum(("y", "x"))
    return inside / maps.sum(("y", "x")) if share else inside


def coverage(tree: xr.DataTree) -> xr.Dataset:
    """List every attention site that the tracer saw: what was recorded and where, and why the rest was not.

    Returns
    -------
    xarray.Dataset
        Over ``site``: ``module``, ``group`` (empty if not recorded), ``recorded``, ``reason``. ``to_dataframe()`` makes a table.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> int(coverage(fake_trace()).recorded.sum())
    6
    """
    if "coverage" not in tree.attrs:
        raise SchemaError("expected attribute coverage at the root of a trace; there is none. Was it written by vico-lens?")
    told = tree.attrs["coverage"]
    report = json.loads(told) if isinstance(told, str) else told
    rows = []
    for name, _, _, node in attention_groups(tree):
        orders, modules = node.coords["order"].values, node.coords["module"].values
        rows += [(int(order), str(module), name, True, "") for order, module in zip(orders, modules, strict=True)]
    rows.sort()
    rows += [(-1, module, "", False, reason) for module, reason in sorted(report.get("left_out", {}).items())]
    columns = {"module": 1, "group": 2, "recorded": 3, "reason": 4}
    return xr.Dataset({name: ("site", np.array([row[at] for row in rows])) for name, at in columns.items()})


def _warn_of_holes(tree: xr.DataTree, holes: Sequence[tuple[str, int]]) -> None:
    """Say which calls a mean leaves out, because they were not made while the trace was recorded."""
    if not holes:
        return
    labels = tree.coords["step"].values
    named = ", ".join(f"{module} at step {labels[place]}" for module, place in holes[:3])
    warnings.warn(
        f"the mean leaves out {len(holes)} calls that were not recorded: {named}{' and others' if len(holes) > 3 else ''}. "
        "Guidance or a cache did not run them; select steps or layers that were recorded.",
        UserWarning,
        stacklevel=3,
    )


def _target(tree: xr.DataTree, grids: Sequence[Grid], size: Grid | str | None) -> Grid:
    """Grid to bring maps to."""
    if size is None:
        return max(grids, key=lambda grid: grid[0] * grid[1] * grid[2])
    if isinstance(size, str):
        if size != "video" or "video" not in tree:
            raise InputError(f"size: expected (frames, rows, columns), or 'video' if the trace keeps it; got {size!r}.")
        if "segment" in tree.coords:
            raise InputError(
                "size: expected the maps of a whole video for size='video'; this trace holds "
                f"{int(tree.coords['segment'].values.max()) + 1} segments of it, each with frames of its own. Leave size out."
            )
        frames, rows, columns, _ = tree["video/rgb"].shape
        return frames, rows, columns
    return size


def _by_frame(call: xr.DataArray) -> torch.Tensor:
    """Reduce one call to ``[frame, key_frame]``, one head and query frame at a time where keys are whole videos."""
    if "key_y" not in call.dims:
        return torch.from_numpy(call.transpose("head", "frame", "key_frame", "y", "x").values).nanmean((0, 3, 4))
    rows = []
    for frame in range(call.sizes["frame"]):
        heads = []
        for head in range(call.sizes["head"]):
            part = call.isel(head=head, frame=frame).sum(("key_y", "key_x"), skipna=False)
            heads.append(torch.from_numpy(part.transpose("key_frame", "y", "x").values))
        rows.append(torch.stack(heads).nanmean((0, 2, 3)))
    return torch.stack(rows)
