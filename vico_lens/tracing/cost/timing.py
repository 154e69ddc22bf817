"""Seconds of a traced pipeline call, from one real forward of its denoiser, untraced and traced to a scratch store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vico_lens.errors import TracingError
from vico_lens.store.writer import TraceWriter
from vico_lens.tracing.attention_calls import Pass, Watch
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.cost.dry_forward import DryCalls, weights_absent
from vico_lens.tracing.interception import intercept
from vico_lens.vocabulary.schema import AttentionCall, TokenTable

__all__ = ["ForwardTimes", "time_forward"]


@dataclass(frozen=True, slots=True)
class ForwardTimes:
    """Seconds of one denoiser forward: `plain` untraced, `traced` with everything written that the capture records of it."""

    plain: float
    traced: float

    def of_run(self, forwards: int, recorded: int) -> tuple[float, float]:
        """Return the seconds of a run of `forwards` forwards, untraced, and traced if `recorded` of them are recorded."""
        untraced = forwards * self.plain
        return untraced, untraced + recorded * (self.traced - self.plain)


def time_forward(pipe: Any, moment: Pass, dry: DryCalls, capture: Capture) -> ForwardTimes:
    """Run the denoiser forward of `moment` twice untraced and twice traced, and time the second of each.

    Raises
    ------
    TracingError
        If the denoiser has no weights to run with.
    """
    root = moment.forward.module
    if weights_absent(root):
        raise TracingError(
            f"expected {type(root).__name__} to have weights for measure=True, which runs it; got one on the device 'meta'. "
            "Leave measure out: bytes need no weights."
        )
    inputs = dict(moment.forward.inputs)
    extra = inputs.pop("kwargs", {})

    def forward() -> None:
        root(**inputs, **extra)

    with torch.no_grad(), torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
        plain = [_seconds(forward) for _ in range(2)][-1]
        return ForwardTimes(plain, _traced(pipe, moment, dry, capture, Path(folder) / "run.zarr", forward))


def _traced(pipe: Any, moment: Pass, dry: DryCalls, capture: Capture, folder: Path, forward: Callable[[], None]) -> float:
    """Trace the forward as two steps of a run, and return the seconds of the second: the first creates the arrays."""
    labels = [label for label in dry.labels if label is not None]
    branches = [branch for branch in capture.branches if branch in {branch for branch, _ in labels}] or ["cond"]
    longest = max((call.site.tokens for call in dry.calls), default=0)
    writer = TraceWriter(folder, form=capture.store, dtype=capture.dtype)
    writer.start({}, [TokenTable(*[()] * 6).padded(longest)], prompts=1 + max(row for _, row in labels), branches=branches)
    seconds = 0.0

    def record(call: AttentionCall) -> None:
        writer.write(capture.only_heads(call))

    def step(number: int) -> None:
        rows: Any = dry.labels  # None for a row of neither branch
        watch = Watch(pipe, record, branches, capture.wants, rows=rows, step=number, timestep=0.0, forward=moment.forward)
        with intercept({moment.denoiser: moment.forward.module}, watch, exclusive=True) as watch.interception:
            forward()
        writer.finish_step(number)
        writer.flush()

    try:
        for number in range(2):
            seconds = _seconds(lambda number=number: step(number))  # type: ignore[misc]
    finally:
        writer.close(complete=False)
    return seconds


def _seconds(work: Callable[[], None]) -> float:
    """Wall time of `work`, with what an accelerator still has to do for it."""
    start = time.perf_counter()
    work()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start
