"""The current view: which trace, which concepts, which theme; kept in the address of the page, so that a view is a link.

Widgets of a page put themselves into the address with ``key=`` and ``bind="query-params"``. The trace and the concepts, which all
pages share, are handled here.
"""

from __future__ import annotations

import html
from typing import Literal

import streamlit as st

from shared import notices
from shared.launch import launched
from shared.opening import Opened, open_named
from vico_lens.errors import VicoLensError
from vico_lens.plot.colours import concept_colours
from vico_lens.vocabulary.concepts import find_concepts

__all__ = ["choose_trace", "colours", "concepts", "current", "first_trace", "label", "theme", "valid_choice", "valid_choices"]

_TRACE = "trace_name"


def first_trace() -> str:
    """Name of the trace to open when nothing was chosen: that of the link, else of the command line, else the demonstration."""
    given = launched().traces
    return str(st.query_params.get("trace") or (given[0] if given else "demo"))


def choose_trace(name: str) -> None:
    """Open another trace from the next run on."""
    st.session_state[_TRACE] = name


def current() -> Opened:
    """Return the trace that is open. Where it cannot be opened, the page says why and stops here."""
    name = st.session_state.setdefault(_TRACE, first_trace())
    try:
        opened = open_named(name, launched().roots)
    except VicoLensError as error:
        notices.error("This trace cannot be opened.", error)
        st.stop()
    if name != "demo":
        st.query_params["trace"] = name
    return opened


def concepts(opened: Opened) -> tuple[str, ...]:
    """Names of the concepts found in the prompt. Without any, the page says so and stops."""
    try:
        return tuple(concept.name for concept in find_concepts(opened.tree))
    except VicoLensError as error:
        notices.error("No concept was found in the prompt.", error)
        st.stop()


def colours(names: tuple[str, ...]) -> dict[str, str]:
    """Give each concept its one colour."""
    return concept_colours(names)


def theme() -> Literal["light", "dark"]:
    """Tell which theme the browser shows; figures take it as ``theme=``."""
    return "dark" if st.context.theme.type == "dark" else "light"


def valid_choice(key: str, options: list[str]) -> None:
    """Forget a widget's value that this trace does not offer, before the widget is drawn (another trace, an old link)."""
    if key in st.session_state and st.session_state[key] not in options:
        del st.session_state[key]


def valid_choices(key: str, options: list[str]) -> None:
    """Do the same for a widget with several values: those that are not offered are left out."""
    if key in st.session_state and not set(st.session_state[key]) <= set(options):
        del st.session_state[key]


def label(text: object) -> str:
    r"""Write foreign text so that a widget's label, which reads Markdown, shows it as it is.

    >>> label("a *red* [x](y)")
    'a \\*red\\* \\[x\\]\\(y\\)'
    """
    marks = set("\\`*_{}[]()<>#+-!|~:$&")
    return "".join(f"\\{sign}" if sign in marks else sign for sign in html.unescape(str(text)))
