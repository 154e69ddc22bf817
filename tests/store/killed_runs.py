"""A process that starts many traced runs and kills each at a moment it was told; started once by the test, for imports are slow.

Usage: ``python killed_runs.py FOLDER SEED COUNT``. Every run appends to ``<n>.log`` once the store has declared a step.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from vico_lens.schema import AttentionCall
from vico_lens.store import TraceWriter
from vico_lens.testing.traces import fake_attrs, fake_calls, fake_sites, fake_tokens

STEPS = 4
SITES = fake_sites("unet", grid=(2, 2, 2), coarse=None, blocks=1, head_size=2, tokens=16)


def calls_of(step: int) -> list[AttentionCall]:
    return fake_calls(SITES, fake_tokens(length=16), step=step)


def run(path: Path, log: Path) -> None:
    """Trace a run, and say after each step that it is safe."""
    writer = TraceWriter(path, form="factors")
    writer.start(fake_attrs(["p"], range(STEPS), SITES, 0), [fake_tokens(length=16)], steps=range(STEPS))
    with open(log, "ab", buffering=0) as file:
        for step in range(STEPS):
            for call in calls_of(step):
                writer.write(call)
            writer.finish_step(step)
            writer._work.submit(lambda: file.write(b"."))
        writer.close()


def main(folder: Path, seed: int, count: int) -> None:
    torch.set_num_threads(1)
    random.seed(seed)
    whole, started = 0.0, time.perf_counter()
    for number in range(count + 2):
        path = folder / f"{number}.zarr{'.zip' if number % 5 == 4 else ''}"
        child = os.fork()
        if child == 0:
            run(path, folder / f"{number}.log")
            os._exit(0)
        if number >= 2:  # the first two say how long a run takes
            time.sleep(random.uniform(0, 1.1 * whole))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if number < 2:
            whole, started = time.perf_counter() - started, time.perf_counter()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
