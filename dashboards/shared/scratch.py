"""The folder of this server for traces that pages make themselves; gone when the server ends."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import streamlit as st

__all__ = ["scratch"]


@st.cache_resource(show_spinner=False)
def scratch() -> Path:
    """Return the folder, made on first use. It is one of the folders that paths from the browser may name."""
    folder = Path(tempfile.mkdtemp(prefix="vico-lens-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
