"""A grid of maps that move together: rows are runs or methods, columns the video and the concepts, one slider for all."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vico_lens.plot.colours import alpha_scale
from vico_lens.plot.composite import Frames, enlarge, grey
from vico_lens.plot.theme import Theme, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["MapRow", "add_player", "panel_grid", "picture_uri"]

_SHARP = 160  # rows below which a picture is enlarged before it is drawn: plotly and browsers blur small images
_LARGE = 240  # rows above which it is made smaller: a panel has no more pixels, and every animation frame carries its pictures


@dataclass(frozen=True, slots=True)
class MapRow:
    """One row of the grid: maps of all concepts of one run or method, and the video they belong to."""

    label: str  # escaped already; empty for none
    maps: xr.DataArray  # concept frame y x
    spans: NDArray[np.float64]  # concept 2: the values painted clear and opaque
    titles: Sequence[str]  # escaped, one a concept
    frames: Frames | None = None


def panel_grid(
    rows: Sequence[MapRow],
    names: Sequence[str],
    colours: Mapping[str, str],
    *,
    film: bool = True,
    most: int = 48,
    fps: float = 8.0,
    theme: Theme = "light",
) -> Figure:
    """Draw the grid with its slider and play button, without a title.

    Parameters
    ----------
    rows : sequence of MapRow
        Rows of equal concepts.
    names : sequence of str
        The concepts, in the order of the maps.
    colours : mapping
        Colour of each concept.
    film : bool
        Whether the first column shows the video, if there is one; it lies in grey under the maps either way.
    most : int
        Frames shown at most, evenly spread; every frame carries its pictures, and a page has to stay small.
    """
    from plotly.subplots import make_subplots

    filmed = film and any(row.frames is not None for row in rows)
    across = len(names) + filmed
    titles = [title for r, row in enumerate(rows) for title in (["" if r else "video"] if filmed else []) + list(row.titles)]
    grid = make_subplots(
        rows=len(rows),
        cols=across,
        subplot_titles=titles,
        horizontal_spacing=0.025,
        vertical_spacing=0.09 / max(1, len(rows) - 1) if len(rows) > 1 else 0.0,
    )
    fig = new_figure(theme)
    fig.update_layout(grid.layout.to_plotly_json() | {"template": fig.layout.template})
    fig.update_annotations(font_size=13)
    for r, row in enumerate(rows):
        if row.label:
            middle = sum(fig.layout[f"yaxis{_tail(r * across)}"].domain) / 2
            at = {"x": 0, "y": middle, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "middle", "xshift": -8}
            fig.add_annotation(text=row.label, textangle=-90, showarrow=False, font_size=13, **at)
    fig.update_layout(meta={"grid": [len(rows), across]})
    count = max(len(row.frames) if row.frames is not None else row.maps.sizes["frame"] for row in rows)
    shown = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
    moments = [
        [trace for r, row in enumerate(rows) for trace in _row_traces(row, names, colours, t / count, r * across, filmed)]
        for t in shown
    ]
    fig.add_traces(moments[0])
    fig.frames = [
        {"name": str(t), "data": moment, "traces": list(range(len(moment)))} for t, moment in zip(shown, moments, strict=True)
    ]
    for r, row in enumerate(rows):
        height, width = row.maps.sizes["y"], row.maps.sizes["x"]
        for c in range(across):
            tail = _tail(r * across + c)
            hidden = {"visible": False, "constrain": "domain", "fixedrange": True}
            fig.update_layout(
                {
                    f"xaxis{tail}": {**hidden, "range": [-0.5, width - 0.5]},
                    f"yaxis{tail}": {**hidden, "range": [height - 0.5, -0.5], "scaleanchor": f"x{tail}"},
                }
            )
    add_player(fig, shown, fps * len(shown) / count, drop=0.1 / len(rows))
    return fig


def picture_uri(image: NDArray[np.uint8], *, lossy: bool = False) -> str:
    """Encode one image (``row column channel``) as a data address; no file, no network. Large ones are made smaller."""
    from PIL import Image

    buffer = io.BytesIO()
    picture, form = Image.fromarray(image), "jpeg" if lossy else "png"
    if image.shape[0] > _LARGE:
        picture = picture.resize((round(image.shape[1] * _LARGE / image.shape[0]), _LARGE), Image.Resampling.LANCZOS)
    picture.save(buffer, format=form, optimize=True, **({"quality": 82} if lossy else {}))
    return f"data:image/{form};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def add_player(fig: Figure, frames: Sequence[int], fps: float, *, drop: float = 0.06) -> None:
    """Add play, pause and a slider for animation frames named by the numbers in `frames`, `drop` below the plot."""
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    run = {
        "mode": "immediate",
        "fromcurrent": True,
        "frame": {"duration": 1000 / fps, "redraw": True},
        "transition": {"duration": 0},
    }
    buttons = [
        {"label": "▶", "method": "animate", "args": [None, run]},
        {"label": "❚❚", "method": "animate", "args": [[None], still]},
    ]
    steps = [{"label": str(t), "value": str(t), "method": "animate", "args": [[str(t)], still]} for t in frames]
    fig.update_layout(
        updatemenus=[
            {
                "type": "buttons",
                "direction": "left",
                "showactive": False,
                "x": 0.0,
                "xanchor": "left",
                "y": -drop,
                "yanchor": "top",
                "pad": {"t": 4, "r": 8},
                "buttons": buttons,
            }
        ],
        sliders=[
            {
                "active": 0,
                "x": 0.24,
                "len": 0.76,
                "y": -drop,
                "yanchor": "top",
                "pad": {"t": 0, "b": 0},
                "ticklen": 4,
                "minorticklen": 0,
                "currentvalue": {"prefix": "frame ", "xanchor": "left", "offset": 8},
                "steps": steps,
            }
        ],
    )


def _tail(place: int) -> str:
    return "" if place == 0 else str(place + 1)


def _row_traces(
    row: MapRow, names: Sequence[str], colours: Mapping[str, str], when: float, place: int, filmed: bool
) -> list[dict[str, Any]]:
    """Traces of one row at one moment (`when` from 0 to 1): pictures below, transparent cells that answer the pointer above."""
    height, width = row.maps.sizes["y"], row.maps.sizes["x"]
    traces: list[dict[str, Any]] = []
    if row.frames is not None:
        shown = row.frames[int(when * len(row.frames) + 1e-9)][None]
        lossy = shown.shape[1] >= _SHARP
        shown = shown if lossy else enlarge(shown, -(-_SHARP // shown.shape[1]))
        below = [picture_uri(grey(shown)[0], lossy=lossy)] * len(names)
        pictures = [picture_uri(shown[0], lossy=lossy), *below] if filmed else below
        reduce = min(1.0, _LARGE / shown.shape[1])  # as picture_uri does
        dx, dy = width / round(shown.shape[2] * reduce), height / round(shown.shape[1] * reduce)
        for column, source in enumerate(pictures):
            tail = _tail(place + column)
            at = {"dx": dx, "dy": dy, "x0": (dx - 1) / 2, "y0": (dy - 1) / 2, "xaxis": f"x{tail}", "yaxis": f"y{tail}"}
            traces.append({"type": "image", "source": source, "hoverinfo": "skip", **at})
    moment = int(when * row.maps.sizes["frame"] + 1e-9)  # a latent frame covers several frames of the video
    for i, name in enumerate(names):
        tail = _tail(place + i + filmed)
        traces.append(
            {
                "type": "heatmap",
                "z": [[float(f"{value:.5g}") for value in line] for line in row.maps.values[i, moment]],
                "zmin": float(row.spans[i, 0]),
                "zmax": float(row.spans[i, 1]),
                "colorscale": alpha_scale(colours[name], 0.9),
                "showscale": False,
                "xaxis": f"x{tail}",
                "yaxis": f"y{tail}",
                "hovertemplate": "row %{y}, column %{x}<br>influence %{z:.4g}<extra></extra>",
            }
        )
    return traces
