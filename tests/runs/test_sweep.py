"""Sweeps: killed anywhere, they resume and end the same; a worker that dies is replaced; nothing is run twice."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from vico_lens.errors import InputError, StoreError, VicoLensError
from vico_lens.intervention.balancing import FixedRms, presets
from vico_lens.runs.sweeps import Run, load_sweep, sweep
from vico_lens.testing.pipelines import tiny_pipeline

sys.path.insert(0, str(Path(__file__).parent))
from sweep_runs import CONDITIONS, PROMPTS, RUNS, SEEDS, SetEnvironment, call_of, deadly, load, load_quietly, logged, score


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


def test_a_prompt_that_knows_its_concepts_brings_them(tmp_path: Path) -> None:
    class Known(str):
        concepts = ("circle",)

    tiny, prompt, settings = tiny_pipeline("animatediff-t2v"), Known(PROMPTS[0]), {"preset": "observe"}
    conditions = {"its own": settings, "others": settings | {"concepts": ["square"]}, "plain": None}
    table = sweep(tiny.pipe, [prompt], [0], conditions, tmp_path, call=call_of(tiny))
    asked = {"its own": settings | {"concepts": ["circle"]}, "others": settings | {"concepts": ["square"]}, "plain": None}
    assert table.key.values.tolist() == [Run(str(prompt), 0, name, told, call_of(tiny)).key for name, told in asked.items()]


def test_killed_at_20_random_moments_it_ends_the_same(tmp_path: Path) -> None:
    """Half of the kills fall anywhere, half within a file; everything but wall time is equal to the last bit."""
    command = [sys.executable, str(Path(__file__).with_name("sweep_runs.py")), str(tmp_path), "0", "20"]
    told = subprocess.run(command, check=True, timeout=280, capture_output=True, text=True).stdout.split("\n")[:-1]
    there = [int(line.split()[0]) for line in told]
    assert len(told) == 20 and sum(line.endswith("True") for line in told) >= 15, "the grid ended before it could be killed"
    assert there == sorted(there) and len(set(there)) > 4, "the kills all fell on one moment"
    whole, broken = (load_sweep(tmp_path / name).drop_vars("seconds") for name in ("whole", "broken"))
    assert whole.sizes["run"] == RUNS
    xr.testing.assert_identical(whole, broken)
    for key in whole.key.values:
        videos = [np.load(tmp_path / name / f"{key}.npz")["rgb"] for name in ("whole", "broken")]
        np.testing.assert_array_equal(*videos)
    assert {path.name for path in (tmp_path / "broken").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_what_a_killed_run_left_is_no_record(tmp_path: Path) -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    ask: dict[str, Any] = {"call": call_of(tiny), "score": score}
    index = sweep(tiny.pipe, PROMPTS[:1], [0], {"plain": None}, tmp_path, **ask)
    place = next(tmp_path.iterdir())
    for name in (f".{place.name}.0.part", ".other.json.0.part"):
        (tmp_path / name).write_text('{"half a rec')
    xr.testing.assert_identical(load_sweep(tmp_path), index)
    xr.testing.assert_identical(sweep(tiny.pipe, PROMPTS[:1], [0], {"plain": None}, tmp_path, **ask), index)
    # The draft of a run that another process may be at is left alone.
    assert {path.name for path in tmp_path.iterdir()} == {place.name, ".other.json.0.part"}


def test_a_run_is_known_by_what_its_preset_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("a", 0, "default", {"preset": "default"}, {})
    named, observed = Run("a", 0, "default", {}, {}), Run("a", 0, "default", {"preset": "observe"}, {})
    plain, best = Run("a", 0, "plain", None, {}), Run("a", 0, "best", {"baseline": "best_of"}, {})
    keys = [one.key for one in (run, named, observed, plain, best)]
    assert len(set(keys)) == 5
    changed = dataclasses.replace(presets["default"], step=FixedRms(0.5))
    monkeypatch.setitem(presets._entries, "default", changed)
    assert [one.key == key for one, key in zip((run, named, observed, plain, best), keys, strict=True)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    rules = [Run("a", 0, "b", {"step": FixedRms(0.1, 1.0)}, {}), Run("a", 0, "b", {"step": Half(0.1, 1.0)}, {})]
    assert rules[0].key != rules[1].key


@dataclasses.dataclass(frozen=True)
class Half:
    """Another rule with the fields of `FixedRms`."""

    size: float
    decay: float


def test_a_loader_is_called_once_a_sweep_and_only_if_a_run_is_missing(tmp_path: Path) -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    loads: list[str] = []

    def loader(name: str) -> Any:
        return lambda: loads.append(name) or tiny.pipe

    ask: dict[str, Any] = {"call": call_of(tiny)}
    sweep(loader("first"), PROMPTS, [0], {"plain": None}, tmp_path, **ask)
    sweep(loader("second"), PROMPTS, [0], {"plain": None}, tmp_path, **ask)
    sweep(loader("third"), PROMPTS, [1], {"plain": None}, tmp_path, **ask)
    assert loads == ["first", "third"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None, host="127.0.0.1") as processes,
        Client(processes) as client,
    ):
        yield client


@pytest.mark.timeout(280)
def test_on_a_cluster_a_dead_worker_is_replaced_and_nothing_is_run_twice(tmp_path: Path, cluster: Any) -> None:
    """Two worker processes; one is killed within its run, after the video is made and before it is kept."""
    tiny = tiny_pipeline("animatediff-t2v")
    logs, seen = tmp_path / "logs", []
    logs.mkdir()
    cluster.register_plugin(SetEnvironment(str(logs)))
    index = sweep(
        load,
        PROMPTS,
        SEEDS,
        {"plain": None},
        tmp_path / "runs",
        call=call_of(tiny),
        score=logged,
        client=cluster,
        progress=lambda done, of: seen.append((done, of)),
    )
    assert (logs / "killed").exists()
    assert seen == [(number, 8) for number in range(1, 9)]
    made = [line.split() for line in (logs / "made").read_text().splitlines()]
    loaded = (logs / "loaded").read_text().split()
    assert len(made) == 8 + 1  # every run once, and the one that died with its worker once more
    assert len(set(loaded)) == len(loaded) and {process for process, _ in made} <= set(loaded)  # one pipeline a worker
    alone = sweep(tiny.pipe, PROMPTS, SEEDS, {"plain": None}, tmp_path / "alone", call=call_of(tiny), score=score)
    xr.testing.assert_identical(index.drop_vars("seconds"), alone.drop_vars(["seconds", "words", "bright"]))
    again = sweep(load, PROMPTS, SEEDS, {"plain": None}, tmp_path / "runs", call=call_of(tiny), score=logged, client=cluster)
    xr.testing.assert_identical(again, index)
    assert len((logs / "made").read_text().splitlines()) == len(made)


@pytest.mark.timeout(280)
def test_a_run_that_ends_every_worker_and_one_that_raises(tmp_path: Path, cluster: Any) -> None:
    def once(dask_scheduler: Any) -> None:
        dask_scheduler.allowed_failures = 0  # four workers of the default would start and die one after the other

    cluster.run_on_scheduler(once)
    with pytest.raises(VicoLensError, match="ended its worker each time"):
        sweep(deadly, PROMPTS[:1], [0], {"plain": None}, tmp_path, client=cluster)
    with pytest.raises(InputError, match="got 'magic'"):
        sweep(load_quietly, PROMPTS[:1], [0], {"magic": {"baseline": "magic"}}, tmp_path, client=cluster)
    with pytest.raises(InputError, match="expected a function that loads the pipeline"):
        sweep(tiny_pipeline("animatediff-t2v").pipe, PROMPTS[:1], [0], {"plain": None}, tmp_path, client=cluster)
    assert not list(tmp_path.iterdir())


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


def test_runs_are_known_by_what_they_are_given_whatever_its_size() -> None:
    start = torch.zeros(1, 4, 4, 40, 40)
    moved = start.clone()
    moved[0, 2, 2, 20, 20] = 5.0  # where a printed tensor is cut short
    keys = {
        Run("a cat", 0, "plain", None, {"latents": given}).key for given in (start, moved, start.bfloat16(), start.numpy() + 1)
    }
    assert len(keys) == 4
    assert Run("a cat", 0, "plain", None, {"latents": start.clone()}).key in keys

    class Nameless:
        pass

    for value in (Nameless(), lambda video: 0.0, torch.Generator()):
        with pytest.raises(InputError, match="the same in every process"):
            _ = Run("a cat", 0, "plain", {"objective": value}, {}).key


def test_scores_under_taken_names_and_a_bare_prompt_are_refused(tmp_path: Path) -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    with pytest.raises(InputError, match="a list of prompts; got one text"):
        sweep(tiny.pipe, PROMPTS[0], [0], {"plain": None}, tmp_path)
    ask: dict[str, Any] = {"call": call_of(tiny)}
    with pytest.raises(InputError, match="names of their own; got seed"):
        sweep(tiny.pipe, PROMPTS[:1], [0], {"plain": None}, tmp_path, score=lambda video, prompt: {"seed": 7}, **ask)
    given = {"array": np.array(3.0), "tensor": torch.tensor(2)}
    table = sweep(tiny.pipe, PROMPTS[:1], [0], {"plain": None}, tmp_path, score=lambda video, prompt: given, **ask)
    assert (table["array"].item(), table["tensor"].item()) == (3.0, 2)
