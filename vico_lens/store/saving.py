"""Keeping a part of a trace: chosen steps, layers, heads or words, in a store of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.store.layout import TOKEN_COORDS
from vico_lens.store.lazy_weights import LazyWeights
from vico_lens.store.selection import Record, records
from vico_lens.store.writer import TraceWriter
from vico_lens.vocabulary.concepts import Concept, find_concepts
from vico_lens.vocabulary.schema import JOINT_BLOCKS, LEADING_DIMS, AttentionCall, AttentionSite, Branch, TokenTable
from vico_lens.vocabulary.selection import Heads, Layers, Steps, listed, positions, step_positions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["save_trace"]

_OF_THE_STORE = ("complete", "steps_finished", "steps_planned", "schema_version")


def save_trace(
    tree: xr.DataTree,
    path: str | PathLike[str],
    *,
    steps: Steps = None,
    layers: Layers = None,
    heads: Heads = None,
    words: Sequence[str | int | Concept] | str | int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a trace, or a part of it, as a trace of its own, which `open_trace` opens.

    What is stored as query and key stays so, so a part is as exact as the whole. One call is in memory at a time.

    Parameters
    ----------
    tree : DataTree
        A trace: opened, kept in memory, or selected from one along ``step`` or ``layer`` with xarray.
    path : path
        A folder to be made, or a path that ends in ``.zip``.
    steps : int, sequence of int or slice, optional
        Denoising steps by their number, from the end if negative.
    layers : str, int or sequence of them, optional
        Patterns on the module path or the group, or places in the execution order.
    heads : int or sequence of int, optional
        Heads by their number in the model.
    words : str, int, Concept or sequence of them, optional
        Words of the prompt, or positions of tokens, whose columns are kept of cross-attention. Their columns are stored as
        weights, and rows then sum to less than 1.
    overwrite : bool
        Replace a trace at `path`.

    Returns
    -------
    Path
        Where the trace is.

    Raises
    ------
    InputError
        If something selected was not recorded, or `words` are asked of joint attention, whose rows are words, too.
    StoreError
        If there is something at `path`, or it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import vico_lens as vl
    >>> from vico_lens.testing.traces import fake_trace
    >>> path = vl.save_trace(fake_trace(), f"{tempfile.mkdtemp()}/part.zarr", steps=-1, layers="cross*", words="red circle")
    >>> part = vl.open_trace(path)
    >>> part.sizes["step"], part.coords["word"].values.tolist()
    (1, ['red', 'circle'])
    """
    sites = records(tree, layers=layers)
    chosen = step_positions(steps, tree.coords["step"].values.tolist())
    tokens = None if words is None else _tokens(tree, words, sites)
    branches: list[Branch] = np.atleast_1d(tree.coords["branch"].values).tolist() if "branch" in tree.coords else ["cond"]
    prompts = max(tree[site.group].sizes.get("prompt", 1) for site in sites)
    calls = [_Calls(tree, site, heads, tokens) for site in sites]
    attrs = {str(name): value for name, value in tree.attrs.items() if name not in _OF_THE_STORE}
    if heads is not None:
        attrs["capture"] = json.dumps(json.loads(attrs.get("capture", "{}")) | {"heads": sorted(listed(heads))})
    if tokens is not None:
        attrs["partial_rows"] = True
    numbers = tree.coords["step"].values[chosen].tolist()
    times = tree.coords["timestep"].values[chosen].tolist() if "timestep" in tree.coords else [float("nan")] * len(chosen)
    writer = TraceWriter(path, form="given", overwrite=overwrite)
    try:
        writer.start(attrs, _tables(tree, tokens), prompts=prompts, branches=branches, steps=numbers)
        for place, number, timestep in zip(chosen, numbers, times, strict=True):
            for site in calls:
                for branch, prompt, parts in site.of_step(place, len(branches), prompts):
                    writer.write(AttentionCall(site.site, number, timestep, branches[branch], prompt, **parts))
            writer.finish_step(number)
        if "video" in tree.children:
            writer.keep_video(np.asarray(tree["video"].to_dataset()["rgb"].values))
        writer.close(complete=bool(tree.attrs.get("complete", True)))
    except BaseException:
        writer.discard()
        raise
    assert writer.path is not None
    return writer.path


