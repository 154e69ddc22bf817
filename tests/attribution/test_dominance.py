"""Dominance against shares worked out by hand, and a null that must not see dominance in noise."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.attribution.dominance import dominance, evenness, gini
from vico_lens.errors import AttributionError, InputError


def maps(values, **coords):
    return xr.DataArray(np.asarray(values, float), dims=("concept", "step", "frame", "y", "x"), coords=coords)


def test_shares_by_hand():
    values = np.zeros((3, 2, 2, 1, 1))
    values[0, :, 0], values[1, 0, :], values[2, 1, 1] = 3, 1, 2  # a: 6; b: 2; c: 2
    result = dominance(maps(values, concept=["a", "b", "c"], step=[0, 5]))
    assert result["share"].values.tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert result["influence"].values.tolist() == [6, 2, 2]
    assert result["dominant"].item() == "a" and result["weakest"].item() == "b"
    assert result["share_by_step"].sel(step=5).values.tolist() == pytest.approx([0.6, 0, 0.4])
    assert result["dominant_by_frame"].values.tolist() == ["a", "c"]
    assert result["weakest_by_frame"].values.tolist() == ["c", "a"]
    assert result["gini"].item() == pytest.approx(np.abs(np.subtract.outer([0.6, 0.2, 0.2], [0.6, 0.2, 0.2])).mean() / (2 / 3))
    assert result["evenness"].item() == pytest.approx(-(0.6 * np.log(0.6) + 0.4 * np.log(0.2)) / np.log(3))


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=6))
def test_indices_are_bounded_and_agree_on_equality(values):
    share = xr.DataArray(np.array(values) / sum(values), dims="concept")
    assert -1e-12 <= float(evenness(share)) <= 1 + 1e-12
    assert -1e-12 <= float(gini(share)) <= 1 - 1 / len(values) + 1e-12
    equal = xr.full_like(share, 1 / len(values))
    assert float(evenness(equal)) == pytest.approx(1) and float(gini(equal)) == pytest.approx(0)


def test_one_run_claims_no_certainty():
    result = dominance(maps(np.ones((2, 1, 1, 1, 1))))
    assert "share_low" not in result and "several runs" in result.attrs["note"]


def runs(top, count, seed=0):
    generator = np.random.default_rng(seed)
    weights = generator.gamma(20, size=(count, 3))
    weights[:, 1] *= top
    return [maps(row.reshape(3, 1, 1, 1, 1), concept=["a", "b", "c"]) for row in weights]


def test_a_concept_that_dominates_every_run_is_found():
    result = dominance(runs(3.0, 8), resamples=500)
    assert result["dominant"].item() == "b" and result["p_dominant"].item() < 0.01
    assert (result["share_low"] <= result["share"]).all() and (result["share"] <= result["share_high"]).all()
    assert result["share_low"].sel(concept="b") > result["share_high"].sel(concept="a")
    np.testing.assert_allclose(result["share_by_run"].mean("run"), result["share"])
    stacked = dominance(xr.concat(runs(3.0, 8), dim="run"), resamples=500)
    xr.testing.assert_allclose(stacked, result)


def test_the_null_is_calibrated_on_noise():
    values = [dominance(runs(1.0, 5, seed), resamples=200)["p_dominant"].item() for seed in range(60)]
    assert 0.3 < np.mean(values) < 0.7 and np.mean(np.array(values) < 0.1) < 0.25


def test_intervals_and_p_values_are_those_of_every_resample_and_every_labelling():
    shares = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.6, 0.25, 0.15], [0.45, 0.2, 0.35]])
    result = dominance([maps(row.reshape(3, 1, 1, 1, 1)) for row in shares], confidence=0.8, resamples=20_000)
    drawn = np.array([shares[list(pick)].mean(0) for pick in product(range(4), repeat=4)])
    low, high = np.quantile(drawn, [0.1, 0.9], axis=0)
    assert result["share_low"].values == pytest.approx(low, abs=0.01)
    assert result["share_high"].values == pytest.approx(high, abs=0.01)
    orders = [[row[list(order)] for order in permutations(range(3))] for row in shares]
    labelled = np.array([np.mean(rows, 0) for rows in product(*orders)])
    top, bottom = shares.mean(0).max(), shares.mean(0).min()
    assert result["p_dominant"].item() == pytest.approx((labelled.max(1) >= top - 1e-12).mean(), abs=0.02)
    assert result["p_weakest"].item() == pytest.approx((labelled.min(1) <= bottom + 1e-12).mean(), abs=0.02)


def test_no_p_value_is_below_what_its_permutations_can_tell():
    rows = [np.array([0.01, 0.01, 0.98]) if place % 2 else np.array([0.02, 0.0, 0.98]) for place in range(10)]
    result = dominance([maps(row.reshape(3, 1, 1, 1, 1)) for row in rows], resamples=99)
    assert result["p_dominant"].item() == 0.01
    rows = [np.array([0.0, 0.5, 0.5])] * 10
    assert dominance([maps(row.reshape(3, 1, 1, 1, 1)) for row in rows], resamples=99)["p_weakest"].item() == 0.01


def test_a_frame_without_influence_has_no_shares():
    values = np.ones((2, 1, 3, 1, 1))
    values[:, :, 1] = 0
    result = dominance(maps(values))
    assert np.isnan(result["share_by_frame"].values[:, 1]).all() and result["share"].values.tolist() == [0.5, 0.5]
    assert result["weakest_by_frame"].values.tolist() == ["0", "", "0"] == result["dominant_by_frame"].values.tolist()


def test_bad_input():
    good = maps(np.ones((2, 1, 1, 1, 1)), concept=["a", "b"])
    with pytest.raises(AttributionError, match="got NaN"):
        dominance(good * np.nan)
    with pytest.raises(AttributionError, match="every concept has none"):
        dominance(good * 0)
    with pytest.raises(InputError, match="non-empty concept dimension"):
        dominance(good.isel(concept=0))
    with pytest.raises(InputError, match="same concepts"):
        dominance([good, good.assign_coords(concept=["a", "c"])])
    with pytest.raises(InputError, match="runs of one shape"):
        dominance([good, maps(np.ones((2, 1, 2, 1, 1)), concept=["a", "b"])])
    with pytest.raises(InputError, match="expected one or more influence"):
        dominance([])
    with pytest.raises(InputError, match="confidence"):
        dominance(good, confidence=95)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [(xr.DataTree(), "DataTree"), (xr.Dataset(), "Dataset"), ([], "a list of nothing"), (["run.zarr"], "a list of ['str']")],
)
def test_what_is_no_influence_is_called_by_its_name(wrong, named):
    with pytest.raises(InputError) as caught:
        dominance(wrong)
    assert f"got {named}. vico_lens.attribute makes one of a trace." in str(caught.value)
