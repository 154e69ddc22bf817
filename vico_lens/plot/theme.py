"""How every figure looks: two templates, one way to set a title, nothing else decides on style.

All that depends on the page (ink, paper, grid lines) lives in the template and nowhere else. So a page that turns dark
swaps the template and is done; the report and the dashboards rely on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from vico_lens.errors import InputError
from vico_lens.plot.colours import PALETTE
from vico_lens.plot.wording import wrapped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["FONT", "INK", "Theme", "finish", "label_ends", "label_room", "library", "new_figure", "template"]

Theme = Literal["light", "dark"]
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
INK: Mapping[str, Mapping[str, str]] = {
    "light": {"paper": "#ffffff", "ink": "#1c2128", "muted": "#59636e", "rule": "#e4e7eb", "control": "#f3f5f7"},
    "dark": {"paper": "#15181d", "ink": "#e6e9ed", "muted": "#98a2ae", "rule": "#2b3038", "control": "#22272e"},
}


def template(theme: Theme = "light") -> dict[str, Any]:
    """Return the layout template of a theme as a plain dict (no plotly needed).

    Raises
    ------
    InputError
        If `theme` is neither ``"light"`` nor ``"dark"``.

    Examples
    --------
    >>> sorted(template("dark"))
    ['data', 'layout']
    """
    if theme not in INK:
        raise InputError(f"theme must be 'light' or 'dark', got {theme!r}.")
    ink = INK[theme]
    axis = {
        "gridcolor": ink["rule"],
        "linecolor": ink["rule"],
        "zeroline": False,
        "tickcolor": ink["rule"],
        "tickfont": {"color": ink["muted"], "size": 12},
        "title": {"font": {"color": ink["muted"], "size": 13}, "standoff": 8},
        "automargin": True,
    }
    layout = {
        "font": {"family": FONT, "size": 13, "color": ink["ink"]},
        "title": {
            "font": {"size": 17, "color": ink["ink"]},
            "x": 0.0,
            "xref": "container",
            "xanchor": "left",
            "yanchor": "top",
            "pad": {"l": 12},
        },
        "paper_bgcolor": ink["paper"],
        "plot_bgcolor": ink["paper"],
        "colorway": list(PALETTE.values()),
        "xaxis": axis,
        "yaxis": axis,
        "legend": {"font": {"color": ink["ink"]}, "bgcolor": "rgba(0,0,0,0)"},
        "hoverlabel": {
            "font": {"family": FONT, "size": 12, "color": ink["ink"]},
            "bgcolor": ink["control"],
            "bordercolor": ink["rule"],
        },
        "annotationdefaults": {"font": {"color": ink["ink"]}},
        "shapedefaults": {"line": {"color": ink["muted"]}},
        "sliderdefaults": {
            "bgcolor": ink["rule"],
            "bordercolor": ink["rule"],
            "activebgcolor": ink["muted"],
            "tickcolor": ink["muted"],
            "font": {"color": ink["muted"], "size": 11},
            "currentvalue": {"font": {"color": ink["ink"], "size": 13}},
        },
        "updatemenudefaults": {"bgcolor": ink["control"], "bordercolor": ink["rule"], "font": {"color": ink["ink"], "size": 13}},
        "modebar": {"color": ink["muted"], "activecolor": ink["ink"], "bgcolor": "rgba(0,0,0,0)"},
    }
    colour_bar = {"outlinewidth": 0, "thickness": 12, "tickfont": {"color": ink["muted"], "size": 11}}
    return {
        "layout": layout,
        "data": {
            "heatmap": [{"colorbar": colour_bar, "textfont": {"color": ink["ink"]}}],
            "sankey": [{"textfont": {"color": ink["ink"]}}],
        },
    }


def new_figure(theme: Theme = "light", **layout: Any) -> Figure:
    """Make an empty figure in a theme; `layout` overrides single settings."""
    import plotly.graph_objects as go

    return go.Figure(layout={"template": template(theme), **layout})


def label_ends(fig: Figure, ends: Sequence[tuple[str, float, float, str]], *, axis: str = "", room: float = 1.0) -> None:
    """Write each line's name at its right end in its colour, so that no reader has to match colours with a legend.

    Parameters
    ----------
    fig : plotly.graph_objects.Figure
    ends : sequence of (name, x, y, colour)
        Names are escaped already. Labels that would overlap are moved apart.
    axis : str
        Number of the axes, as in ``x2``; empty for the first.
    room : float
        Extent of the y axis, in its units.
    """
    least = 0.075 * room
    placed: list[float] = []
    for name, x, y, colour in sorted(ends, key=lambda end: end[2]):
        height = max(y, placed[-1] + least) if placed else y
        placed.append(height)
        fig.add_annotation(
            x=x, y=height, xref=f"x{axis}", yref=f"y{axis}", text=f"<b>{name}</b>", showarrow=False, xanchor="left", xshift=8,
            font={"color": colour, "size": 12},
        )  # fmt: skip


def library() -> str:
    """Return the source of plotly's JavaScript, for a page that has to work without a network."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def finish(
    fig: Figure,
    finding: str,
    note: str = "",
    *,
    theme: Theme = "light",
    height: int = 420,
    top: int = 0,
    bottom: int = 12,
    left: int = 12,
    right: int = 16,
) -> Figure:
    """Set the title, the note under it and the margins that both need; return `fig`.

    Parameters
    ----------
    fig : plotly.graph_objects.Figure
        Figure without a title.
    finding : str
        What the figure shows, as a sentence; foreign names in it are escaped already (`wording.plain`).
    note : str
        What is drawn, in which unit, from which data.
    height : int
        Height of the plotting part, in pixels; the title's lines come on top.
    top, bottom, left, right : int
        Extra room in pixels: between title and plot (panel titles), below it (sliders), beside it (row labels, names of lines).

    The sentences and sizes are kept in ``layout.meta`` too, where a page finds them to set the sentences as its own text.
    """
    title, under = wrapped(finding, 58), wrapped(note, 84) if note else []
    head = 18 + 23 * len(title) + 18 * len(under) + 10
    text = f"<b>{'<br>'.join(title)}</b>"
    if under:
        text += f"<br><span style='font-size:13px;color:{INK[theme]['muted']}'>{'<br>'.join(under)}</span>"
    total = head + top + height + bottom
    fig.update_layout(
        title={"text": text, "y": 1 - 16 / total, "yref": "container"},
        height=total,
        margin={"l": left, "r": right, "t": head + top, "b": bottom},
        meta={**(fig.layout.meta or {}), "finding": finding, "note": note, "height": height, "top": top, "bottom": bottom},
    )
    return fig


def label_room(names: Sequence[str]) -> int:
    """Pixels that the names of lines take at their right."""
    return 24 + 7 * min(24, max(map(len, names), default=0))
