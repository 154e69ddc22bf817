"""Verbs that sample and read: a tiny pipeline saved to a folder, traced, inspected, attributed, reported and balanced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import vico_lens as vl
from vico_lens.runs.request import Request
from vico_lens.testing.pipelines import PROMPT, tiny_pipeline
from vico_lens.testing.traces import fake_trace

CALL = ["--steps", 2, "--call", "num_frames=4", "--call", "height=16", "--call", "width=24"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline("animatediff-t2v").pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def traced(model: Path, tmp_path_factory: pytest.TempPathFactory, run: Callable) -> Path:
    """A trace made by the verb itself."""
    folder = tmp_path_factory.mktemp("traced")
    result = run(
        "trace",
        PROMPT,
        "--model",
        model,
        *CALL,
        "--seed",
        3,
        "--out",
        folder / "run.zarr",
        "--video",
        folder / "run.mp4",
        "--json",
    )
    assert result.code == 0, result.err
    report = result.json
    assert report["steps"] == 2
    assert report["bytes"] > 0
    return folder


def test_trace_is_what_the_library_records(traced: Path, model: Path) -> None:
    pipe = vl.load_pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    with vl.trace(pipe) as recording:
        video = pipe(
            PROMPT, num_inference_steps=2, num_frames=4, height=16, width=24, generator=torch.Generator().manual_seed(3)
        ).frames[0]
    stored = vl.open_trace(traced / "run.zarr")
    assert stored.attrs["prompt"] == PROMPT
    assert stored.attrs["seed"] == 3
    for group in ("cross/4x8x12", "temporal/4x4x6"):
        np.testing.assert_allclose(stored[group].weights.values, recording.tree[group].weights.values, atol=1e-6)
    np.testing.assert_array_equal(stored["video/rgb"].values, np.stack([np.asarray(frame) for frame in video]))
    assert (traced / "run.mp4").read_bytes()[4:8] == b"ftyp"


def test_trace_only_what_was_asked_for(run: Callable, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.zarr"
    assert run("trace", PROMPT, "--model", model, *CALL, "--out", out, "--kinds", "cross", "--record-steps", "-1").code == 0
    tree = vl.open_trace(out)
    assert list(tree["step"].values) == [1]
    assert {group.split("/")[1] for group in tree.groups if group.count("/") == 2} == {"cross"}


def test_an_interrupted_trace_says_how_far_it_got(
    run: Callable, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Request.sample

    def interrupted(request: Request, pipe: Any, label: str) -> None:
        sample(request, pipe, label)
        raise KeyboardInterrupt

    monkeypatch.setattr(Request, "sample", interrupted)
    out = tmp_path / "run.zarr"
    result = run("trace", PROMPT, "--model", model, *CALL, "--out", out)
    assert result.code == 1
    assert "interrupted" in result.line
    assert "marked incomplete" in result.err
    assert "incomplete: 2 of 2 steps finished" in run("inspect", out).out


def test_estimate_writes_nothing(run: Callable, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("trace", PROMPT, "--model", model, *CALL, "--estimate", "--json")
    assert result.code == 0
    assert result.json["total_bytes"] > 0
    assert not list(tmp_path.iterdir())


def test_inspect(run: Callable, traced: Path) -> None:
    report = run("inspect", traced / "run.zarr", "--json").json
    assert report["attributes"]["prompt"] == PROMPT
    assert report["attributes"]["complete"]
    assert report["video"] == [4, 16, 24, 3]
    assert report["groups"]["cross/4x8x12"]["kind"] == "cross"
    words = [token["word"] for token in report["tokens"] if token["token_kind"] == "text"]
    assert list(dict.fromkeys(words)) == list(dict.fromkeys(PROMPT.split()))
    text = run("inspect", traced / "run.zarr").out
    assert "complete" in text
    assert "cross/4x8x12" in text


def test_inspect_says_that_a_chunk_is_missing(run: Callable, traced: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    shutil.copytree(traced / "run.zarr", path)
    chunk = next(path.glob("cross/4x8x12/*/c.0.*"))
    chunk.unlink()
    assert f"damaged: 1 chunks are missing, {chunk.relative_to(path).as_posix()}" in run("inspect", path).out
    assert run("inspect", path, "--json").json["missing_chunks"] == [chunk.relative_to(path).as_posix()]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_pipe_of_another_encoding_is_written_to(tmp_path: Path, options: list[str]) -> None:
    fake_trace(to=tmp_path / "run.zarr", prompt="a red circle → a café ☃")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", "from vico_lens.cli import main; main()", "inspect", str(tmp_path / "run.zarr"), *options]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    text = done.stdout.decode("cp1252")
    assert json.loads(text)["attributes"]["prompt"].endswith("☃") if options else r"\u2192 a café \u2603" in text


@pytest.mark.parametrize("method", ["subgraph_flow", "rollout"])
def test_attribute_agrees_with_the_library(run: Callable, traced: Path, method: str) -> None:
    report = run("attribute", traced / "run.zarr", "--method", method, "--json").json
    tree = vl.open_trace(traced / "run.zarr")
    expected = vl.dominance(vl.attribute(tree, method))
    assert list(report["share"]) == ["red circle", "blue square"]
    np.testing.assert_allclose(list(report["share"].values()), expected["share"].values, rtol=1e-6)
    assert report["dominant"] == str(expected["dominant"].item())
    assert len(report["share_by_frame"]["red circle"]) == 4


def test_attribute_by_a_method_that_runs_the_model_again(run: Callable, traced: Path, model: Path) -> None:
    result = run("attribute", traced / "run.zarr", "--method", "leave_one_out", "--model", model, "--step", 1, "--json")
    assert result.code == 0, result.err
    assert sum(result.json["share"].values()) == pytest.approx(1)


def test_attribute_keeps_its_influence(run: Callable, traced: Path, tmp_path: Path) -> None:
    kept = tmp_path / "influence.zarr"
    assert (
        run(
            "attribute", traced / "run.zarr", "-c", "circle", "--method", "subgraph_flow", "--option", "kind=hard", "--out", kept
        ).code
        == 0
    )
    influence = xr.open_zarr(kept, consolidated=False)["influence"]
    expected = vl.attribute(vl.open_trace(traced / "run.zarr"), "subgraph_flow", ["circle"], kind="hard")
    np.testing.assert_allclose(influence.values, expected.values, rtol=1e-6)
    page = tmp_path / "influence.html"
    assert run("attribute", traced / "run.zarr", "--step", 1, "--out", page).code == 0
    assert "red circle" in page.read_text()


def test_compare_agrees_with_the_library(run: Callable, traced: Path) -> None:
    arguments = ["compare", traced / "run.zarr", "--methods", "cross_attention, rollout"]
    found = xr.Dataset.from_dict(run(*arguments, "--json").json)
    expected = vl.compare(vl.open_trace(traced / "run.zarr"), ["cross_attention", "rollout"])
    np.testing.assert_allclose(found["agreement"].values, expected["agreement"].values, rtol=1e-5)
    text = run(*arguments).out
    assert "agreement" in text
    assert "red circle" in text
    assert run("compare", traced / "run.zarr", "--methods", "rollot").code == 2


def test_report_is_one_page(run: Callable, traced: Path, tmp_path: Path) -> None:
    result = run("report", traced / "run.zarr", "--out", tmp_path / "report.html", "--json")
    assert result.code == 0, result.err
    page = (tmp_path / "report.html").read_text()
    assert result.json["bytes"] == len(page.encode())
    assert PROMPT in page


def test_balance_writes_both_videos(run: Callable, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "balanced"
    result = run("balance", PROMPT, "--model", model, *CALL, "--out", out, "--json")
    assert result.code == 0, result.err
    assert {entry.name for entry in out.iterdir()} == {"before.mp4", "after.mp4", "balance.csv", "summary.json"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary == result.json
    for side in ("before", "after"):
        assert sum(summary[side]["share"].values()) == pytest.approx(1)
        assert summary[side]["judge"] is None
    assert (out / "balance.csv").read_text().count("\n") > 1


@pytest.mark.parametrize("verb", ["balance", "trace"])
def test_a_failure_after_sampling_keeps_the_video(
    run: Callable, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """As on a model too large to attribute: what took the time is not thrown away."""

    def too_large(*ignored: Any, **options: Any) -> None:
        raise vl.VicoLensError("the map would need 52 GB")

    monkeypatch.setattr("vico_lens.attribution.facade.attribute", too_large)
    monkeypatch.setattr("vico_lens.store.writer.TraceWriter.keep_video", too_large)
    out = tmp_path / "out"
    more = ["--video", tmp_path / "video.mp4"] if verb == "trace" else []
    result = run(verb, PROMPT, "--model", model, *CALL, "--out", out, *more)
    assert result.code == 1 and "52 GB" in result.line
    kept = tmp_path / "video.mp4" if verb == "trace" else out / "before.mp4"
    assert kept.read_bytes()[4:8] == b"ftyp"
    if verb == "balance":
        assert [entry.name for entry in out.iterdir()] == ["before.mp4"] and "before.mp4 in" in result.err


def test_knockout_writes_both_videos_and_a_map(run: Callable, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    arguments = ["knockout", PROMPT, "--model", model, *CALL, "--out", out, "-c", "red circle", "--at-steps", "0"]
    result = run(*arguments, "--map", "layer,step", "--json")
    assert result.code == 0, result.err
    assert {entry.name for entry in out.iterdir()} == {"plain.mp4", "knockout.mp4", "effects.csv", "summary.json"}
    report = result.json
    assert json.loads((out / "summary.json").read_text()) == report
    assert report["distance"] > 0 and set(report["edited"].values()) == {1}
    effects = xr.Dataset.from_dict(report["effects"]).effect
    assert effects.dims == ("concept", "layer", "step") and effects.step.values.tolist() == [0]
    assert "extra denoiser forwards" in result.err
    assert run(*arguments).code == 2
    for wrong in (["--to", "noise"], ["--heads", "x"], ["--map", "token"], ["-c", "crab"]):
        result = run("knockout", PROMPT, "--model", model, *CALL, "--out", tmp_path / "wrong", *wrong)
        assert result.code == 2 and not (tmp_path / "wrong" / "summary.json").exists()


class TestWrongUse:
    """Each ends in one line, with exit code 1 or 2, and leaves nothing behind."""

    @pytest.fixture(autouse=True)
    def in_an_empty_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize("verb", ["trace", "balance"])
    @pytest.mark.parametrize(
        ("prompt", "message"),
        [("", "the prompt is empty"), ("a crab DJing", "never seen 'crab', 'DJing'"), ("a red circle!", "never seen 'circle!'")],
    )
    def test_prompt(self, run: Callable, verb: str, prompt: str, message: str, tmp_path: Path) -> None:
        result = run(verb, prompt, "--out", "out.zarr")
        assert result.code == 2
        assert message in result.line
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("verb", ["trace", "balance"])
    def test_missing_model(self, run: Callable, verb: str, tmp_path: Path) -> None:
        result = run(verb, PROMPT, "--model", "./nowhere", "--out", "out.zarr")
        assert result.code == 1
        assert "nowhere" in result.line
        assert not list(tmp_path.iterdir())

    def test_unknown_concept_of_a_run(self, run: Callable, model: Path, tmp_path: Path) -> None:
        result = run("balance", PROMPT, "--model", model, *CALL, "--out", "out", "-c", "crab")
        assert result.code == 2
        assert "'red circle', 'blue square'" in result.line
        assert not list(tmp_path.iterdir())

    def test_unknown_concept_of_a_trace(self, run: Callable, traced: Path, tmp_path: Path) -> None:
        result = run("attribute", traced / "run.zarr", "-c", "crab", "--out", "influence.csv")
        assert result.code == 2
        assert "'crab' is not in the prompt" in result.line
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--method", "rollot"],
            ["--option", "tow=1"],
            ["--option", "tau"],
            ["--out", "x.txt"],
            ["--step", "99"],
            ["--method", "leave_one_out"],
        ],
    )
    def test_attribute(self, run: Callable, traced: Path, arguments: list[str], tmp_path: Path) -> None:
        result = run("attribute", traced / "run.zarr", *arguments)
        assert result.code == 2
        assert result.line
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("verb", ["attribute", "inspect", "report --out page.html"])
    def test_missing_trace(self, run: Callable, verb: str, tmp_path: Path) -> None:
        name, *rest = verb.split()
        result = run(name, "nowhere.zarr", *rest)
        assert result.code == 2
        assert "nowhere.zarr" in result.line
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("verb", ["attribute", "inspect"])
    def test_a_folder_that_is_no_trace(self, run: Callable, verb: str, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        result = run(verb, "photos")
        assert result.code == 1
        assert "photos" in result.line

    def test_existing_output(self, run: Callable, model: Path, tmp_path: Path) -> None:
        (tmp_path / "out.zarr").write_text("mine")
        (tmp_path / "page.html").write_text("mine")
        for arguments in (["trace", PROMPT, "--model", model, "--out", "out.zarr"], ["balance", PROMPT, "--out", "out.zarr"]):
            result = run(*arguments)
            assert result.code == 2
            assert "--overwrite" in result.line
        assert (tmp_path / "out.zarr").read_text() == "mine"

    def test_a_trace_is_replaced_only_when_asked(self, run: Callable, model: Path, traced: Path) -> None:
        arguments = ["trace", PROMPT, "--model", model, *CALL, "--kinds", "cross", "--out", "again.zarr"]
        assert run(*arguments).code == 0
        assert run(*arguments).code == 2
        assert run(*arguments, "--overwrite").code == 0

    @pytest.mark.parametrize("verb", ["trace", "balance"])
    def test_output_that_cannot_be_written(self, run: Callable, verb: str) -> None:
        result = run(verb, PROMPT, "--out", "/proc/out.zarr")
        assert result.code == 1
        assert "cannot write" in result.line

    def test_trace_over_budget(self, run: Callable, model: Path, tmp_path: Path) -> None:
        result = run("trace", PROMPT, "--model", model, *CALL, "--out", "out.zarr", "--budget", "1kB")
        assert result.code == 1
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "arguments", [["--kinds", "crossed"], ["--store", "fast"], ["--record-steps", "x"], ["--budget", "much"]]
    )
    def test_capture(self, run: Callable, arguments: list[str], tmp_path: Path) -> None:
        result = run("trace", PROMPT, "--out", "out.zarr", *arguments)
        assert result.code == 2
        assert not list(tmp_path.iterdir())

    def test_trace_without_a_place(self, run: Callable) -> None:
        assert "--out" in run("trace", PROMPT).line


def test_arguments_that_the_pipeline_refuses_are_one_line_and_leave_nothing(model: Path, run: Callable, tmp_path: Path) -> None:
    result = run("trace", PROMPT, "--model", model, "--call", "height=17", "--steps", 2, "--out", tmp_path / "run.zarr")
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1
    assert "expected AnimateDiffPipeline to run with" in result.err
    assert "height=17" in result.err or "'height': 17" in result.err
    assert "divisible by 8" in result.err
    assert not (tmp_path / "run.zarr").exists()
    wrong = run("balance", PROMPT, "--model", model, "--call", "num_frames='x'", "--call", "width=17", "--out", tmp_path / "b")
    assert wrong.code == 1
    assert "Traceback" not in wrong.err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("verb", ["trace", "balance"])
def test_an_argument_that_the_pipeline_does_not_have_is_refused(run: Callable, model: Path, tmp_path: Path, verb: str) -> None:
    result = run(verb, PROMPT, "--model", model, "--call", "num_frame=4", "--out", tmp_path / "out.zarr")
    assert result.code == 2 and not (tmp_path / "out.zarr").exists()
    assert "the call of AnimateDiffPipeline has no argument 'num_frame'. Did you mean num_frames?" in result.line


def test_the_bundled_model_refuses_it_too_although_its_call_takes_any_name(run: Callable, tmp_path: Path) -> None:
    line = ["trace", "a red circle moving up", "--out", tmp_path / "out.zarr"]
    assert "no argument 'num_frame'" in run(*line, "--call", "num_frame=4").line
    assert "no argument 'colour'. It takes num_frames, height," in run(*line, "--call", "colour=4").line
