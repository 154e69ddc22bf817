"""The sidebar: which trace is open, and opening another by path or upload."""

from __future__ import annotations

import streamlit as st

from shared import notices
from shared.launch import launched
from shared.opening import DEMOS, open_named
from shared.roots import find_traces
from shared.state import choose_trace, first_trace
from vico_lens.errors import VicoLensError

__all__ = ["sidebar"]


def sidebar() -> None:
    """Draw the sidebar."""
    launch = launched()
    chosen = st.session_state.setdefault("trace_name", first_trace())
    known = [*DEMOS, *map(str, launch.traces), *(str(path) for path in find_traces(launch.roots[:-1]))]
    known = list(dict.fromkeys([*known, chosen]))
    with st.sidebar:
        picked = st.selectbox(
            "Trace", known, index=known.index(chosen), format_func=lambda name: DEMOS.get(name, name.rsplit("/", 1)[-1])
        )
        if picked != chosen:
            choose_trace(picked)
            st.rerun()
        with st.expander("Open another"), st.form("open_path", border=False):
            typed = st.text_input("Path of a trace", placeholder="runs/mine.zarr")
            if st.form_submit_button("Open") and typed.strip():
                try:
                    open_named(typed.strip(), launch.roots)
                except VicoLensError as error:
                    notices.error("This path was not opened.", error)
                else:
                    choose_trace(typed.strip())
                    st.rerun()
