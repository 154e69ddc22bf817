"""The slow reference of a trace: a tree of weights from attention calls, by eager softmax, all in memory.

It shares no code with the store beyond the definition of a softmax and the assembly of the tree. The tests compare with it what
the store writes, streams, recomputes and slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vico_lens.kernels.softmax import attention
from vico_lens.store.layout import Group, Header, assemble, token_coords
from vico_lens.vocabulary.schema import JOINT_BLOCKS, LEADING_DIMS, AttentionCall, TokenTable, weights_dims

__all__ = ["eager_tree", "eager_weights"]


def eager_weights(call: AttentionCall) -> dict[str, np.ndarray]:
    """Return the weights of one call by variable name, each ``[head, *query dims, *key dims]``."""
    site, (frames, rows, columns) = call.site, call.site.grid
    if call.probabilities is not None:
        full = call.probabilities
    else:
        assert call.query is not None and call.key is not None
        query, key, bias = call.query, call.key, call.bias
        cells = rows * columns
        shapes = {
            "cross": (frames, rows, columns, site.tokens),
            "spatial": (frames, rows, columns, rows, columns),
            "temporal": (rows, columns, frames, frames),
            "spacetime": (frames, rows, columns, frames, rows, columns),
            "joint": (query.shape[1], query.shape[1]),
        }
        # Flatten to [head, batch, query, key]: batch is what queries and keys share (the frame, or the position).
        flat = {
            "cross": (frames, cells, site.tokens),
            "spatial": (frames, cells, cells),
            "temporal": (cells, frames, frames),
            "spacetime": (1, site.cells, site.cells),
            "joint": (1, query.shape[1], query.shape[1]),
        }[site.kind]
        query = query.reshape(site.heads, flat[0], flat[1], -1)
        key = key[:, None] if site.kind == "cross" and key.ndim == 3 else key.reshape(site.heads, flat[0], flat[2], -1)
        if bias is not None:
            bias = bias.expand(site.heads, *shapes[site.kind]).reshape(site.heads, *flat)
        full = attention(query, key, call.scale, bias).reshape(site.heads, *shapes[site.kind])
    weights = full.detach().float().numpy()
    if site.kind != "joint":
        return {"weights": weights}
    text, grid = slice(0, site.tokens), site.grid
    video = slice(site.tokens, None)
    return {
        "video_text": weights[:, video, text].reshape(site.heads, *grid, site.tokens),
        "text_video": weights[:, text, video].reshape(site.heads, site.tokens, *grid),
        "text_text": weights[:, text, text],
        "video_video": weights[:, video, video].reshape(site.heads, *grid, *grid),
    }


def eager_tree(
    calls: Iterable[AttentionCall], tokens: Sequence[TokenTable], attrs: dict[str, Any], video: np.ndarray | None = None
) -> xr.DataTree:
    """Assemble a trace from calls: one entry of `tokens` a prompt row, `attrs` as they are. Calls not made stay NaN."""
    calls = list(calls)
    steps = sorted({call.step for call in calls})
    branches = sorted({call.branch for call in calls})
    prompts = max(call.prompt for call in calls) + 1
    timesteps = {call.step: call.timestep for call in calls}
    groups: dict[str, Group] = {}
    for name in dict.fromkeys(call.site.group for call in sorted(calls, key=lambda call: call.site.order)):
        members = [call for call in calls if call.site.group == name]
        sites = sorted({call.site for call in members}, key=lambda site: site.order)
        kind, grid = sites[0].kind, sites[0].grid
        names = weights_dims(kind, branch=len(branches) > 1, prompt=prompts > 1)
        arrays: dict[str, np.ndarray] = {}
        for call in members:
            place = {
                "step": steps.index(call.step),
                "branch": branches.index(call.branch),
                "prompt": call.prompt,
                "layer": sites.index(call.site),
            }
            sizes = {"step": len(steps), "branch": len(branches), "prompt": prompts, "layer": len(sites)}
            for variable, values in eager_weights(call).items():
                leading = [dim for dim in names[variable] if dim in LEADING_DIMS and dim != "head"]
                if variable not in arrays:
                    arrays[variable] = np.full([sizes[dim] for dim in leading] + list(values.shape), np.nan, np.float32)
                arrays[variable][tuple(place[dim] for dim in leading)] = values
        groups[name] = Group(kind, grid, sites, {block: arrays[block] for block in names if block in arrays})
    header = Header(attrs, steps, [timesteps[step] for step in steps], branches, prompts, token_coords(tokens))
    assert all(set(group.arrays) == set(JOINT_BLOCKS) for group in groups.values() if group.kind == "joint")
    return assemble(header, groups, video)
