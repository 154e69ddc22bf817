"""The study's table: pairs are pairs, and a difference has its interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.conditions import CONDITIONS, SINGLE, sample_batch
from benchmarks.study import run_of_cell
from benchmarks.study_table import SHARES, compare_pairs, markdown, tabulate
from vico_lens.runs.sweeps import sample_run
from vico_lens.tinyworld import sample_prompts
from vico_lens.tracing.pipelines import load_pipeline


@pytest.fixture(scope="module")
def pipe() -> object:
    return load_pipeline()


def clips_of(rows: list[tuple[str, str, int, bool, float]]) -> pd.DataFrame:
    clips = pd.DataFrame(rows, columns=["condition", "prompt", "seed", "all_correct", "row_forwards"])
    clips["failure"] = np.where(clips.all_correct, "", "missing_subject")
    return clips.assign(**{name: clips.all_correct for name in SHARES})


def test_only_pairs_with_a_plain_clip_count() -> None:
    rows = [("plain", "a", 0, False, 50.0), ("plain", "b", 1, True, 50.0), ("balanced", "a", 0, True, 70.0)]
    rows += [("balanced", "b", 1, True, 70.0), ("balanced", "c", 2, False, 70.0)]
    plain, balanced = tabulate(clips_of(rows))
    assert (plain["pairs"], balanced["pairs"]) == (2, 2)
    assert (plain["all_correct"], balanced["all_correct"], balanced["difference"]) == (0.5, 1.0, 0.5)
    assert (balanced["gained"], balanced["lost"], balanced["cost"]) == (1, 0, pytest.approx(1.4))
    assert plain["failures"] == {"missing": 1, "extra": 0, "attributes": 0, "motion": 0} and not any(
        balanced["failures"].values()
    )


def test_interval_covers_the_difference_and_shrinks_with_pairs() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for count in (40, 400):
        plain = generator.random(count) < 0.5
        better = plain | (generator.random(count) < 0.3)
        found = compare_pairs(better, plain)
        assert 0 < found["low"] <= found["difference"] <= found["high"] and found["lost"] == 0
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0] / 2


def test_plain_and_the_null_are_among_the_conditions() -> None:
    assert CONDITIONS["plain"] is None and "random direction" in CONDITIONS
    assert set(SINGLE) <= set(CONDITIONS)


def test_the_default_is_compared_with_every_other_on_common_pairs() -> None:
    rows = [("plain", "a", 0, False, 50.0), ("plain", "b", 1, True, 50.0), ("default", "a", 0, True, 70.0)]
    plain, default = tabulate(clips_of(rows))
    assert plain["behind_default"]["difference"] == 1.0 and "behind_default" not in default
    assert "| default | 1 | 100.0 % | +100.0 (+100.0 to +100.0) | 1 / 0 |" in markdown([plain, default])


@pytest.mark.parametrize("name", ["plain", "default", "random direction", "best of 3 at step 4", "token weight 1.5"])
def test_a_batch_is_what_single_runs_are(pipe: object, name: str) -> None:
    """Videos, and what they cost, do not depend on what else is in the batch."""
    cells = list(zip(sample_prompts(2, objects=2, seed=1), (5, 6), strict=True))
    runs = [run_of_cell(prompt, seed, name, {"num_inference_steps": 6}) for prompt, seed in cells]
    for run, (video, told) in zip(runs, sample_batch(pipe, runs), strict=True):
        alone, cost = sample_run(pipe, run)
        assert told["row_forwards"] == cost["row_forwards"]
        assert np.abs(alone.astype(int) - video.astype(int)).mean() < 1
