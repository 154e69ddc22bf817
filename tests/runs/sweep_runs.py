"""Grids for the tests of sweeps, in a module of their own so that killed processes and cluster workers can import them.

``python sweep_runs.py FOLDER SEED KILLS`` starts the grid again and again in a forked process, kills each at a random moment or
within a random file, and prints how many runs were there after each kill. Imports and the pipeline are paid once.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from distributed import WorkerPlugin

from vico_lens import sweep as _sweep
from vico_lens.testing.pipelines import tiny_pipeline

CONCEPTS = ["red circle", "blue square"]
PROMPTS = ["a red circle moving right and a blue square moving up", "a blue square moving up and a red circle moving right"]
CONDITIONS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "balanced": {"concepts": CONCEPTS, "objective": "equal", "flow": "subgraph_flow", "kind": "sum"},
    "reweighted": {"concepts": CONCEPTS, "baseline": "reweight"},
}
SEEDS = range(4)
RUNS = len(PROMPTS) * len(SEEDS) * len(CONDITIONS)


def call_of(tiny: Any) -> dict[str, Any]:
    """Arguments of the pipeline call of a tiny pipeline, two steps long."""
    return {name: value for name, value in tiny.kwargs.items() if name not in ("prompt", "generator", "output_type")} | {
        "num_inference_steps": 2
    }


def score(video: np.ndarray, prompt: str) -> dict[str, Any]:
    return {"mean": float(video.mean()), "words": len(prompt.split()), "bright": bool(video.mean() > 127)}


def grid(tiny: Any, folder: Path) -> Any:
    """The whole grid, with videos."""
    return _sweep(tiny.pipe, PROMPTS, SEEDS, CONDITIONS, folder, call=call_of(tiny), score=score, keep_videos=True)


def logged(video: np.ndarray, prompt: str) -> dict[str, Any]:
    """Score that says in a file that a run was made; ends its worker the first time that it is asked to, and only then."""
    folder = Path(os.environ["SWEEP_LOG"])
    with (folder / "made").open("a") as file:
        file.write(f"{os.getpid()} {video.sum()}\n")
    if sum(1 for _ in (folder / "made").open()) == 4:
        try:
            (folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return {}
        os.kill(os.getpid(), signal.SIGKILL)
    return {"mean": float(video.mean())}


class SetEnvironment(WorkerPlugin):
    """Tells every worker, also one that takes the place of a dead one, where `logged` and `load` write."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def setup(self, worker: Any) -> None:
        os.environ["SWEEP_LOG"] = self.folder


def deadly() -> Any:
    """Loader that ends every worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def load_quietly() -> Any:
    return tiny_pipeline("animatediff-t2v").pipe


def load() -> Any:
    """Loader of the workers; says in a file which process loaded."""
    torch.set_num_threads(1)
    with (Path(os.environ["SWEEP_LOG"]) / "loaded").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return tiny_pipeline("animatediff-t2v").pipe


def die_while_writing(nth: int) -> None:
    """Kill this process when half of its `nth` file is written."""
    files = itertools.count(1)
    module = sys.modules["vico_lens.runs.sweeps.record"]
    original = module._write

    def write(place: Path, contents: Any) -> None:
        def half(file: IO[bytes]) -> None:
            contents(file)
            file.truncate(file.tell() // 2)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        original(place, half if next(files) == nth else contents)

    module._write = write


def main(folder: Path, seed: int, kills: int) -> None:
    torch.set_num_threads(1)
    moments = random.Random(seed)
    tiny = tiny_pipeline("animatediff-t2v")
    started = time.perf_counter()
    grid(tiny, folder / "whole")
    a_run = (time.perf_counter() - started) / RUNS
    for number in range(kills):
        nth = moments.randint(1, 4)
        child = os.fork()
        if child == 0:
            if number % 2:
                die_while_writing(nth)
            grid(tiny, folder / "broken")
            os._exit(0)
        if number % 2 == 0:
            time.sleep(moments.uniform(0, 2 * a_run))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(len(list((folder / "broken").glob("[!.]*.json"))), os.WIFSIGNALED(status), flush=True)
    grid(tiny, folder / "broken")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
