"""Runs: a sweep as a table to filter, a rate or mean with its interval for each condition, and one run to look into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st
import xarray as xr

from shared import layout, notices, runner, state
from shared.launch import launched
from shared.runs import BUNDLED, kept_video, measures, open_sweep, table_of
from shared.scratch import scratch
from vico_lens import plot
from vico_lens.errors import VicoLensError
from vico_lens.plot.composite import enlarge
from vico_lens.runs.rerun import recorded_run, trace_run

JOB, MADE = "runs_job", "runs_made"


def opened() -> tuple[Path, xr.Dataset]:
    """Ask which sweep to read, and read it; where that fails the page says why and stops."""
    name = st.text_input(
        "Folder of a sweep",
        BUNDLED,
        key="sweep",
        bind="query-params",
        help="As `vico-lens sweep` or `vico_lens.sweep` wrote it. “demo” is the bundled one.",
    )
    try:
        return open_sweep(name.strip() or BUNDLED, launched().roots)
    except VicoLensError as error:
        notices.error("This sweep cannot be read.", error)
        st.stop()


def filtered(index: xr.Dataset) -> xr.Dataset:
    """Let the user keep some conditions and prompts."""
    conditions = list(dict.fromkeys(index.condition.values.tolist()))
    left, right = st.columns(2)
    kept = left.multiselect("Conditions", conditions, conditions)
    text = right.text_input("Prompts that hold", placeholder="circle").strip().casefold()
    chosen = np.isin(index.condition.values, kept) & [text in str(prompt).casefold() for prompt in index.prompt.values]
    return index.isel(run=np.flatnonzero(chosen))


def intervals(index: xr.Dataset) -> None:
    """Draw one measure by condition."""
    names = measures(index)
    if not names:
        notices.empty("No run of this sweep was measured.", "Give `sweep` a score to compare conditions.")
        return
    state.valid_choice("measure", names)
    measure = st.selectbox("Measure", names, format_func=lambda name: name.replace("_", " "), key="measure", bind="query-params")
    with notices.guarded("This measure cannot be drawn."):
        figure = plot.sweep(index[measure], by="condition", quantity=measure.replace("_", " "), theme=state.theme())
        layout.draw(figure, key="runs_intervals")


def one_run(folder: Path, index: xr.Dataset) -> None:
    """Show one run, and offer to make it again with tracing on, for the other pages."""
    keys = index.key.values.tolist()
    rows = {key: index.isel(run=place) for place, key in enumerate(keys)}
    layout.lead("One run", "Made again from its record, it is traced and opens in all pages.")
    key = st.selectbox("Run", keys, format_func=lambda key: _title(rows[key]))
    row = {str(name): values.item() for name, values in rows[key].variables.items()}
    with notices.guarded("The clip of this run cannot be shown."):
        video = kept_video(folder, key)
        if video is not None:
            larger = max(1, 160 // video.shape[1])
            st.image(
                plot.filmstrip(enlarge(video, larger), gap=8), width="stretch", caption=f"{len(video)} frames, from left to right"
            )
    if runner.running(JOB):
        runner.watch(JOB)
    elif st.button("Trace this run and open it", type="primary"):
        with notices.guarded("This run cannot be made again here."):
            run = recorded_run(row)
            runner.begin(JOB, lambda pipe, progress: trace_run(pipe, run, _new_place(run.key), progress))
    elif (trace := runner.finished(JOB)) is not None:
        state.choose_trace(str(trace))
        st.session_state[MADE] = str(trace)
        st.rerun()
    if MADE in st.session_state and st.session_state[MADE] == st.session_state.get("trace_name"):
        notices.empty("The run is traced and open now.", "Every page shows it; start with the overview.")
        layout.page_link("overview", "Overview")


def _title(row: xr.Dataset) -> str:
    return f"{row.condition.item()}, seed {row.seed.item()}: {row.prompt.item()}"


def _new_place(key: str) -> Path:
    """Name a folder of this server that is not there yet."""
    taken = len(list(scratch().glob(f"{key}*.zarr")))
    return scratch() / f"{key}{f'-{taken}' if taken else ''}.zarr"


layout.heading("Runs: what holds over many prompts and seeds", "A sweep, one row a run. Intervals are 95 %.")
folder, index = opened()
shown = filtered(index)
if shown.sizes["run"]:
    intervals(shown)
    st.caption(f"{shown.sizes['run']} of {index.sizes['run']} runs")
    st.dataframe(table_of(shown), hide_index=True, height=280)
    one_run(folder, shown)
else:
    notices.empty("No run is left.", "Choose a condition, or look for another word.")
