"""How pages look: heading, prompt, figures with their finding as text, small numbers.

All foreign text goes through `vico_lens.report.markup`, which escapes it and sets it apart (``<bdi>``); nothing here passes it to
Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from vico_lens.report.markup import Markup, el, foreign, join
from vico_lens.report.media import caption

__all__ = ["concept_mark", "draw", "facts", "heading", "lead", "prompt_line", "styles", "text"]

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


def prompt_line(prompt: str, names: Sequence[str], colours: Mapping[str, str]) -> None:
    """Write the prompt with its concepts marked."""
    from vico_lens.report.story import mark_prompt

    st.html(el("p", mark_prompt(prompt, names, colours), class_="prompt", dir="auto"))


def facts(rows: Mapping[str, Any]) -> None:
    """Write names and values, small, beside each other."""
    st.html(el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in rows.items()], class_="facts"))


def draw(fig: Any, key: str, *, top: bool = True) -> None:
    """Show a figure of `vico_lens.plot`: its finding and note as text above it, which wraps on a phone, then the drawing."""
    meta = fig.layout.meta or {}
    if top and meta.get("finding"):
        st.html(el("div", caption(meta), class_="finding"))
    head = (fig.layout.margin.t or 0) - meta.get("top", 0)
    fig.update_layout(
        title=None,
        height=(fig.layout.height or 400) - head + 10,
        margin={"t": meta.get("top", 0) + 10},
    )
    st.plotly_chart(fig, theme=None, key=key, config={"displayModeBar": False, "responsive": True})


def joined(parts: Sequence[Any]) -> Markup:
    """Join strings (escaped) and `Markup` to one piece."""
    return join(parts)
