"""Putting a trace together: arrays of weights, eager or lazy, become the `xarray.DataTree` that the schema describes.

Every producer of a trace (a store that is opened, a run kept in memory, the synthetic traces of the test kit) ends here, so the
dimensions, coordinates and attributes are written down once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from vico_lens.vocabulary.schema import (
    JOINT_BLOCKS,
    KEY_DIMS,
    AttentionSite,
    Grid,
    Kind,
    TokenTable,
    parse_group,
    weights_dims,
)

__all__ = [
    "TOKEN_COORDS",
    "Group",
    "Header",
    "assemble",
    "attention_groups",
    "group_attrs",
    "root_coords",
    "site_coords",
    "token_coords",
]

TOKEN_COORDS = {
    "token_text": "text",
    "token_kind": "kind",
    "word": "word",
    "token_id": "id",
    "token_start": "start",
    "token_stop": "stop",
}
"""Root coordinate over tokens, and the field of `TokenTable` it comes from."""


@dataclass(slots=True)
class Header:
    """What the root of a trace says: provenance, steps, guidance branches and tokens.

    Attributes
    ----------
    attrs : dict
        Root attributes.
    steps, timesteps : sequence
        Index and scheduler timestep of each recorded step.
    branches : sequence of str
        Guidance branches recorded; two make a `branch` dimension.
    prompts : int
        Rows recorded; more than one make a `prompt` dimension.
    coords : mapping
        Coordinates over tokens as `token_coords` makes them.
    """

    attrs: dict[str, Any]
    steps: Sequence[int]
    timesteps: Sequence[float]
    branches: Sequence[str]
    prompts: int
    coords: Mapping[str, tuple[tuple[str, ...], Any]]


@dataclass(slots=True)
class Group:
    """What one group of a trace holds: the sites along its layers, and their weights.

    Attributes
    ----------
    kind : str
        One of `vico_lens.vocabulary.schema.KINDS`.
    grid : tuple of int
        Frames, rows and columns.
    sites : list of AttentionSite
        One a layer, in order of the layers.
    arrays : dict
        Variable name (`weights`, or the blocks of a joint softmax) to an array with the dimensions of `weights_dims`.
    encoding : dict
        Encoding given to every variable, such as ``preferred_chunks``.
    """

    kind: Kind
    grid: Grid
    sites: list[AttentionSite]
    arrays: dict[str, Any]
    encoding: dict[str, dict[str, Any]] = field(default_factory=dict)


def token_coords(tokens: Sequence[TokenTable]) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return the coordinates over tokens: along ``token`` if all prompts share one table, else along ``prompt, token``."""
    tables = list(dict.fromkeys(tokens))
    dims = ("token",) if len(tables) == 1 else ("prompt", "token")
    rows = tables if len(tables) == 1 else tokens
    coords: dict[str, tuple[tuple[str, ...], Any]] = {}
    for name, attribute in TOKEN_COORDS.items():
        values = np.array([getattr(table, attribute) for table in rows])
        values = values.astype(np.int64) if values.dtype.kind in "iu" else values.astype(np.dtypes.StringDType()).astype(object)
        coords[name] = (dims, values[0] if len(dims) == 1 else values)
    return coords


def root_coords(header: Header) -> dict[str, tuple[tuple[str, ...], Any, dict[str, Any]]]:
    """Return the coordinates of the root with their dimensions and attributes."""
    about_branch = {"long_name": "branch of the classifier-free guidance"}
    tokens = next(iter(header.coords.values()))[1].shape[-1] if header.coords else 0
    coords: dict[str, tuple[tuple[str, ...], Any, dict[str, Any]]] = {
        "step": (("step",), np.asarray(header.steps, dtype=np.int64), {"long_name": "index of the denoising step"}),
        "timestep": (("step",), np.asarray(header.timesteps, dtype=np.float64), {"long_name": "timestep of the scheduler"}),
        "token": (("token",), np.arange(tokens), {"long_name": "place of the token in the text"}),
    }
    if len(starts := header.attrs.get("segment_starts", ())) > 1:
        segments = np.searchsorted(np.asarray(starts), np.asarray(header.steps, dtype=np.int64), side="right") - 1
        coords["segment"] = (("step",), segments, {"long_name": "part of a long video that the step makes, from 0"})
    if len(header.branches) > 1:
        coords["branch"] = (("branch",), np.asarray(header.branches, dtype=object), about_branch)
    else:
        coords["branch"] = ((), np.asarray(header.branches[0], dtype=object), about_branch)
    coords.update({name: (dims, values, {}) for name, (dims, values) in header.coords.items()})
    return coords


