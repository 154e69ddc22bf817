"""``vico-lens sweep``: a grid from a file of prompts, that goes on where it was and is told as a table."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vico_lens.runs.sweeps import load_sweep
from vico_lens.testing.pipelines import PROMPT, tiny_pipeline
from vico_lens.tinyworld import render, sample_prompts
from vico_lens.tinyworld.judge import judge_clip

CALL = ["--steps", 2, "--call", "num_frames=4", "--call", "height=16", "--call", "width=24"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep-model")
    tiny_pipeline("animatediff-t2v").pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text(f"# of the tests\n\n{PROMPT}  # both\na blue square moving up\n")
    return file


def test_a_grid_goes_on_where_it_was(
    run: Callable, model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["sweep", prompts, "--out", tmp_path / "runs", "--model", model, *CALL]
    first = run(*line, "--condition", "plain", "--keep-videos", "--json")
    assert first.code == 0, first.err
    assert first.json["runs"] == 2 and first.json["conditions"]["plain"]["row_forwards"] == 4
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}
    module = sys.modules["vico_lens.runs.sweeps.record"]
    original, made = module.sample_run, []

    def break_off(pipe: object, one: object) -> object:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(one)
        return original(pipe, one)

    monkeypatch.setattr(module, "sample_run", break_off)
    broken = run(*line, "--seeds", "0,5")
    assert broken.code == 1 and "interrupted" in broken.line and "the same line goes on" in broken.err
    monkeypatch.setattr(module, "sample_run", original)
    whole = run(*line, "--seeds", "0,5")
    assert whole.code == 0, whole.err
    rows = {fields[0]: fields[1:] for fields in map(str.split, whole.out.splitlines()) if fields}
    assert rows["plain"][0] == rows["default"][0] == "4" and float(rows["default"][2]) > 4
    index = load_sweep(tmp_path / "runs")
    assert index.sizes["run"] == 8
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    listed = list(csv.DictReader((tmp_path / "runs" / "index.csv").read_text().splitlines()))
    assert {row["key"] for row in listed} == set(index.key.values)
    assert len(list((tmp_path / "runs").glob("*.npz"))) == 2


@pytest.mark.timeout(280)
def test_workers_make_the_same_videos(run: Callable, model: Path, prompts: Path, tmp_path: Path) -> None:
    file = tmp_path / "conditions.json"
    file.write_text(json.dumps({"plain": None, "even": {"objective": "equal", "flow": "rollout"}}))
    made = []
    for workers in (1, 2):
        out = tmp_path / f"runs{workers}"
        line = ["sweep", prompts, "--out", out, "--model", model, *CALL, "--conditions", file, "--workers", workers]
        result = run(*line, "--keep-videos", "--json")
        assert result.code == 0, result.err
        assert set(result.json["conditions"]) == {"plain", "even"}
        made.append({path.name: path.read_bytes() for path in out.glob("*.npz")})
    assert made[0] == made[1] and len(made[0]) == 4


def test_the_bundled_model_is_judged(run: Callable, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(str(sample_prompts(1, objects=2, seed=3)[0]))
    result = run("sweep", file, "--out", tmp_path / "runs", "--steps", 2, "--condition", "plain", "--json")
    assert result.code == 0, result.err
    told = result.json["conditions"]["plain"]
    assert told["all_right"] == 0.0 and told["low"] == 0.0 and 0.7 < told["high"] < 0.9  # one clip says little
    prompt = sample_prompts(1, objects=2, seed=3)[0]
    assert judge_clip(render(prompt, seed=0).frames, str(prompt)) == {
        "all_correct": True,
        "subjects_correct": True,
        "failure": "",
    }
    assert judge_clip(render(prompt, seed=0).frames, "no sentence of that world") == {}


def test_wrong_use_is_told_in_a_line_before_anything_runs(run: Callable, model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    line = ["sweep", prompts, "--out", out, "--model", model]
    bad, twice, empty = (tmp_path / name for name in ("bad.json", "twice.json", "empty.txt"))
    bad.write_text("[1]")
    twice.write_text('{"plain": null}')
    empty.write_text("# nothing\n")
    unknown = tmp_path / "unknown.txt"
    unknown.write_text("a red circle\na crab\n")
    for arguments, told in (
        ([*line, "--condition", "magic"], "known: plain, default"),
        ([*line, "--conditions", bad], "maps names to settings or null"),
        ([*line, "--conditions", empty], "expected JSON"),
        ([*line, "--condition", "plain", "--conditions", twice], "give it once"),
        ([*line, "--seeds", "5:5"], "expected seeds like"),
        (["sweep", tmp_path / "none.txt", "--out", out], "does not exist"),
        (["sweep", empty, "--out", out], "got none"),
        (["sweep", unknown, "--out", out], "line 2 of"),
        (["sweep", prompts, "--out", tmp_path, "--model", model], "which no sweep has"),
        (["sweep", prompts, "--out", prompts, "--model", model], "is a file"),
    ):
        result = run(*arguments)
        assert result.code == 2 and told in result.line, result.err
    assert not out.exists()


def test_an_argument_that_the_pipeline_does_not_have_is_refused(
    run: Callable, model: Path, prompts: Path, tmp_path: Path
) -> None:
    result = run("sweep", prompts, "--out", tmp_path / "runs", "--model", model, "--call", "num_frame=4")
    assert result.code == 2 and "Did you mean num_frames?" in result.line
