"""Background jobs: one at a time, stopped on request or when nobody watches, errors kept for whoever asks."""

from __future__ import annotations

import threading

import pytest

from vico_lens.runs.background_job import Cancelled, Job, Runner, Status


def until_told(gate: threading.Event):
    """Work that reports until it is stopped, or the gate opens."""

    def work(progress):
        done = 0
        while not gate.wait(0.005):
            done += 1
            progress.report("waiting", done, 1000)
        return done

    return work


def test_one_job_at_a_time_and_the_next_one_when_it_has_ended():
    runner, gate = Runner(), threading.Event()
    job = runner.start(until_told(gate))
    assert job is not None and runner.busy
    assert runner.start(lambda progress: None) is None
    gate.set()
    assert job.wait(5) == "done" and not runner.busy and isinstance(job.result, int)
    again = runner.start(lambda progress: "second")
    assert again is not None and again.wait(5) == "done" and again.result == "second"


def test_cancel_stops_at_the_next_report():
    job = Runner().start(until_told(threading.Event()))
    while job.watch().done == 0:
        pass
    job.cancel()
    assert job.wait(5) == "cancelled"
    assert job.result is None and job.error is None


def test_a_job_that_nobody_watches_ends_by_itself():
    job = Runner().start(until_told(threading.Event()), patience=0.05)
    assert job.wait(5) == "cancelled"


def test_closing_the_desk_ends_its_job():
    runner = Runner()
    runner.close()
    job = runner.start(until_told(threading.Event()))
    runner.close()
    assert job.state == "cancelled" and not runner.busy


def test_work_that_catches_its_own_errors_cannot_catch_the_cancellation():
    def stubborn(progress):
        try:
            progress.report("here", 1, 2)
        except Exception:  # what libraries do around callbacks
            return "went on"

    job = Job(stubborn)
    job.cancel()
    job.begin()
    assert job.wait(5) == "cancelled"
    assert not issubclass(Cancelled, Exception)


def test_errors_are_kept_and_the_desk_is_free_again():
    runner = Runner()
    job = runner.start(lambda progress: 1 / 0)
    assert job.wait(5) == "failed" and isinstance(job.error, ZeroDivisionError) and not runner.busy


def test_what_jobs_share_is_made_once():
    runner, made = Runner(), []
    for _ in range(2):
        job = runner.start(lambda progress: runner.keep("model", lambda: made.append(1) or "loaded"))
        assert job.wait(5) == "done" and job.result == "loaded"
    assert made == [1]


@pytest.mark.parametrize(("done", "total", "share"), [(0, 4, 0.0), (1, 4, 0.25), (9, 4, 1.0), (1, 0, 0.0)])
def test_progress_is_a_share(done, total, share):
    assert Status("x", done, total).share == share
