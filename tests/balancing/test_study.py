"""The study's table: pairs are pairs, and a difference has its interval."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from benchmarks.study import CONDITIONS, SHARES, compare_pairs, tabulate


def index_of(rows: list[tuple[str, str, int, bool, float]]) -> xr.Dataset:
    conditions, prompts, seeds, right, cost = (np.array(column) for column in zip(*rows, strict=True))
    data = {name: ("run", right) for name in SHARES} | {
        "row_forwards": ("run", cost),
        "failure": ("run", np.where(right, "", "missing_subject")),
    }
    return xr.Dataset(data, {"condition": ("run", conditions), "prompt": ("run", prompts), "seed": ("run", seeds)})


def test_only_pairs_with_a_plain_clip_count() -> None:
    rows = [("plain", "a", 0, False, 50.0), ("plain", "b", 1, True, 50.0), ("balanced", "a", 0, True, 70.0)]
    rows += [("balanced", "b", 1, True, 70.0), ("balanced", "c", 2, False, 70.0)]
    plain, balanced = tabulate(index_of(rows))
    assert (plain["pairs"], balanced["pairs"]) == (2, 2)
    assert (plain["all_correct"], balanced["all_correct"], balanced["difference"]) == (0.5, 1.0, 0.5)
    assert (balanced["gained"], balanced["lost"], balanced["cost"]) == (1, 0, pytest.approx(1.4))
    assert plain["failures"] == {"missing_subject": 1} and balanced["failures"] == {}


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