def site_coords(sites: Sequence[AttentionSite]) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return the coordinates of a group along its layers."""
    return {
        "module": (("layer",), np.array([site.module for site in sites], dtype=object)),
        "order": (("layer",), np.array([site.order for site in sites], dtype=np.int64)),
        "heads": (("layer",), np.array([site.heads for site in sites], dtype=np.int64)),
        "head_size": (("layer",), np.array([site.head_size for site in sites], dtype=np.int64)),
    }


def group_attrs(kind: Kind, grid: Grid) -> dict[str, Any]:
    """Return the attributes of a group."""
    over = ", ".join(JOINT_BLOCKS) if kind == "joint" else " ".join(KEY_DIMS[kind])
    return {"kind": kind, "grid": list(grid), "normalised_over": over}


def assemble(header: Header, groups: Mapping[str, Group], video: Any | None = None) -> xr.DataTree:
    """Build the tree of a trace.

    Parameters
    ----------
    header : Header
        The root.
    groups : mapping
        Group name (``cross/8x8x8``) to its content.
    video : array, optional
        uint8 with axes ``frame, row, column, channel``.

    Returns
    -------
    xarray.DataTree
        As described in the data model; nothing that is lazy is computed.
    """
    nodes: dict[str, xr.Dataset] = {"/": xr.Dataset(coords=root_coords(header), attrs=header.attrs)}
    for name, group in sorted(groups.items()):
        nodes[f"/{name}"] = _dataset(group, header)
    if video is not None:
        nodes["/video"] = xr.Dataset({"rgb": (("frame", "row", "column", "channel"), video, {"long_name": "generated video"})})
    return xr.DataTree.from_dict(nodes, name="trace")


def _dataset(group: Group, header: Header) -> xr.Dataset:
    branch, prompt = len(header.branches) > 1, header.prompts > 1
    attrs = {"long_name": "attention weight", "units": "1", "valid_min": 0.0, "valid_max": 1.0}
    variables = {
        name: xr.Variable(dims, group.arrays[name], attrs, group.encoding.get(name), fastpath=True)
        for name, dims in weights_dims(group.kind, branch=branch, prompt=prompt).items()
        if name in group.arrays
    }
    coords = site_coords(group.sites)
    if heads := _chosen_heads(header.attrs):  # some of the model's: known by its numbers, not by their place here
        coords["head"] = (("head",), np.array(heads[: max(site.heads for site in group.sites)], dtype=np.int64))
    return xr.Dataset(variables, coords, group_attrs(group.kind, group.grid))


def _chosen_heads(attrs: Mapping[str, Any]) -> list[int]:
    """Heads that the capture of a trace chose, ascending; empty if it kept all."""
    try:
        heads = json.loads(attrs.get("capture", "{}"))["heads"]
    except (KeyError, TypeError, ValueError):
        return []
    return [heads] if isinstance(heads, int) else sorted(set(heads or ()))


def attention_groups(tree: xr.DataTree) -> Iterator[tuple[str, Kind, Grid, xr.DataTree]]:
    """Yield name, kind, grid and node of every group of attention sites in a trace."""
    for node in tree.subtree:
        parsed = parse_group(node.path)
        if parsed is not None and node.data_vars:
            yield node.path.strip("/"), *parsed, node
