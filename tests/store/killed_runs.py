"""A process that starts many traced runs and kills each at a random time, or within a random file; imports are paid once.

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

from vico_lens.store import zarrfile
from vico_lens.store.writer import TraceWriter
from vico_lens.testing.traces import fake_attrs, fake_calls, fake_sites, fake_tokens
from vico_lens.vocabulary.schema import AttentionCall

STEPS = 4
SITES = fake_sites("unet", grid=(2, 2, 2), coarse=None, blocks=1, head_size=2, tokens=16)


def calls_of(step: int) -> list[AttentionCall]:
    return fake_calls(SITES, fake_tokens(length=16), step=step)


def die_while_writing(nth: int) -> None:
    """Kill this process in the middle of its `nth` file."""
    original, count = zarrfile.write_file, 0

    def write(path: str, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == nth:
            original(path, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        original(path, data)

    zarrfile.write_file = write


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
    whole, files, started = 0.0, 1, time.perf_counter()
    for number in range(count + 2):
        path = folder / f"{number}.zarr{'.zip' if number % 5 == 4 else ''}"
        nth = random.randint(1, files)
        child = os.fork()
        by_file = number % 2 == 1 and number >= 2
        if child == 0:
            if by_file:
                die_while_writing(nth)
            run(path, folder / f"{number}.log")
            os._exit(0)
        if number >= 2 and not by_file:
            time.sleep(random.uniform(0, 1.1 * whole))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if number < 2:  # the first two live, and say how long a run takes and how many files it writes
            whole, started = time.perf_counter() - started, time.perf_counter()
            files = max(files, sum(1 for file in path.rglob("*") if file.is_file()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
