"""The store of one trace while it is written: root, groups and coordinates, step by step.

No threads here and no tensors: `TraceWriter` calls these methods, in order, from its background thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from vico_lens.store.gathering import Gathered
from vico_lens.store.layout import Header, group_attrs, root_coords, site_coords
from vico_lens.store.zarrfile import Tree, chunk_shape
from vico_lens.vocabulary.schema import SCHEMA_VERSION, AttentionSite, parse_group

if TYPE_CHECKING:
    from vico_lens.store.forms import Stored

__all__ = ["KEY", "TraceFile", "plain_attrs"]

KEY = "vico_lens"
"""Root and group attribute that makes a Zarr store ours, and says what `xarray` alone has no place for."""


@dataclass(slots=True)
class _Sites:
    """Sites of one group in order of its layers, and the form and scale of each."""

    sites: list[AttentionSite] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    declared: int = 0
    written: set[tuple[int, int, int, int]] = field(default_factory=set)

    def holes(self, steps: int, branches: int, prompts: int) -> list[tuple[int, int, int, int]]:
        """Return the calls that were not made: layer, and positions of step, branch and prompt."""
        calls = product(range(len(self.sites)), range(steps), range(branches), range(prompts))
        return [call for call in calls if call not in self.written]


class TraceFile:
    """Writes a trace into a `Tree`.

    Parameters
    ----------
    tree : Tree
        An empty one.
    header : Header
        Attributes, branches, prompts and tokens; its steps are ignored, they come one by one.
    planned : int or None
        Steps that will be recorded, if known.
    """

    def __init__(self, tree: Tree, header: Header, planned: int | None) -> None:
        self.tree = tree
        self.header = header
        self.planned = planned
        self.steps: list[int] = []
        self.timesteps: list[float] = []
        self._groups: dict[str, _Sites] = {}
        leading = [("step", True), ("branch", len(header.branches) > 1), ("prompt", header.prompts > 1), ("layer", True)]
        self._leading = tuple(dim for dim, present in leading if present)
        self._blocks = Gathered(tree, self._leading)
        self._complete = False
        self._coordinates()
        self._root()
        tree.commit()

    def put(self, stored: Stored, branch: int, prompt: int) -> None:
        """Write one call of the step in the making."""
        group = self._groups.setdefault(stored.site.group, _Sites())
        layer = next((i for i, site in enumerate(group.sites) if site.module == stored.site.module), len(group.sites))
        if layer == len(group.sites):
            group.sites.append(stored.site)
            group.facts.append({**asdict(stored.site), "form": stored.form, "scale": stored.scale, "masked": []})
        first = not any(call[0] == layer and call[2:] == (branch, prompt) for call in group.written)
        group.written.add((layer, len(self.steps), branch, prompt))
        place = {"step": len(self.steps), "branch": branch, "prompt": prompt, "layer": layer}
        start = [place[dim] for dim in self._leading]
        arrays = stored.arrays()
        if first and "bias" in arrays:
            group.facts[layer]["masked"].append([branch, prompt])
            group.declared = min(group.declared, layer)
        for name, (dims, values) in arrays.items():
            fill = 0.0 if name == "bias" else math.nan
            self._blocks.put(f"{stored.site.group}/{name}", start, dims, values, fill)
        if stored.form == "factors" and stored.scale != group.facts[layer]["scale"]:
            gain = np.array(stored.scale / group.facts[layer]["scale"])
            self._blocks.put(f"{stored.site.group}/gain", start, (), gain, 1.0)

    def finish(self, step: int, timestep: float) -> None:
        """Declare the step in the making: from here on it survives."""
        self.steps.append(step)
        self.timesteps.append(timestep)
        self._blocks.flush()
        for path, array in self.tree.arrays.items():  # to the full extent, though a half or a layer may have put nothing there
            if array.dims[:1] == ("step",) and "/" in path:
                layers = len(self._groups[path.rpartition("/")[0]].sites)
                sizes = {"step": len(self.steps), "branch": len(self.header.branches), "prompt": self.header.prompts}
                extent = [sizes.get(dim, layers) for dim in self._leading]
                array.grow([*extent, *array.meta["shape"][len(extent) :]])
        for name, group in self._groups.items():
            if group.declared < len(group.sites):
                self._group(name, group)
                group.declared = len(group.sites)
        self._coordinates()
        self._root()
        self.tree.commit()

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Add or replace root attributes, visible from the next commit on."""
        self.header.attrs.update(attrs)

    def video(self, rgb: np.ndarray) -> None:
        """Keep the generated video."""
        self.tree.group("video", {})
        dims = ("frame", "row", "column", "channel")
        array = self.tree.array("video/rgb", dims, chunk_shape(rgb.shape, 1), rgb.dtype, attrs={"long_name": "generated video"})
        array.put([0, 0, 0, 0], rgb)

    def end(self, *, complete: bool) -> None:
        """Drop a step that was not finished; write the last attributes."""
        self._complete = complete
        self._blocks.drop()
        self.tree.revert("step")
        self._root()
        self.tree.commit()
        self.tree.settle()

    def _group(self, name: str, group: _Sites) -> None:
        parsed = parse_group(name)
        assert parsed is not None  # named by AttentionSite.group
        coords = site_coords(group.sites)
        about = {**group_attrs(*parsed), "coordinates": " ".join(coords), KEY: {"sites": group.facts}}
        self.tree.group(name, about)
        for coordinate, (dims, values) in coords.items():
            self.tree.row(f"{name}/{coordinate}", dims, values)

    def _coordinates(self) -> None:
        header = self.header
        current = Header(header.attrs, self.steps, self.timesteps, header.branches, header.prompts, header.coords)
        for name, (dims, values, attrs) in root_coords(current).items():
            if name not in self.tree.arrays or dims == ("step",):
                self.tree.row(name, dims, np.asarray(values), attrs)

    def _root(self) -> None:
        header = self.header
        own: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "branches": list(header.branches), "prompts": header.prompts}
        own["finished"] = finished = len(self.steps)
        own["holes"] = [
            (name, *hole)
            for name, group in sorted(self._groups.items())
            for hole in group.holes(finished, len(header.branches), header.prompts)
        ]
        planned = header.attrs.get("steps_planned", self.planned)
        complete = self._complete and not own["holes"] and (planned is None or finished >= planned)
        progress = {"complete": complete, "steps_finished": finished, "steps_planned": planned}
        names = [name for name in self.tree.arrays if "/" not in name and name not in ("step", "token")]
        attrs = {**header.attrs, "schema_version": SCHEMA_VERSION, **progress, "coordinates": " ".join(names), KEY: own}
        self.tree.group("", attrs)


def plain_attrs(attrs: Mapping[str, object]) -> dict[str, Any]:
    """Make attributes that every reader takes: numbers, strings and flat lists stay, anything else becomes JSON.

    >>> plain_attrs({"seed": 0, "capture": {"store": "auto"}})
    {'seed': 0, 'capture': '{"store": "auto"}'}
    """
    plain: dict[str, Any] = {}
    for name, value in attrs.items():
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, tuple):
            value = list(value)
        flat = value if isinstance(value, list) else [value]
        simple = all(item is None or isinstance(item, str | int | float) for item in flat)
        finite = not any(isinstance(item, float) and not math.isfinite(item) for item in flat)
        plain[name] = value if simple and finite else json.dumps(value, default=str, ensure_ascii=False)
    return plain
