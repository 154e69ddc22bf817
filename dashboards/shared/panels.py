"""Small pictures beside each other that wrap on a phone: a video and the maps over it, moving, or one frame of them.

Plotly's panels keep their number a row whatever the width, so on a phone their titles run into each other. These are
plain images.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st
import xarray as xr
from PIL import Image

from vico_lens.plot.composite import Frames, Scale, as_frames, enlarge, overlay, spans
from vico_lens.plot.reading import concept_names, influence_maps
from vico_lens.plot.wording import number, percent
from vico_lens.report.markup import Markup, el, foreign

__all__ = ["map_panels", "picture", "show"]

_SHARP = 192  # rows up to which small pictures are enlarged: browsers blur the rest of the way
_MILLISECONDS = 160


def picture(frames: Frames, spoken: str) -> Markup:
    """Make an image element of one frame, or a looping one of several; `frames` is uint8 ``(frame, row, column, 3)``."""
    large = enlarge(frames, max(1, _SHARP // frames.shape[1]))
    images = [Image.fromarray(frame) for frame in large]
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": images[1:], "duration": _MILLISECONDS, "loop": 0} if len(images) > 1 else {}
    images[0].save(buffer, format="WEBP", lossless=frames.shape[1] < _SHARP, quality=80, **more)
    address = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return el("img", src=address, alt=spoken, width=large.shape[2], height=large.shape[1])


def map_panels(
    maps: xr.DataArray,
    video: Any,
    colours: Mapping[str, str],
    *,
    frame: int | None = None,
    scale: Scale = "shared",
    film: bool = True,
    shares: bool = True,
) -> list[Markup]:
    """Make one panel for the video and one a concept.

    Parameters
    ----------
    maps : DataArray
        ``concept, [step], frame, y, x``; the mean over steps is shown.
    video : ndarray or None
        uint8 ``(frame, row, column, 3)``; without one the maps stand on white.
    colours : mapping
        Colour of each concept.
    frame : int, optional
        Frame of the video to show; all, moving, if None.
    scale : {"shared", "each"}
        One scale for all concepts, or each its own.
    film : bool
        Whether the video itself comes first.
    shares : bool
        Write each concept's share of the total; else the mean and the largest value of its maps.
    """
    values = influence_maps(maps)
    names = concept_names(values)
    frames = None if video is None else as_frames(video)
    count = values.sizes["frame"] if frames is None else len(frames)
    part = slice(None) if frame is None else slice(frame, frame + 1)
    total = abs(values).sum()
    panels = []
    if film and frames is not None:
        panels.append(_panel(el("span", "video"), picture(frames[part], "the generated video")))
    for name, one, span in zip(names, np.abs(values.values), spans(abs(values), scale), strict=True):
        painted = overlay(frames, one, colours[name], span)
        if frames is None:
            painted = painted[(np.arange(count) * len(painted)) // count]
        told = (
            percent(float(one.sum() / total)) if shares else f"mean {number(float(one.mean()))}, most {number(float(one.max()))}"
        )
        label = el("span", foreign(name, class_="concept", style=f"--tint:{colours[name]}"), el("small", f" {told}"))
        panels.append(_panel(label, picture(painted[part], f"maps of {name}")))
    return panels


def show(panels: Sequence[Markup], label: str | None = None) -> None:
    """Put panels into the page, side by side as far as there is room; `label` names the row."""
    st.html(el("div", el("h3", label) if label else None, el("div", list(panels), class_="panels"), class_="panel-row"))


def _panel(label: Markup, image: Markup) -> Markup:
    return el("figure", image, el("figcaption", label), class_="panel")
