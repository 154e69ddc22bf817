"""`vico-lens demo` with the bundled model, in fewer steps than the real one, and what it does when something is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vico_lens as vl
from vico_lens.cli import demo as demo_verb
from vico_lens.cli.demo import OUTPUTS
from vico_lens.tinyworld import parse_prompt

STEPS = 4


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The packaged story, told in a few steps."""
    packaged = demo_verb._packaged
    story = packaged("demo.json") | {"call": {"num_inference_steps": STEPS}}
    monkeypatch.setattr(demo_verb, "_packaged", lambda name: story if name == "demo.json" else packaged(name))
    return story


def test_the_packaged_story_and_table_are_usable() -> None:
    story, reliability = demo_verb._packaged("demo.json"), demo_verb._packaged("reliability.json")
    assert len(parse_prompt(story["prompt"]).objects) == 2
    assert isinstance(story["seed"], int)
    assert reliability["rows"]
    for row in reliability["rows"]:
        assert 0 <= row["successes"] <= row["trials"]
        assert row["label"]


def test_demo_tells_the_whole_story(run: Callable, short: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "demo-output"
    result = run("demo", "--out", out)
    assert result.code == 0, result.err
    assert {entry.name for entry in tmp_path.iterdir()} == {"demo-output"}
    assert {entry.name for entry in out.iterdir()} == set(OUTPUTS)
    for name in ("before.mp4", "after.mp4"):
        assert (out / name).read_bytes()[4:8] == b"ftyp"

    summary = json.loads((out / "summary.json").read_text())
    assert summary["prompt"] == short["prompt"]
    assert tuple(summary["concepts"]) == parse_prompt(short["prompt"]).concepts
    for side in ("before", "after"):
        assert sum(summary[side]["share"].values()) == pytest.approx(1)
        assert set(summary[side]["judge"]) >= {"all_correct", "failure"}

    # What the summary says of the plain run follows from the trace that lies beside it.
    tree = vl.open_trace(out / "trace.zarr")
    assert tree.sizes["step"] == STEPS
    share = vl.dominance(vl.attribute(tree, summary["method"]))["share"]
    assert {
        str(name): pytest.approx(float(value), abs=1e-5)
        for name, value in zip(share["concept"].values, share.values, strict=True)
    } == (summary["before"]["share"])

    last = result.out.strip().splitlines()[-1]
    assert summary["before"]["dominant"] in last
    assert str(out / "report.html") in last
    page = (out / "report.html").read_text()
    assert all(concept in page for concept in summary["concepts"])
    assert "http://" not in page.replace("http://www.w3.org", "")[:20_000]

    again = run("demo", "--out", out)
    assert again.code == 2
    assert "--overwrite" in again.line


def test_demo_keeps_the_videos_and_nothing_else_of_a_failure(
    run: Callable, short: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo_verb, "_report", full_disk)
    short["call"]["num_inference_steps"] = 2
    result = run("demo", "--out", tmp_path / "deep" / "demo-output")
    assert result.code == 1
    assert "No space left" in result.line
    assert sorted(entry.name for entry in (tmp_path / "deep" / "demo-output").iterdir()) == ["after.mp4", "before.mp4"]
    assert "what was sampled is kept" in result.err


def test_demo_without_its_files_says_so(run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vico_lens.cli.demo.files", lambda package: tmp_path)
    result = run("demo", "--out", tmp_path / "out")
    assert result.code == 1
    assert "demo.json" in result.line


def test_demo_output_that_cannot_be_written(run: Callable) -> None:
    result = run("demo", "--out", "/proc/demo-output")
    assert result.code == 1
    assert "cannot write" in result.line
