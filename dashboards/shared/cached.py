"""What is computed once and kept: opened traces as a resource, reduced arrays as data, both bounded.

Everything is keyed by where the trace lies and which version of it (`opening.version_of`), so a file that was written again is
read again. The trees themselves are lazy and are shared by everyone who looks at this server: nothing here changes one.
"""

from __future__ import annotations

from typing import Any

import streamlit as st
import xarray as xr

from vico_lens.tinyworld.demonstration import FOLDER as DEMO
from vico_lens.tinyworld.demonstration import demo_influence

__all__ = ["influence", "open_tree", "video_of"]


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


@st.cache_data(max_entries=64, show_spinner="Computing influence")
def influence(
    path: str,
    version: str,
    method: str,
    concepts: tuple[str, ...] | None = None,
    steps: tuple[int, ...] | None = None,
    options: tuple[tuple[str, Any], ...] = (),
) -> xr.DataArray:
    """Attribute a trace, or take what was computed before: the bundled one carries its influence over all steps with it."""
    kept = _kept(path) if steps is None and not options else None
    if kept is not None and method in kept and (concepts is None or set(concepts) <= set(kept["concept"].values.tolist())):
        return kept[method] if concepts is None else kept[method].sel(concept=list(concepts))
    import vico_lens as vl

    names = list(concepts) if concepts else None
    return vl.attribute(open_tree(path, version), method, names, steps=list(steps) if steps else None, **dict(options))


def _kept(path: str) -> xr.Dataset | None:
    for which in ("plain", "balanced"):
        if path == str(DEMO / f"{which}.zarr.zip"):
            return demo_influence(which)  # type: ignore[arg-type]
    return None
