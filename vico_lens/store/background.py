"""A thread that does work in order while the model runs, with a bound on the bytes that wait for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Background"]


class Background:
    """Run pieces of work one after another in a thread.

    Memory is bounded: `submit` waits while more than `limit` bytes are waiting. The first error stops the work and is raised, as
    it was, by the next `submit` or `drain`; what was submitted after the failing piece is never run.

    Parameters
    ----------
    limit : int
        Bytes that may wait. A larger single piece is let in alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()
        self._bytes = 0
        self._busy = False
        self._stopped = False
        self._error: BaseException | None = None
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], None], size: int = 0) -> None:
        """Queue `work`, which holds on to `size` bytes."""
        with self._change:
            self._change.wait_for(lambda: self._error or self._bytes == 0 or self._bytes + size <= self.limit)
            self._raise()
            if self._stopped:  # nobody would do the work, and `drain` would wait for ever
                raise RuntimeError("expected work before stop(); got it after. Make a new Background.")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vico-lens-writer", daemon=True)
                self._thread.start()
            self._waiting.append((work, size))
            self._bytes += size
            self._change.notify_all()

    def drain(self) -> None:
        """Wait until everything submitted is done."""
        with self._change:
            self._change.wait_for(lambda: self._error or not (self._waiting or self._busy))
            self._raise()

    def stop(self) -> None:
        """Let the thread end once the queue is empty, and wait for it."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._stopped)
                if not self._waiting or self._error:
                    return
                work, size = self._waiting.popleft()
                self._busy = True
            try:
                work()
            except BaseException as error:  # handed to the thread that waits for the result
                with self._change:
                    self._error = error
                    self._waiting.clear()
            finally:
                del work
                with self._change:
                    self._bytes -= size
                    self._busy = False
                    self._change.notify_all()
