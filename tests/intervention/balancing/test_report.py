"""The report of a balanced call, against numbers taken by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import laplace

from vico_lens.errors import BalanceError, InputError
from vico_lens.intervention.balancing import Balance, FixedRms, Schedule, balance, balance_report
from vico_lens.intervention.balancing.quality import clipped, distance, flicker, sharpness
from vico_lens.intervention.balancing.report import report_summary, report_table
from vico_lens.testing.pipelines import tiny_pipeline

NAMES = ["red circle", "blue square"]


@pytest.fixture(scope="module")
def sessions() -> tuple[Balance, Balance]:
    tiny = tiny_pipeline("animatediff-t2v")
    with balance(tiny.pipe, NAMES, preset="observe", flow="subgraph_flow", kind="sum") as plain:
        tiny.run()
    with balance(
        tiny.pipe,
        NAMES,
        objective="equal",
        flow="subgraph_flow",
        kind="sum",
        step=FixedRms(0.05),
        schedule=Schedule(stop=1.0, iterations=2),
    ) as balanced:
        tiny.run()
    return plain, balanced


def test_balancing_evened_the_shares_at_the_reported_cost(sessions: tuple[Balance, Balance]) -> None:
    plain, balanced = sessions
    report = balance_report(*sessions)
    assert report.evenness.sel(run="balanced") > report.evenness.sel(run="plain")
    expected = plain.log.share.mean("update")
    xr.testing.assert_allclose(report.share.sel(run="plain", drop=True), expected)
    # Three steps of two rows; six updates of one row, forward and backward.
    assert report.forwards.values.tolist() == [6, 18] and report.cost_ratio == 3 and report.updates == 6
    assert report.stops.sel(reason="iterations") == 3
    assert report.distance.item() == pytest.approx(distance(plain.video, balanced.video)) and report.distance > 0
    assert report.time_ratio > 1
    assert report.attrs["compared_steps"] == [0, 1, 2]


def test_frames_alone_give_no_influence_but_the_rest(sessions: tuple[Balance, Balance]) -> None:
    plain, balanced = sessions
    report, watched = balance_report(plain.video, balanced), balance_report(plain, balanced)
    assert report.evenness.isnull().all() and report.share.isnull().all()
    for name in ("sharpness", "flicker", "clipped", "distance", "forwards"):
        xr.testing.assert_equal(report[name], watched[name])


def test_report_is_a_table_and_json(sessions: tuple[Balance, Balance]) -> None:
    report = balance_report(sessions[0].video, sessions[1])
    summary = json.loads(json.dumps(report_summary(report)))
    assert summary["evenness"] == {"plain": None, "balanced": None}
    assert summary["stops"] == {"iterations": 3} and summary["forwards"]["plain"] == 6
    table = report_table(balance_report(*sessions))
    assert table.loc["share of red circle", "change"] < 0 < table.loc["share of blue square", "change"]
    assert list(table.columns) == ["plain", "balanced", "change"]


def test_what_is_no_session_is_refused(sessions: tuple[Balance, Balance]) -> None:
    with pytest.raises(InputError, match="session of the balanced call"):
        balance_report(sessions[0].video, sessions[1].video)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one shape"):
        balance_report(sessions[0].video[:2], sessions[1])
    with pytest.raises(BalanceError, match="decodes its video"):
        balance_report(sessions[0].video, balance(tiny_pipeline("animatediff-t2v").pipe, NAMES))


def test_quality_measures_against_scipy() -> None:
    video = np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    grey = (video / 255) @ [0.299, 0.587, 0.114]
    expected = np.sqrt(np.mean([np.square(laplace(frame)[1:-1, 1:-1]) for frame in grey]))
    assert sharpness(video) == pytest.approx(expected)
    assert flicker(video) == pytest.approx(np.abs(np.diff(video / 255, 2, axis=0)).mean())
    assert flicker(video[:2]) == 0
    assert clipped(video) == pytest.approx(np.isin(video, [0, 255]).mean())
    with pytest.raises(InputError, match="at least 3 rows"):
        sharpness(video[:, :2])
