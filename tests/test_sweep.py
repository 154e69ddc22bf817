"""Sweeps: killed anywhere, they resume and end the same; nothing is run twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vico_lens.errors import InputError, StoreError
from vico_lens.sweep import Run, load_sweep, run_of, sweep
from vico_lens.testing.pipelines import tiny_pipeline

PROMPTS = ["a red circle moving right and a blue square moving up", "a blue square moving up and a red circle moving right"]
CONCEPTS = ["red circle", "blue square"]
CONDITIONS = {
    "plain": None,
    "balanced": {"concepts": CONCEPTS, "objective": "equal", "kind": "sum"},
    "reweighted": {"concepts": CONCEPTS, "baseline": "reweight"},
}


def call_of(tiny: Any) -> dict[str, Any]:
    return {name: value for name, value in tiny.kwargs.items() if name not in ("prompt", "generator", "output_type")} | {
        "num_inference_steps": 2
    }


def score(video: np.ndarray, prompt: str) -> dict[str, Any]:
    return {"mean": float(video.mean()), "words": len(prompt.split()), "bright": bool(video.mean() > 127)}


def test_grid_is_complete_and_goes_on_where_it_was(tmp_path: Path) -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    seen: list[tuple[int, int]] = []
    ask: dict[str, Any] = {"call": call_of(tiny), "score": score, "keep_videos": True}
    first = sweep(tiny.pipe, PROMPTS[:1], [0, 1], CONDITIONS, tmp_path, progress=lambda done, of: seen.append((done, of)), **ask)
    assert seen == [(index, 6) for index in range(1, 7)]
    assert first.sizes["run"] == 6 and first.condition.values.tolist() == list(CONDITIONS) * 2
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    seen.clear()
    both = sweep(tiny.pipe, PROMPTS, [0], CONDITIONS, tmp_path, progress=lambda done, of: seen.append((done, of)), **ask)
    assert len(seen) == 3 and both.sizes["run"] == 6
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert load_sweep(tmp_path).sizes["run"] == 9
    plain = both.where((both.condition == "plain") & (both.seed == 0), drop=True)
    np.testing.assert_array_equal(plain.row_forwards, 4)
    balanced = both.where(both.condition == "balanced", drop=True)
    # A random model may find two concepts even already: the threshold of the preset then evaluates and moves nothing.
    assert (balanced.row_forwards > 4).all() and balanced.updates.max() > 0
    video = np.load(tmp_path / f"{both.key.values[0]}.npz")["rgb"]
    assert video.mean() == pytest.approx(both["mean"].values[0])


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
from test_sweep import slow_sweep
slow_sweep(Path(sys.argv[1]))
"""


def slow_clip(run: Run) -> np.ndarray:
    """Stands in for a pipeline: the video depends on prompt and seed alone, and takes a moment."""
    time.sleep(0.03)
    return np.random.default_rng((run.seed, len(run.prompt))).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)


def slow_sweep(folder: Path) -> None:
    runs = [Run(prompt, seed, "plain", None, {}) for prompt in ("a", "bb", "ccc") for seed in range(4)]
    for run in runs:
        run_of(
            run,
            folder=str(folder),
            pipe=SimpleNamespace(components={}),
            score=score,
            sample=lambda pipe, run: (slow_clip(run), {}),
        )


def test_killed_at_random_moments_it_ends_the_same(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    slow_sweep(whole)
    script = WORKER.format(here=str(Path(__file__).parent))
    moments = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", script, str(broken)], start_new_session=True)
        before = len(list(broken.glob("*.json")))
        while process.poll() is None and len(list(broken.glob("*.json"))) <= before:
            time.sleep(0.005)
        time.sleep(moments.random() * 0.06)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert 0 < len(list(broken.glob("*.json"))) < 12
    slow_sweep(broken)
    records = [{path.name: path.read_text() for path in folder.glob("[!.]*.json")} for folder in (whole, broken)]
    assert records[0] == records[1] and len(records[0]) == 12


class _Cluster:
    """As much of a dask client as a sweep uses, on threads."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)  # one pipeline cannot be called by two threads at once
        self.asked: dict[str, Any] = {}

    def map(self, function: Any, items: list[Run], *, retries: int, pure: bool, **settings: Any) -> list[Any]:
        self.asked = {"retries": retries, "pure": pure, "items": len(items)}
        return [self.pool.submit(function, item, **settings) for item in items]


def test_a_client_gets_the_missing_runs_and_a_loader(tmp_path: Path) -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    loads: list[int] = []

    def load() -> Any:
        loads.append(1)
        return tiny.pipe

    ask: dict[str, Any] = {"call": call_of(tiny), "score": score}
    alone = sweep(tiny.pipe, PROMPTS[:1], [0], {"plain": None}, tmp_path, **ask)
    cluster = _Cluster()
    both = sweep(load, PROMPTS, [0], {"plain": None}, tmp_path, client=cluster, **ask)
    assert cluster.asked == {"retries": 2, "pure": False, "items": 1} and len(loads) == 1
    assert both["mean"].values[0] == alone["mean"].values[0] and both.sizes["run"] == 2


def test_grids_without_meaning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 prompts"):
        sweep(None, [], [0], CONDITIONS, tmp_path)
    with pytest.raises(InputError, match="2 prompts, 1 seeds"):
        sweep(None, PROMPTS, [0], CONDITIONS, tmp_path, pairs=True)
    with pytest.raises(StoreError, match="expected finished runs"):
        load_sweep(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(StoreError, match="delete it"):
        load_sweep(tmp_path)


def test_unknown_baselines_are_refused(tmp_path: Path) -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    with pytest.raises(InputError, match="got 'magic'"):
        sweep(tiny.pipe, PROMPTS, [0], {"magic": {"baseline": "magic"}}, tmp_path, call=call_of(tiny))
    assert not list(tmp_path.glob("*"))