class _Calls:
    """The calls of one site of a trace, as they are stored, with the heads and tokens that are kept."""

    def __init__(self, tree: xr.DataTree, record: Record, heads: Heads, tokens: list[int] | None) -> None:
        data = tree[record.group].to_dataset()
        site = data.isel(layer=record.layer)
        count = int(site.coords["heads"]) if "heads" in site.coords else data.sizes["head"]
        labels = data["head"].values[:count].tolist() if "head" in data.coords else list(range(count))
        self.heads = np.array(
            range(count) if heads is None else sorted(positions("heads", heads, labels, f" of {record.module}"))
        )
        self.data, self.record, self.tokens = data, record, tokens
        self.lazy = {str(name): _behind(array.variable) for name, array in data.data_vars.items()}
        size = int(site.coords["head_size"]) if "head_size" in site.coords else 1
        text = 0 if record.kind not in ("cross", "joint") else tree.sizes["token"] if tokens is None else len(tokens)
        self.site = AttentionSite(record.module, record.kind, record.grid, len(self.heads), size, text, record.order)

    def of_step(self, step: int, branches: int, prompts: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yield branch, prompt and content of every call of a step; calls that were not made are left out."""
        import torch

        for branch in range(branches):
            for prompt in range(prompts):
                at = {"step": step, "branch": branch, "prompt": prompt, "layer": self.record.layer}
                parts = self._call({dim: place for dim, place in at.items() if dim in self.data.dims})
                content = parts["query"] if parts.get("query") is not None else parts["probabilities"]
                if not bool(torch.isnan(content).all()):
                    yield branch, prompt, parts

    def _call(self, at: dict[str, int]) -> dict[str, Any]:
        import torch

        nothing = {"query": None, "key": None, "scale": 1.0}
        if self.tokens is not None and self.record.kind == "cross":
            columns = self.data["weights"].isel(at).isel(head=self.heads, token=self.tokens)
            return nothing | {"probabilities": torch.from_numpy(columns.values)}
        stored = {name: self._stored(name, at) for name in (JOINT_BLOCKS if self.record.kind == "joint" else ["weights"])}
        first = next(iter(stored.values()))
        if "query" in first:
            parts: dict[str, Any] = {name: torch.from_numpy(first[name]) for name in ("query", "key", "bias") if name in first}
            return {**parts, "scale": first["scale"]}
        maps = {name: torch.from_numpy(np.ascontiguousarray(part["weights"])) for name, part in stored.items()}
        return nothing | {"probabilities": maps["weights"] if "weights" in maps else _joined(maps, self.site)}

    def _stored(self, name: str, at: dict[str, int]) -> dict[str, Any]:
        lazy = self.lazy[name]
        if lazy is None:
            return {"weights": self.data[name].isel(at).isel(head=self.heads).values}
        weights, axes = lazy
        leading = tuple(int(axes[dim][place]) for dim, place in at.items())
        return weights.stored(leading, axes["head"][self.heads])


def _behind(variable: xr.Variable) -> tuple[LazyWeights, dict[str, np.ndarray]] | None:
    """Find the stored weights behind a variable, and which places of them it shows along each leading dimension."""
    data: Any = variable._data
    weights = getattr(data, "array", None)
    if not isinstance(weights, LazyWeights):
        return None
    places = [np.arange(size)[part] for size, part in zip(weights.shape, data.key.tuple, strict=True)]
    if any(np.ndim(place) == 0 for place in places):
        return None
    return weights, {str(dim): place for dim, place in zip(variable.dims, places, strict=True) if dim in LEADING_DIMS}


def _joined(maps: dict[str, Tensor], site: AttentionSite) -> Tensor:
    """Put the four blocks of a joint softmax together, text first: ``[head, sequence, key_sequence]``."""
    import torch

    size = {"text": site.tokens, "video": site.cells}
    block = {name: part.reshape(len(part), size[name.split("_")[0]], size[name.split("_")[1]]) for name, part in maps.items()}
    text = torch.cat([block["text_text"], block["text_video"]], -1)
    return torch.cat([text, torch.cat([block["video_text"], block["video_video"]], -1)], -2)


def _tokens(tree: xr.DataTree, words: Any, sites: Sequence[Record]) -> list[int]:
    """Positions of the tokens to keep."""
    if any(site.kind == "joint" for site in sites):
        raise InputError(
            "words: expected cross-attention; in joint attention words are rows, too, and are kept whole. Leave it out."
        )
    if tree.coords["token_text"].ndim == 2:
        raise InputError("words: expected a trace of one prompt; each prompt of this batch has words of its own. Leave it out.")
    count = tree.sizes["token"]
    numbers = [word for word in listed(words) if isinstance(word, int)]
    named = [word for word in listed(words) if not isinstance(word, int)]
    positions("words", numbers, range(count)) if numbers else None
    return sorted({*numbers, *(token for concept in (find_concepts(tree, named) if named else ()) for token in concept.tokens)})


def _tables(tree: xr.DataTree, tokens: list[int] | None) -> list[TokenTable]:
    """Token tables of the prompts, cut down to `tokens`."""
    columns = {field: tree.coords[name].values for name, field in TOKEN_COORDS.items() if name in tree.coords}
    rows = len(columns["text"]) if columns["text"].ndim == 2 else 1
    kept = slice(None) if tokens is None else tokens
    tables = []
    for row in range(rows):
        fields = {field: (values[row] if values.ndim == 2 else values)[kept].tolist() for field, values in columns.items()}
        blank = {"start": [-1] * len(fields["text"]), "stop": [-1] * len(fields["text"]), "id": [-1] * len(fields["text"])}
        tables.append(TokenTable(**{field: tuple(values) for field, values in (blank | fields).items()}))
    return tables
