"""A run killed at any moment leaves a store that opens, holds every finished step, and says how far it got."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vico_lens.errors import StoreError
from vico_lens.store.layout import attention_groups
from vico_lens.store.opening import open_trace
from vico_lens.testing.eager import eager_tree
from vico_lens.testing.traces import fake_tokens

sys.path.insert(0, str(Path(__file__).parent))
from killed_runs import STEPS, calls_of

KILLS = 52


@pytest.mark.slow
@pytest.mark.timeout(600)  # seconds on a machine of one's own; minutes on one that trains a model meanwhile
def test_killed_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("killed_runs.py")), str(tmp_path), "0", str(KILLS)]
    subprocess.run(command, check=True, timeout=560)
    calls = [call for step in range(STEPS) for call in calls_of(step)]
    reference = eager_tree(calls, [fake_tokens(length=16)], {})
    kept, unborn = [], 0
    for number in range(KILLS + 2):
        log = tmp_path / f"{number}.log"
        safe = log.stat().st_size if log.exists() else 0
        path = tmp_path / f"{number}.zarr"
        try:
            tree = open_trace(path if number % 5 != 4 else path.with_suffix(".zarr.zip"))
        except StoreError:
            assert safe == 0  # killed before the store had a root
            unborn += 1
            continue
        finished = tree.attrs["steps_finished"]
        assert tree.sizes["step"] == finished
        assert tree.attrs["steps_planned"] == STEPS
        assert safe <= finished
        assert not tree.attrs["complete"] or finished == STEPS
        kept.append(finished)
        compare(tree, reference, finished)
    assert kept[:2] == [STEPS, STEPS]  # nobody killed those
    assert unborn < KILLS // 2
    assert len(set(kept)) > 2, "the kills all fell on one moment"


def compare(tree: xr.DataTree, reference: xr.DataTree, finished: int) -> None:
    groups = {name: node for name, *_, node in attention_groups(tree)}
    assert set(groups) == ({name for name, *_ in attention_groups(reference)} if finished else set())
    for name, node in groups.items():
        expected = reference[f"{name}/weights"].values[:finished]
        np.testing.assert_allclose(node.to_dataset().weights.values, expected, rtol=0, atol=1e-6)


def test_a_run_that_ends_early_keeps_its_finished_steps(tmp_path: Path) -> None:
    """Ctrl-C reaches the writer as a close; the step in the making is dropped, not shown half."""
    from vico_lens.store.writer import TraceWriter

    for path in (tmp_path / "run.zarr", None):
        writer = TraceWriter(path)
        writer.start({"prompt": "p"}, [fake_tokens(length=16)])
        for call in calls_of(0):
            writer.write(call)
        writer.finish_step(0)
        writer.write(calls_of(1)[0])
        tree = writer.close(complete=False)
        assert tree.attrs["complete"] is False
        assert (tree.sizes["step"], tree.attrs["steps_finished"], tree.attrs["steps_planned"]) == (1, 1, None)
        assert np.isfinite(tree["cross/2x2x2"].weights.values).all()
    plain = xr.open_datatree(tmp_path / "run.zarr", engine="zarr")
    assert plain.sizes["step"] == 1


@pytest.mark.parametrize("name", ["run.zarr", "run.zarr.zip"])
def test_a_live_store_can_be_watched(tmp_path: Path, name: str) -> None:
    from vico_lens.store.writer import TraceWriter

    writer = TraceWriter(tmp_path / name)
    writer.start({"prompt": "p"}, [fake_tokens(length=16)])
    for step in range(2):
        for call in calls_of(step):
            writer.write(call)
        assert open_trace(tmp_path / name).sizes["step"] == step
        writer.finish_step(step)
        writer._work.drain()
    writer.close()
    assert [file.name for file in tmp_path.iterdir()] == [name]
