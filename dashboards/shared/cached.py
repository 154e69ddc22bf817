"""What is computed once and kept: opened traces as a resource, reduced arrays as data, both bounded.

Everything is keyed by where the trace lies and which version of it (`opening.version_of`), so a file that was written again is
read again. The trees themselves are lazy and are shared by everyone who looks at this server: nothing here changes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import networkx as nx
import streamlit as st
import xarray as xr

from shared import sites
from vico_lens.report.markup import Markup
from vico_lens.tinyworld.demonstration import Which, demo_comparison, demo_influence, demo_trace

__all__ = [
    "agreement",
    "between_frames",
    "faithfulness",
    "film_of",
    "influence",
    "is_kept",
    "maps",
    "open_tree",
    "quick_look",
    "rest",
    "routes",
    "video_of",
]


@st.cache_resource(max_entries=8, show_spinner=False)
def open_tree(path: str, version: str) -> xr.DataTree:
    """Open a trace: only its metadata is read."""
    import vico_lens as vl

    return vl.open_trace(path)


@st.cache_data(max_entries=8, show_spinner=False)
def video_of(path: str, version: str) -> Any:
    """Return the video as uint8 ``(frame, row, column, channel)``; None where the trace keeps none."""
    tree = open_tree(path, version)
    return tree["video/rgb"].values if "video" in tree.children else None


@st.cache_data(max_entries=8, show_spinner=False)
def film_of(path: str, version: str) -> Markup | None:
    """Return the video as a looping picture that lies in the page itself."""
    from shared.panels import picture

    frames = video_of(path, version)
    return None if frames is None else picture(frames, "the generated video")


@st.cache_data(max_entries=16, show_spinner="Reading one map")
def quick_look(path: str, version: str, concepts: tuple[str, ...], step: int) -> xr.DataArray:
    """Read one site at one step: what a page shows of a trace that is too large for more; see `shared.sites.quick_look`."""
    return sites.quick_look(open_tree(path, version), concepts, step)


def is_kept(path: str, method: str) -> bool:
    """Tell whether influence by this method, over all steps, came with the trace."""
    kept = _kept(path)
    return kept is not None and method in kept


@st.cache_data(max_entries=64, show_spinner="Computing influence")
def influence(
    path: str,
    version: str,
    method: str,
    concepts: tuple[str, ...] | None = None,
    steps: tuple[int, ...] | None = None,
    options: tuple[tuple[str, Any], ...] = (),
) -> xr.DataArray:
    """Attribute a trace, or take what was computed before: the bundled one carries its influence over all steps with it.

    `concepts` are names; None finds them in the prompt. `steps` None takes all of them.
    """
    kept = None if options else _kept(path)
    if kept is not None and method in kept:
        found = kept[method]
        if concepts is None or set(concepts) <= set(found["concept"].values.tolist()):
            found = found if concepts is None else found.sel(concept=list(concepts))
            return found if steps is None else found.sel(step=list(steps))
    import vico_lens as vl

    names = list(concepts) if concepts else None
    return vl.attribute(open_tree(path, version), method, names, steps=list(steps) if steps else None, **dict(options))


@st.cache_data(max_entries=64, show_spinner="Reading maps")
def maps(path: str, version: str, words: tuple[str, ...], step: int, site: str | None, head: int | None) -> xr.DataArray:
    """Read where words are read: ``(concept, frame, y, x)`` of one step, one site or their mean, one head or their mean."""
    from vico_lens.store.reading import concept_maps

    return concept_maps(open_tree(path, version), list(words), step=step, layers=site, heads=None if head is None else [head])


@st.cache_data(max_entries=64, show_spinner="Reading maps")
def rest(path: str, version: str, words: tuple[str, ...], step: int, site: str | None, head: int | None) -> dict[str, float]:
    """Read how much of the attention to the prompt goes to other words, to start and end, and to padding: mean over the video."""
    return sites.rest(open_tree(path, version), words, step, site, head)


@st.cache_data(max_entries=32, show_spinner="Reading attention between frames")
def between_frames(path: str, version: str, step: int) -> xr.DataArray:
    """Read how much frames look at each other at one step: ``(frame, key_frame)``."""
    from vico_lens.store.reading import temporal_matrix

    return temporal_matrix(open_tree(path, version), step=step)


@st.cache_data(max_entries=32, show_spinner="Following the flow")
def routes(path: str, version: str, concepts: tuple[str, ...], step: int, carry: str, sink: str) -> dict[str, nx.DiGraph]:
    """Solve the network of one step on a grid coarse enough to draw, a graph a concept."""
    from vico_lens import plot
    from vico_lens.attribution.graph import AttentionGraph

    graph = AttentionGraph.from_trace(open_tree(path, version), step)
    return plot.concept_graphs(graph, list(concepts), sink=sink, carry=carry)


@st.cache_data(max_entries=32, show_spinner="Comparing methods")
def agreement(path: str, version: str, methods: tuple[str, ...], _found: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Agreement of each two methods, ``(method, other_method)``: the quantity of `vico_lens.compare`."""
    kept = _comparison(path)
    if kept is not None and set(methods) <= set(kept["method"].values.tolist()):
        return kept["agreement"].sel({"method": list(methods), "other_method": list(methods)})
    from vico_lens.attribution.judging.comparison import agreement_of

    return agreement_of({name: _found[name] for name in methods})


def faithfulness(path: str) -> xr.Dataset | None:
    """Return the scores that came with the trace: the bundled demonstration's."""
    kept = _comparison(path)
    return None if kept is None else kept.drop_dims("other_method")


def _comparison(path: str) -> xr.Dataset | None:
    return demo_comparison() if path == str(demo_trace("plain")) else None


@st.cache_resource(max_entries=4, show_spinner=False)
def _kept(path: str) -> xr.Dataset | None:
    """Influence that came with a trace: the bundled demonstration's."""
    names: tuple[Which, ...] = ("plain", "balanced")
    return next((demo_influence(which) for which in names if path == str(demo_trace(which))), None)
