"""One long piece of work in a background thread, and the runner that lets in one at a time.

A dashboard's server runs a page's script in a thread of its own and cannot stop a model in the middle of it. So the work runs
elsewhere and reports at every step through its `Progress`. A report is also where the work learns that it must stop: because
somebody cancelled it, or because nobody has asked for its status for a while (a closed browser tab sends no farewell).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

__all__ = ["Cancelled", "Job", "Progress", "Runner", "State", "Status"]

T = TypeVar("T")
State = Literal["running", "done", "failed", "cancelled"]


class Cancelled(BaseException):
    """Raised inside a job that must stop. No `Exception`: work that catches its own errors must not catch this."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far a job is.

    Attributes
    ----------
    what : str
        What it is doing.
    done, total : int
        Steps of the whole job.
    """

    what: str = "waiting"
    done: int = 0
    total: int = 1

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0


class Progress:
    """How the work tells its job how far it is; handed to the work by `Job`."""

    def __init__(self, job: Job[Any]) -> None:
        self._job = job

    def report(self, what: str, done: int, total: int) -> None:
        """Say how far the work is.

        Raises
        ------
        Cancelled
            If the job must stop.
        """
        self._job.progress = Status(what, done, total)
        self.check()

    def check(self) -> None:
        """Raise `Cancelled` if the job must stop."""
        if self._job.wanted and not self._job.abandoned:
            return
        raise Cancelled


class Job(Generic[T]):
    """Work in a thread; made by `Runner.start`.

    Attributes
    ----------
    progress : Status
        What the work reported last.
    state : {"running", "done", "failed", "cancelled"}
    result
        What the work returned, once it is done.
    error : Exception or None
        What it raised, once it has failed.
    """

    def __init__(self, work: Callable[[Progress], T], patience: float = 120.0) -> None:
        self.progress = Status()
        self.state: State = "running"
        self.result: T | None = None
        self.error: Exception | None = None
        self.wanted = True
        self._patience = patience
        self._seen = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(work,), name="vico-lens job", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the work goes on."""
        return self.state == "running"

    @property
    def abandoned(self) -> bool:
        """Whether nobody has called `watch` for longer than the job's patience."""
        return time.monotonic() - self._seen > self._patience

    def watch(self) -> Status:
        """Return how far the job is, and let it know that somebody is waiting for it."""
        self._seen = time.monotonic()
        return self.progress

    def cancel(self) -> None:
        """Ask the work to stop at its next report; returns at once."""
        self.wanted = False

    def wait(self, seconds: float | None = None) -> State:
        """Wait until the work has ended, or for some seconds."""
        self._thread.join(seconds)
        return self.state

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self, work: Callable[[Progress], T]) -> None:
        try:
            result = work(Progress(self))
        except Cancelled:
            self.state = "cancelled"
        except Exception as error:  # told to whoever watches
            self.error, self.state = error, "failed"
        except BaseException as error:
            self.error, self.state = RuntimeError(f"the run was stopped by {type(error).__name__}"), "failed"
            raise
        else:
            self.result, self.state = result, "done"


class Runner:
    """Lets in one job at a time, and keeps what jobs share (a loaded model).

    Examples
    --------
    >>> runner = Runner()
    >>> job = runner.start(lambda progress: runner.keep("answer", lambda: 42))
    >>> job.wait(), job.result
    ('done', 42)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job: Job[Any] | None = None
        self._kept: dict[str, Any] = {}

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._job is not None and self._job.running

    def start(self, work: Callable[[Progress], T], *, patience: float = 120.0) -> Job[T] | None:
        """Begin a job; None while another one is running.

        Parameters
        ----------
        work : callable
            Takes a `Progress`, to which it must report now and then.
        patience : float
            Seconds without `Job.watch` after which the job stops itself at its next report.
        """
        with self._lock:
            if self.busy:
                return None
            job: Job[T] = Job(work, patience)
            self._job = job
            job.begin()
            return job

    def close(self, seconds: float = 10.0) -> None:
        """Stop the running job, if there is one, and wait for its end: a process that leaves in the middle of torch aborts."""
        job = self._job
        if job is not None and job.running:
            job.cancel()
            job.wait(seconds)

    def keep(self, name: str, make: Callable[[], T]) -> T:
        """Return what is kept under a name, made on first use. For use inside jobs, of which there is one at a time."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: T = self._kept[name]
        return kept
