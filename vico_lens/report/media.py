"""Videos, filmstrips and figures in a form that a single file can carry."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vico_lens.plot.colours import concept_colours
from vico_lens.plot.composite import Frames, as_frames, enlarge, overlay, spans
from vico_lens.plot.export import filmstrip, mp4_bytes, webp_bytes
from vico_lens.plot.reading import concept_names, influence_maps
from vico_lens.plot.theme import template
from vico_lens.report.markup import Markup, el, foreign, join, json_block

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Figures", "maps_strip", "video_element"]

_VIDEO_BYTES = 600_000  # a video above this is encoded more coarsely: plotly takes 4.8 of the page's 8 MB
_STRIP_FRAMES = 8


class Figures:
    """The plotly figures of a page: each becomes an empty box with a caption, its numbers go into a JSON element at the end."""

    def __init__(self) -> None:
        self._blocks: list[Markup] = []

    def add(self, fig: Figure, *, css: str = "") -> Markup:
        """Take a figure; return its place in the text, with the figure's finding and note as caption."""
        name = f"figure-{len(self._blocks) + 1}"
        content = json.loads(fig.to_json())
        layout = content["layout"]
        meta = layout.pop("meta", {})
        for key in ("template", "title", "height"):
            layout.pop(key, None)
        layout["margin"] = {**layout.get("margin", {}), "t": meta.get("top", 0) + 10}
        height = meta.get("height", 360) + meta.get("top", 0) + meta.get("bottom", 12) + 10
        kept = {"data": content["data"], "layout": layout, "frames": content.get("frames", [])}
        self._blocks.append(
            json_block({**kept, "height": height, "meta": {k: meta[k] for k in ("grid", "top", "bottom") if k in meta}}, name)
        )
        box = el(
            "div",
            class_="plot",
            data_figure=name,
            style=f"height:{height}px",
            role="img",
            aria_label=_spoken(meta.get("finding", "")),
        )
        return el("figure", caption(meta), box, class_=f"drawn {css}".strip())

    def blocks(self) -> Markup:
        """Return the JSON elements of all figures and the two templates they are drawn with."""
        if not self._blocks:
            return Markup("")
        return join([*self._blocks, json_block({"light": template("light"), "dark": template("dark")}, "templates")])

    def __len__(self) -> int:
        return len(self._blocks)


def caption(meta: Mapping[str, Any]) -> Markup:
    """Write a figure's finding and note, which are escaped for plotly already and have to be escaped for HTML instead."""
    finding, note = _spoken(meta.get("finding", "")), _spoken(meta.get("note", ""))
    return el("figcaption", el("strong", finding if finding[-1:] in ".?!" else f"{finding}."), f" {note}" if note else None)


def _spoken(text: str) -> str:
    """Undo `plot.wording.plain`."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def video_element(video: Any, fps: float, label: str) -> Markup:
    """Put a video into the page: H.264 inside the file, muted, looping, with its first frame as poster and for print."""
    frames = as_frames(video)
    scale = max(1, 384 // frames.shape[1])
    for quality in (12, 24, 34, 44):
        content = mp4_bytes(frames, fps, scale=scale, crf=quality)
        if len(content) <= _VIDEO_BYTES:
            break
    poster = webp_bytes(enlarge(frames[:1], scale)[0], quality=None if scale > 1 else 80)
    return el(
        "video",
        src=_address(content, "video/mp4"),
        poster=_address(poster, "image/webp"),
        muted=True,
        loop=True,
        autoplay=True,
        playsinline=True,
        preload="auto",
        width=frames.shape[2] * scale,
        height=frames.shape[1] * scale,
        data_frames=len(frames),
        data_fps=f"{fps:g}",
        aria_label=label,
    )


def maps_strip(influence: xr.DataArray, video: Any, colours: Mapping[str, str], label: str) -> Markup:
    """Lay the video and every concept's map over it out frame by frame, as still pictures: what print and paper can show."""
    maps, names, frames = influence_maps(influence), concept_names(influence), as_frames(video)
    colour = concept_colours(names, colours)
    picks = np.unique(np.linspace(0, len(frames) - 1, min(_STRIP_FRAMES, len(frames))).round().astype(int))
    rows = [_strip_row(el("span", label), frames[picks], f"{label}: the video, frames {picks.tolist()}")]
    for name, values, span in zip(names, np.abs(maps.values), spans(abs(maps)), strict=True):
        painted = overlay(frames, values, colour[name], span)[picks]
        rows.append(
            _strip_row(
                foreign(name, class_="concept", style=f"--tint:{colour[name]}"),
                painted,
                f"influence of {name}, frames {picks.tolist()}",
            )
        )
    return el("div", rows, class_="strip")


def _strip_row(label: Markup, frames: Frames, spoken: str) -> Markup:
    frames = (
        enlarge(frames, -(-64 // frames.shape[1]))
        if frames.shape[1] < 64
        else frames[:, :: frames.shape[1] // 64, :: frames.shape[1] // 64]
    )
    picture = filmstrip(np.ascontiguousarray(frames), gap=2)
    image = el(
        "img", src=_address(webp_bytes(picture), "image/webp"), alt=spoken, width=picture.shape[1], height=picture.shape[0]
    )
    return el("div", el("div", label, class_="strip-label"), image, class_="strip-row")


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
