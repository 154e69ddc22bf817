"""The dashboards of vico-lens: ``vico-lens dash [TRACE]``, or ``streamlit run dashboards/app.py``.

This file only routes. Each page is a script in ``views/`` that asks `shared.state` which trace is open and calls the package.
"""

from pathlib import Path

import streamlit as st

from shared.layout import styles
from shared.sidebar import sidebar

VIEWS = Path(__file__).parent / "views"
PAGES = {
    "overview": "Overview",
    "maps": "Maps",
    "flow": "Flow",
    "compare": "Compare",
    "balance": "Balance",
    "runs": "Runs",
    "flow_lab": "Flow lab",
}

st.set_page_config(page_title="vico-lens", layout="wide")
styles()
page = st.navigation(
    [
        st.Page(VIEWS / f"{name}.py", title=title, url_path=name, default=name == "overview")
        for name, title in PAGES.items()
        if (VIEWS / f"{name}.py").exists()
    ]
)
sidebar()
page.run()
