"""The attention sites of a trace as a page offers them: short names, what they read, how much one map of them takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import xarray as xr

from vico_lens.errors import VicoLensError
from vico_lens.store.layout import attention_groups
from vico_lens.store.selection import group_data, records, select_run, text_coordinate
from vico_lens.vocabulary.concepts import find_concepts

__all__ = ["Site", "prompt_words", "quick_look", "rest", "sites_of"]


@dataclass(frozen=True, slots=True)
class Site:
    """One attention site.

    Attributes
    ----------
    module : str
        Path in the model, which names it in links.
    kind : str
        ``cross``, ``spatial``, ``temporal``, ``spacetime`` or ``joint``.
    grid : tuple of int
        Frames, rows and columns of its tokens.
    heads : int
        Number of heads.
    order : int
        Place in the execution order.
    step_bytes : int
        What its weights of one step take in memory.
    """

    module: str
    kind: str
    grid: tuple[int, int, int]
    heads: int
    order: int
    step_bytes: int

    @property
    def label(self) -> str:
        """Short name for lists.

        >>> Site("unet.up_blocks.0.attentions.1.transformer_blocks.0.attn2", "cross", (8, 4, 4), 4, 3, 0).label
        '3 · cross 8×4×4 · up_blocks.0.attentions.1'
        """
        parts = self.module.split(".")
        short = ".".join(parts[1:5] if len(parts) > 5 else parts[-3:])
        return f"{self.order} · {self.kind} {'×'.join(map(str, self.grid))} · {short}"


def sites_of(tree: xr.DataTree) -> list[Site]:
    """List the sites in their order of execution."""
    found = []
    for _, kind, grid, node in attention_groups(tree):
        weight = sum(int(array.nbytes) for array in node.data_vars.values()) // max(1, node.sizes["layer"] * tree.sizes["step"])
        columns = (node.coords[name].values for name in ("module", "heads", "order"))
        found += [
            Site(str(module), kind, grid, int(heads), int(order), weight) for module, heads, order in zip(*columns, strict=True)
        ]
    return sorted(found, key=lambda site: site.order)


def quick_look(tree: xr.DataTree, concepts: tuple[str, ...], step: int) -> xr.DataArray:
    """Read the attention to each concept at one step and one site, the middle one on the finest grid that reads words.

    A slice of the trace and nothing else, so it takes no time however large the trace is, and no torch where weights are stored.

    Returns
    -------
    DataArray
        ``concept, frame, y, x``, mean over heads.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> quick_look(fake_trace(), ("red circle", "blue square"), 1).dims
    ('concept', 'frame', 'y', 'x')
    """
    readers = records(tree, kinds=("cross", "joint"))
    finest = max(prod(record.grid) for record in readers)
    readers = [record for record in readers if prod(record.grid) == finest]
    middle = readers[len(readers) // 2]
    data = group_data(tree, middle.group)["weights" if middle.kind == "cross" else "video_text"]
    weights = select_run(data, step=step, layer=middle.layer, prompt=0 if "prompt" in data.dims else None)
    found = find_concepts(tree, list(concepts))
    maps = [weights.isel(token=list(concept.tokens)).mean("head").sum("token").load() for concept in found]
    joined = xr.concat([part.drop_vars(list(part.coords)) for part in maps], dim="concept")
    joined = joined.assign_coords(concept=list(concepts), step=step).transpose("concept", "frame", "y", "x")
    return joined.assign_attrs(method=f"cross attention of one site, {middle.module}")


def rest(tree: xr.DataTree, words: tuple[str, ...], step: int, module: str | None, head: int | None) -> dict[str, float]:
    """Say where the attention to the prompt goes that these words do not get: its mean over the video, by kind of token.

    Parameters
    ----------
    tree : DataTree
        A trace.
    words : tuple of str
        Words that are shown.
    step, module, head : int, str, int
        Denoising step, one site (the mean over all that read text if None), one head (their mean if None).

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> list(rest(fake_trace(), ("red circle",), 1, None, None))
    ['other words', 'start and end', 'padding']
    """
    means = []
    for record in records(tree, kinds=("cross", "joint")):
        if module in (None, record.module):
            data = group_data(tree, record.group)["weights" if record.kind == "cross" else "video_text"]
            call = select_run(data, step=step, layer=record.layer, heads=head, prompt=0 if "prompt" in data.dims else None)
            means.append(call.mean([dim for dim in call.dims if dim != "token"]).values)
    share = np.nanmean(means, axis=0)
    shown = {token for concept in find_concepts(tree, list(words)) for token in concept.tokens}
    kinds = np.array(["shown" if i in shown else str(kind) for i, kind in enumerate(text_coordinate(tree, "token_kind", 0))])
    names = {"text": "other words", "special": "start and end", "padding": "padding"}
    return {name: float(share[kinds == kind].sum()) for kind, name in names.items() if (kinds == kind).any()}


def prompt_words(tree: xr.DataTree, concepts: tuple[str, ...]) -> list[str]:
    """List what can be looked up in the prompt: the concepts, then every single word that is not one."""
    texts, kinds = (text_coordinate(tree, name, 0) for name in ("word", "token_kind"))
    words = dict.fromkeys(str(word) for word, kind in zip(texts, kinds, strict=True) if kind == "text" and word)
    found = list(concepts)
    for word in words:
        if word in found:
            continue
        try:
            find_concepts(tree, [word])
        except VicoLensError:
            continue
        found.append(word)
    return found
