"""Where pages run the model: one job at a time for the whole server, watched by the page that started it."""

from __future__ import annotations

import atexit
import gc
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st

from shared import notices
from vico_lens.errors import VicoLensError
from vico_lens.runs.background_job import Job, Progress, Runner
from vico_lens.runs.request import fixed_threads

__all__ = ["Progress", "begin", "begin_without_model", "finished", "running", "watch"]

T = TypeVar("T")


@st.cache_resource(show_spinner=False)
def the_runner() -> Runner:
    """Return the one place of this server where the model runs; it keeps the loaded model."""
    made = Runner()
    atexit.register(made.close)
    return made


def begin(key: str, work: Callable[[Any, Progress], Any]) -> None:
    """Start work on the bundled pipeline as the job `key` of this session, or say that the model is taken.

    Parameters
    ----------
    key : str
        Place of the job in the session's state.
    work : callable
        Takes the pipeline and a progress.
    """

    def run(progress: Progress) -> Any:
        progress.report("loading the model", 0, 1)
        return work(the_runner().keep("pipeline", _load), progress)

    begin_without_model(key, run)


def begin_without_model(key: str, work: Callable[[Progress], Any]) -> None:
    """Start work that needs no model as the job `key` of this session, or say that another run is under way."""

    def run(progress: Progress) -> Any:
        with fixed_threads():
            return work(progress)

    job = the_runner().start(run)
    if job is None:
        notices.empty("Another run is under way on this server.", "One runs at a time; try again in a minute.")
    else:
        st.session_state[key] = job
        st.rerun()


def _load() -> Any:
    """Load the bundled pipeline.

    Streamlit collects garbage after every run of a script. Among all that torch and diffusers bring that takes most of a second,
    in which nothing else runs; what is frozen is not searched again.
    """
    from vico_lens.runs.request import quiet_pipeline

    pipe = quiet_pipeline()
    gc.freeze()
    return pipe


def running(key: str) -> bool:
    """Whether the job `key` of this session is under way."""
    return key in st.session_state and st.session_state[key].running


@st.fragment(run_every=1.0)
def watch(key: str) -> None:
    """Show how far a job is, with a button to cancel it; at its end the whole page runs again."""
    job: Job[Any] = st.session_state[key]
    progress = job.watch()
    if not job.running:
        st.rerun()
    st.progress(progress.share, progress.what.capitalize() if job.wanted else "Stopping after this step")
    st.button("Cancel", on_click=job.cancel, disabled=not job.wanted, key=f"cancel {key}")


def finished(key: str) -> Any:
    """Return, once, what a job that is done has made; None where there is none, and a job that ended otherwise says how."""
    job: Job[Any] | None = st.session_state.get(key)
    if job is None or job.running:
        return None
    if job.state == "done":
        del st.session_state[key]
        return job.result
    if job.state == "cancelled":
        notices.empty("The run was cancelled.", "Nothing of it was kept; the model is ready for the next one.")
    elif isinstance(job.error, VicoLensError):
        notices.error("The run failed.", job.error)
    else:
        logging.getLogger(__name__).error("a run failed", exc_info=job.error)
        notices.error("The run failed unexpectedly.", f"{type(job.error).__name__}; the server's log says more.")
    return None
