"""How pages look: heading, prompt, figures with their finding as text, small numbers.

All foreign text goes through `vico_lens.report.markup`, which escapes it and sets it apart (``<bdi>``); nothing here passes it to
Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
import xarray as xr
from streamlit.errors import StreamlitAPIException

from shared import cached, notices
from shared.opening import Opened
from vico_lens.plot.basis import SHARE, basis_of
from vico_lens.report.markup import Markup, el, foreign
from vico_lens.report.media import caption

__all__ = [
    "basis",
    "bullets",
    "chip_colours",
    "concept_mark",
    "draw",
    "facts",
    "film",
    "heading",
    "lead",
    "note",
    "page_link",
    "prompt_line",
    "styles",
    "text",
]

_STYLES = Path(__file__).with_name("styles.css")


def styles() -> None:
    """Give the page its few styles. Called once a run, by the router."""
    st.html(_STYLES)


def heading(finding: Any, under: Any = None) -> None:
    """Open a page: its finding as title, one line under it. Strings are escaped; `Markup` passes."""
    st.html(el("header", el("h1", finding), el("p", under) if under else None, class_="page-head"))


def text(*parts: Any, css: str = "prose") -> None:
    """Write a paragraph of strings (escaped) and `Markup`."""
    st.html(el("p", *parts, class_=css))


def lead(title: str, aside: Any = None) -> None:
    """Open a section."""
    st.html(el("div", el("h2", title), el("p", aside) if aside else None, class_="section-head"))


def concept_mark(name: str, colours: Mapping[str, str]) -> Markup:
    """Write a concept's name in its colour."""
    return foreign(name, class_="concept", style=f"--tint:{colours[name]}")


def chip_colours(key: str, tints: Sequence[str]) -> None:
    """Give the chips of a multiselect the colours of their words, in order; `key` is the widget's."""
    look = "background: transparent; color: inherit; box-shadow: inset 0 0 0 2px"
    rules = [f'.st-key-{key} [data-tag-index="{place}"] {{ {look} {tint}; }}' for place, tint in enumerate(tints)]
    st.html(f"<style>{' '.join(rules)}</style>")


def prompt_line(prompt: str, names: Sequence[str], colours: Mapping[str, str], cut: object = None) -> None:
    """Write the prompt with its concepts marked, and under it the text that has no token (``prompt_cut`` of its trace)."""
    from vico_lens.report.story import cut_line, mark_prompt

    st.html(el("p", mark_prompt(prompt, names, colours), class_="prompt", dir="auto"))
    unread = cut_line(cut)
    if unread is not None:
        st.html(unread)


def facts(rows: Mapping[str, Any]) -> None:
    """Write names and values, small, beside each other."""
    st.html(el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in rows.items()], class_="facts"))


def bullets(sentences: Sequence[Any]) -> None:
    """Write sentences under each other."""
    if sentences:
        st.html(el("ul", [el("li", sentence) for sentence in sentences], class_="brief"))


def note(*parts: Any) -> None:
    """Write small print."""
    text(*parts, css="note")


def basis(influence: xr.DataArray, method: str, chosen: str) -> str:
    """Say what the numbers of a page rest on, in the words of the figures; `chosen` is the method that was asked for."""
    quick = "" if method == chosen else f"A quick look, because {chosen.replace('_', ' ')} computes on much more. "
    limits = "Intervals say how even the shares are within this run, not what another seed gives."
    return f"{quick}{basis_of(influence)} {SHARE} {limits}"


def film(opened: Opened) -> None:
    """Show the video of the trace, looping, or say that it keeps none."""
    frames = opened.video
    if frames is None:
        notices.empty("This trace keeps no video.", "Set run.video = frames inside vl.trace(...) to keep it.")
        return
    told = f"The generated video: {len(frames)} frames of {frames.shape[2]} by {frames.shape[1]} pixels."
    st.html(el("div", cached.film_of(*opened.key), el("p", told, class_="note"), class_="film-strip"))


def page_link(page: str, title: str) -> None:
    """Link to another page, keeping the trace; plain text where pages are not routed (a page tested alone)."""
    try:
        st.page_link(f"views/{page}.py", label=title)
    except StreamlitAPIException:
        text(title)


def draw(fig: Any, key: str, *, finding: bool = True) -> None:
    """Show a figure of `vico_lens.plot`: its finding and note as text above it, which wraps on a phone, then the drawing.

    Parameters
    ----------
    fig : plotly.graph_objects.Figure
        With its finding in ``layout.meta``.
    key : str
        Unique on the page.
    finding : bool
        Whether to write the finding; not where the page has said it already.
    """
    meta = fig.layout.meta or {}
    if finding and meta.get("finding"):
        st.html(el("div", caption(meta), class_="finding"))
    top = meta.get("top", 0) + 10
    height = meta.get("height", 360) + top + meta.get("bottom", 12)
    fig.update_layout(title=None, height=height, margin={"t": top, "r": max(40, fig.layout.margin.r or 0)})
    with st.container(key=f"figure_{key}"):
        st.plotly_chart(fig, theme=None, key=key, config={"displayModeBar": False, "responsive": True})
