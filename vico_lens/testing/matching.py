"""Compare recorded maps with the flat maps of the witness: find the row and forward that each one is, and their difference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import xarray as xr
from torch import Tensor

from vico_lens.store.layout import attention_groups
from vico_lens.testing.witness import Witnessed
from vico_lens.vocabulary.schema import JOINT_BLOCKS, Kind

__all__ = ["check_maps"]

Place = tuple[int, int]
"""Number of a forward, and row of its batch."""


def check_maps(tree: xr.DataTree, forwards: list[Witnessed], tolerance: float) -> float:
    """Compare every recorded map with the eager softmaxes of the same run.

    All maps of one step must be those of one batch row of one forward, later steps those of later forwards.

    Parameters
    ----------
    tree : xr.DataTree
        A trace of one guidance branch and one prompt.
    forwards : list of Witnessed
        Of an equal run.
    tolerance : float
        Largest difference allowed.

    Returns
    -------
    float
        The largest difference found.

    Raises
    ------
    AssertionError
        Names the first site and step without an equal map, or that mix rows.
    """
    places: dict[int, set[Place]] = {}
    worst = 0.0
    for group, kind, grid, node in attention_groups(tree):
        for layer, module in enumerate(node.coords["module"].values):
            path = str(module).partition(".")[2]
            for index, step in enumerate(node.coords["step"].values):
                recorded = _recorded(node, kind, index, layer)
                _check_sums(recorded, f"{module} at step {step}")
                errors = dict(_errors(recorded, kind, grid, forwards, path))
                found = {place for place, error in errors.items() if error <= tolerance}
                closest = min(errors.values(), default=np.inf)
                assert found, (
                    f"{module} ({group}) at step {step}: no eager softmax of the run equals the recorded map to {tolerance:g}; "
                    f"the closest of {len(errors)} is off by {closest:.3g}."
                )
                worst = max(worst, min(errors[place] for place in found))
                places[int(step)] = places.get(int(step), found) & found
                assert places[int(step)], (
                    f"{module} ({group}) at step {step}: its map is of another batch row or forward than earlier sites'."
                )
    order = [max(found) for _, found in sorted(places.items())]
    assert all(a < b for a, b in itertools.pairwise(order)), f"steps should be of later and later forwards, they are of {order}"
    return float(worst)


def _recorded(node: xr.DataTree, kind: Kind, step: int, layer: int) -> np.ndarray:
    """Return one map as ``[head, batch, query, key]``, where batch is what queries and keys share.

    Sites of one group may differ in their number of heads; those that a site lacks are cut off.
    """
    real = int(node.coords["heads"].values[layer])
    if kind != "joint":
        weights = np.asarray(node["weights"].isel(step=step, layer=layer).values, np.float64)[:real]
        heads = weights.shape[0]
        if kind == "cross":
            return weights.reshape(heads, 1, -1, weights.shape[-1])
        if kind == "spatial":
            return weights.reshape(heads, weights.shape[1], weights.shape[2] * weights.shape[3], -1)
        if kind == "temporal":
            return weights.reshape(heads, weights.shape[1] * weights.shape[2], weights.shape[3], -1)
        return weights.reshape(heads, 1, int(np.prod(weights.shape[1:4])), -1)
    block = {name: np.asarray(node[name].isel(step=step, layer=layer).values, np.float64)[:real] for name in JOINT_BLOCKS}
    heads, tokens = block["text_text"].shape[:2]
    cells = block["text_video"][0, 0].size
    text = np.concatenate([block["text_text"], block["text_video"].reshape(heads, tokens, cells)], -1)
    video = np.concatenate(
        [block["video_text"].reshape(heads, cells, tokens), block["video_video"].reshape(heads, cells, cells)], -1
    )
    return np.concatenate([text, video], 1)[:, None]


def _check_sums(recorded: np.ndarray, where: str) -> None:
    """Rows sum to 1; a row that a mask hides altogether (padding) sums to 0."""
    sums = recorded.sum(-1)
    wrong = ~(np.isclose(sums, 1, atol=1e-5) | (sums == 0))
    assert not wrong.any(), (
        f"{where}: rows should sum to 1, {int(wrong.sum())} of {wrong.size} do not, one sums to {sums[wrong][0]:.6f}"
    )
    assert (sums != 0).any(), f"{where}: all rows are empty"


def _errors(
    recorded: np.ndarray, kind: Kind, grid: tuple[int, int, int], forwards: list[Witnessed], path: str
) -> Iterator[tuple[Place, float]]:
    for number, forward in enumerate(forwards):
        calls = forward.of(path)
        for call, weights in enumerate(calls):
            rows = _arranged(weights, kind, grid)
            # a module called once a row (Mochi), or once for all rows and maybe again for other keys (Wan image to video)
            for row, candidate in enumerate(rows):
                place = (number, call if len(rows) == 1 and len(calls) > 1 and _one_a_row(forward, calls) else row)
                yield place, _distance(recorded, candidate, kind)


def _one_a_row(forward: Witnessed, calls: list[Tensor]) -> bool:
    batch = next(
        int(x.shape[0]) for x in itertools.chain(forward.args, forward.kwargs.values()) if isinstance(x, Tensor) and x.ndim > 2
    )
    return len(calls) == batch > 1


def _arranged(weights: Tensor, kind: Kind, grid: tuple[int, int, int]) -> list[np.ndarray]:
    """Split a flat map ``[batch, head, query, key]`` into rows ``[head, batch, query, key]``; none if sizes do not fit."""
    frames, cells = grid[0], grid[1] * grid[2]
    batch, heads, queries, keys = weights.shape
    shared = {"spatial": frames, "temporal": cells}.get(kind, 1)
    if kind == "cross" and queries == cells and frames > 1:
        shared = frames
    if batch % shared:
        return []
    rows = weights.reshape(batch // shared, shared, heads, queries, keys).transpose(1, 2).numpy()
    if kind == "cross":
        rows = rows.reshape(len(rows), heads, 1, shared * queries, keys)
    return list(rows)


def _distance(recorded: np.ndarray, candidate: np.ndarray, kind: Kind) -> float:
    """Largest difference; of a joint map up to the order of its tokens, which the probes check.

    Text tokens that nothing attends to are left out of a joint map on both sides: a store pads a site that saw fewer text tokens
    than the trace has with such tokens, and their rows say nothing.
    """
    if kind == "cross" and recorded.shape[-1] > candidate.shape[-1]:  # padding that the pipeline trimmed off
        candidate = np.pad(candidate, [(0, 0)] * 3 + [(0, recorded.shape[-1] - candidate.shape[-1])])
    if kind == "joint":
        both = [np.sort(_attended(x), axis=None) for x in (recorded, candidate)]
        return float(np.abs(both[0] - both[1]).max()) if both[0].shape == both[1].shape else np.inf
    return float(np.abs(recorded - candidate).max()) if recorded.shape == candidate.shape else np.inf


def _attended(maps: np.ndarray) -> np.ndarray:
    """Keep rows and columns of the tokens that some query attends to, ``[head, 1, token, token]``."""
    seen = maps.any(axis=(0, 1, 2))
    return maps[:, :, seen][..., seen]
