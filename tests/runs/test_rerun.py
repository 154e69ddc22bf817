"""A run of a sweep made again from its record, traced; and records that must not be run."""

from __future__ import annotations

import numpy as np
import pytest

import vico_lens as vl
from vico_lens.errors import InputError
from vico_lens.runs.background_job import Cancelled, Job, Progress
from vico_lens.runs.rerun import recorded_run, trace_run
from vico_lens.runs.sweeps import load_sweep, sweep

PROMPT = "a red circle moving right and a blue square moving up"
RECORD = {"prompt": PROMPT, "seed": 1, "condition": "plain", "settings": "None", "call": "{'num_inference_steps': 3}"}


@pytest.fixture(scope="module")
def pipe():
    loaded = vl.load_pipeline()
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_a_run_made_again_is_the_same_and_leaves_a_trace(pipe, tmp_path):
    conditions = {"plain": None, "balanced": {"preset": "default", "concepts": ["red circle", "blue square"]}}
    call = {"num_inference_steps": 3}
    sweep(pipe, [PROMPT], [1], conditions, tmp_path / "sweep", call=call, keep_videos=True)
    index = load_sweep(tmp_path / "sweep")
    for place in range(index.sizes["run"]):
        row = {str(name): values.item() for name, values in index.isel(run=place).variables.items()}
        run = recorded_run(row)
        assert run.key == row["key"]
        trace = trace_run(pipe, run, tmp_path / f"{run.condition}.zarr", Progress(Job(lambda progress: None)))
        tree = vl.open_trace(trace)
        with np.load(tmp_path / "sweep" / f"{run.key}.npz") as kept:
            assert np.array_equal(tree["video/rgb"].values, kept["rgb"])
        assert tree.sizes["step"] == 3 and tree.attrs["prompt"] == PROMPT


def test_a_cancelled_trace_leaves_nothing(pipe, tmp_path):
    job = Job(lambda progress: None)
    job.cancel()
    with pytest.raises(Cancelled):
        trace_run(pipe, recorded_run(RECORD), tmp_path / "run.zarr", Progress(job))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "/models/wan"}, "only runs of the bundled model"),
        ({"prompt": "a dragon"}, "has never seen 'dragon'"),
        ({"prompt": "a " * 300}, "at most 300 characters"),
        ({"seed": "3"}, "a seed from 0"),
        ({"seed": True}, "a seed from 0"),
        ({"settings": "{'step': FixedRms(size=0.1)}"}, "more than plain values"),
        ({"settings": "__import__('os').system('true')"}, "more than plain values"),
        ({"settings": "[" * 3000}, "more than plain values"),
        ({"settings": "{'baseline': 'best_of'}"}, "baseline of several passes"),
        ({"call": "{'num_inference_steps': 100000}"}, "cannot be repeated here"),
        ({"call": "{'height': 99999}"}, "cannot be repeated here"),
    ],
)
def test_records_that_are_not_run(change, message):
    assert recorded_run(RECORD).call == {"num_inference_steps": 3}
    with pytest.raises(InputError, match=message):
        recorded_run(RECORD | change)
