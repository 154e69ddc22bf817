"""What a page says when there is nothing to show: one calm box, in words, with what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from vico_lens.errors import VicoLensError
from vico_lens.report.markup import el

__all__ = ["empty", "error", "guarded", "too_large"]


def empty(what: str, next_step: str = "") -> None:
    """Say that there is nothing here, and how something would come here."""
    _box("empty", what, next_step)


def error(what: str, reason: object) -> None:
    """Say what did not work; `reason` is an error of vico-lens, whose message says what to do."""
    _box("error", what, str(reason))


def too_large(what: str, next_step: str) -> None:
    """Say that something would take too long or too much memory, and what would not."""
    _box("large", what, next_step)


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn an error of vico-lens inside the block into a message; the rest of the page goes on."""
    try:
        yield
    except VicoLensError as problem:
        error(what, problem)


def _box(kind: str, what: str, more: str) -> None:
    st.html(el("div", el("p", el("strong", what)), el("p", more) if more else None, class_=f"notice {kind}", role="status"))
