"""The sidebar: which trace is open, and opening another by path or upload."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from shared import notices
from shared.launch import launched
from shared.opening import DEMOS, open_named
from shared.roots import find_traces
from shared.scratch import scratch
from shared.state import choose_trace, first_trace
from shared.uploads import LARGEST, receive
from vico_lens.errors import VicoLensError
from vico_lens.tinyworld.demonstration import FOLDER as DEMO

__all__ = ["sidebar"]


def sidebar() -> None:
    """Draw the sidebar."""
    launch = launched()
    chosen = st.session_state.setdefault("trace_name", first_trace())
    nearby = [str(path) for path in _nearby(launch.roots)]
    known = list(dict.fromkeys([*DEMOS, *map(str, launch.traces), *nearby, chosen]))
    with st.sidebar:
        picked = st.selectbox("Trace", known, index=known.index(chosen), format_func=_called)
        if picked != chosen:
            _open(picked)
        with st.expander("Open another trace"):
            with st.form("open_path", border=False):
                typed = st.text_input("Path", placeholder="runs/mine.zarr", help="Inside the folder where the dashboard started.")
                asked = st.form_submit_button("Open path")
            if asked and typed.strip():
                _open(typed.strip())
            with st.form("open_upload", border=False, clear_on_submit=True):
                upload = st.file_uploader("Zipped trace", type="zip", max_upload_size=LARGEST >> 20)
                sent = st.form_submit_button("Open upload")
            if sent and upload is not None:
                try:
                    place = receive(upload, upload.size, scratch())
                except VicoLensError as error:
                    notices.error("This upload was not opened.", error)
                else:
                    _open(str(place))


def _open(name: str) -> None:
    """Open a trace if it can be opened; else say why and stay with the one that is open."""
    try:
        open_named(name, launched().roots)
    except VicoLensError as error:
        notices.error("This trace was not opened.", error)
    else:
        choose_trace(name)
        st.rerun()


@st.cache_data(ttl=20, max_entries=4, show_spinner=False)
def _nearby(roots: tuple[Path, ...]) -> list[Path]:
    return [path for path in find_traces(roots) if path.parent != DEMO]


def _called(name: str) -> str:
    """Name a trace in the list: the last two parts of its path tell runs apart."""
    return DEMOS.get(name) or "/".join(Path(name).parts[-2:])
