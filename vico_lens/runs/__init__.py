"""Runs that somebody watches: in the background, one at a time, with progress and a way to stop them."""

from vico_lens.live.job import Cancelled, Desk, Job, Progress, Ticket
from vico_lens.live.pair import Pair, PairSettings, Side, check_settings, run_pair
from vico_lens.live.rerun import recorded_run, trace_run

__all__ = [
    "Cancelled",
    "Desk",
    "Job",
    "Pair",
    "PairSettings",
    "Progress",
    "Side",
    "Ticket",
    "check_settings",
    "recorded_run",
    "run_pair",
    "trace_run",
]
