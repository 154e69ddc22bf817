"""Selecting in a trace: its sites in execution order, and one recorded call by step, branch, prompt, layer and heads.

Every reader of a trace (attribution, `vico_lens.store.reading`, plots, `vico_lens.save_trace`) selects with these functions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from vico_lens.errors import AttributionError, InputError
from vico_lens.vocabulary.schema import KINDS, Kind, group_name, parse_group
from vico_lens.vocabulary.selection import Heads, Layers, choose_prompt, matches, positions, step_positions

__all__ = ["Layers", "Record", "group_data", "matches", "records", "select_run", "text_coordinate"]

Data = TypeVar("Data", xr.Dataset, xr.DataArray)


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded attention site of a trace: what it is, and which entry of which group holds it."""

    kind: Kind
    grid: tuple[int, int, int]
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
    sites = []
    for node in tree.subtree:
        parsed = parse_group(node.path.removeprefix(tree.path))
        if parsed is not None and node.data_vars:
            pairs = zip(node.coords["module"].values, node.coords["order"].values, strict=True)
            sites += [Record(*parsed, str(module), int(order), layer) for layer, (module, order) in enumerate(pairs)]
    sites.sort(key=lambda record: record.order)
    present = [record for record in sites if kinds is None or record.kind in kinds]
    if not present:
        have = ", ".join(sorted({record.kind for record in sites})) or "no attention sites"
        want = " or ".join(kind for kind in KINDS if kinds is None or kind in kinds)
        raise AttributionError(
            f"expected a trace with {want} attention; this one holds {have}. Capture those kinds, or use another method."
        )
    chosen = [record for record in present if matches(record, layers)]
    if not chosen:
        raise InputError(
            f"layers={layers!r} selects none of the {len(present)} usable sites. Present: "
            f"{', '.join(f'{record.order} {record.module} ({record.group})' for record in present)}."
        )
    return chosen


def group_data(tree: xr.DataTree, group: str) -> xr.Dataset:
    """Return one group of a trace with the branch that was recorded, which xarray does not inherit where there is only one."""
    data = tree[group].to_dataset()
    return data if "branch" in data.coords or "branch" not in tree.coords else data.assign_coords(branch=tree.coords["branch"])


def select_run(
    data: Data,
    *,
    step: int | None = None,
    branch: str | None = None,
    prompt: int | None = None,
    layer: int | None = None,
    heads: Heads = None,
) -> Data:
    """Select in the weights of a group, reading nothing.

    Parameters
    ----------
    data : Dataset or DataArray
        A group of a trace, as `group_data` gives it, or one variable of it.
    step : int, optional
        Number of a step, from the end if negative; all steps if left out.
    branch : str, optional
        Guidance branch; ``cond`` if left out, or the only one that was recorded.
    prompt : int, optional
        Row of a batch; needed where the trace holds several.
    layer : int, optional
        Place along ``layer``; all if left out.
    heads : int or sequence of int, optional
        Heads by their number in the model; all if left out. With one layer selected these are the heads of its site.

    Raises
    ------
    InputError
        If something selected was not recorded, or `prompt` is needed.
    """
    if step is not None:
        data = data.isel(step=step_positions(step, data["step"].values.tolist())[0])
    if layer is not None:
        data = data.isel(layer=positions("layer", layer, range(data.sizes["layer"]))[0])
    branches = np.atleast_1d(data.coords["branch"].values).tolist() if "branch" in data.coords else ["cond"]
    if branch is None:
        branch = "cond" if "cond" in branches else branches[0]
    chosen = {
        "branch": positions("branch", branch, branches)[0],
        "prompt": choose_prompt(prompt, data.sizes.get("prompt", 1)),
    }
    data = data.isel({dim: place for dim, place in chosen.items() if dim in data.dims})
    if "head" not in data.dims:
        return data
    of = ""
    if "heads" in data.coords and data.coords["heads"].ndim == 0:
        # Sites of one group may differ in heads: the rest of the axis is filling.
        data = data.isel(head=slice(0, int(data.coords["heads"])))
        of = f" of {data.coords['module'].item()}" if "module" in data.coords else ""
    if heads is None:
        return data
    have = data["head"].values.tolist() if "head" in data.coords else list(range(data.sizes["head"]))
    return data.isel(head=positions("heads", heads, have, of))


def text_coordinate(tree: xr.DataTree, name: str, prompt: int | None = None) -> list[Any]:
    """Values of a coordinate of the tokens (``token_text``, ``token_kind``, ..), of one prompt where the trace holds several."""
    values = tree.coords[name].values
    return list(values[choose_prompt(prompt, len(values))] if values.ndim == 2 else values)
