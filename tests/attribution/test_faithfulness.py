"""Faithfulness scores on cases whose answer is known, and a comparison in which the truth is planted."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import vico_lens as vl
from vico_lens.attribution.base import METHODS, Answer
from vico_lens.attribution.judging.faithfulness import (
    concept_shares,
    infidelity,
    localisation,
    null_influences,
    removal_curves,
    spearman,
    summarise,
)
from vico_lens.errors import InputError
from vico_lens.testing.traces import blobs, fake_trace

NAMES = ["red circle", "blue square"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
@settings(max_examples=30, deadline=None)
def test_spearman_equals_scipy(pairs):
    first, second = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert spearman(first, second) == 0
    else:
        assert spearman(first, second) == pytest.approx(scipy.stats.spearmanr(first, second).statistic)


def test_localisation_of_the_mask_itself_is_perfect():
    masks = np.zeros((2, 2, 8, 8))
    masks[0, :, :4, :4], masks[1, 1, 4:, 4:] = 1, 1
    influence = xr.DataArray(masks.reshape(2, 2, 4, 2, 4, 2).mean((3, 5)), dims=("concept", "frame", "y", "x"))
    scores = localisation(influence, masks)
    assert scores["iou"].values.tolist() == [1, 1] and scores["pointing"].values.tolist() == [1, 1]
    wrong = localisation(influence.isel(concept=[1, 0]).assign_coords(concept=["a", "b"]), masks)
    assert wrong["pointing"].sel(concept="b").item() == 0 and wrong["iou"].max() < 0.5
    with pytest.raises(InputError, match=r"masks: expected \[concept, frame, row, column\] for 2 concepts"):
        localisation(influence, masks[:1])
    with pytest.raises(InputError, match=r"\['x', 'y'\] is missing"):
        localisation(influence.sum(("y", "x")), masks)


def test_equal_influence_scores_as_a_random_choice_does():
    masks = np.zeros((1, 1, 4, 4))
    masks[0, 0, 0, :2] = masks[0, 0, 3, 2:] = 1
    flat = xr.DataArray(np.ones((1, 1, 4, 4)), dims=("concept", "frame", "y", "x"))
    scores = localisation(flat, masks)
    assert scores["pointing"].item() == 4 / 16 and scores["iou"].item() == pytest.approx(1 / (4 + 4 - 1))
    rounding = flat + 1e-13 * np.arange(16).reshape(1, 1, 4, 4)
    xr.testing.assert_allclose(localisation(rounding, masks), scores)


def linear(weights):
    return lambda switches: switches.double() @ torch.tensor(weights, dtype=torch.float64)


def test_curves_and_infidelity_reward_the_true_weights():
    true = [0.5, 0.1, 0.3, 0.1]
    best = removal_curves(linear(true), true)
    np.testing.assert_allclose(best["deletion"], [1, 0.5, 0.2, 0.1, 0], atol=1e-12)
    np.testing.assert_allclose(best["insertion"], [0, 0.5, 0.8, 0.9, 1], atol=1e-12)
    worst = removal_curves(linear(true), [1, 4, 2, 3])
    assert worst["deletion"].mean() > best["deletion"].mean() and worst["insertion"].mean() < best["insertion"].mean()
    negative = removal_curves(linear([-4, 1, 3, 2]), [-4, 1, 3, 2])
    np.testing.assert_allclose(negative["deletion"], [2, 6, 3, 1, 0], atol=1e-12)  # sign aside, largest first
    switch = linear(true)
    assert infidelity(lambda z: switch(z).float(), [5.0, 1.0, 3.0, 1.0]) == pytest.approx(0, abs=1e-6)
    assert infidelity(lambda z: switch(z).float(), [1.0, 1.0, 1.0, 1.0]) > 1e-3


def test_tokens_of_equal_influence_are_taken_away_in_random_orders():
    """So what says nothing gets the mean over orders, not what the place in the prompt would get."""
    true, asked = [4.0, 3.0, 2.0, 1.0], []

    def switch(switches):
        asked.append(len(switches))
        return linear(true)(switches)

    flat = removal_curves(switch, [1.0] * 4, orders=400, seed=3)
    np.testing.assert_allclose(flat["deletion"], [10, 7.5, 5, 2.5, 0], atol=0.25)
    np.testing.assert_allclose(flat["insertion"], [0, 2.5, 5, 7.5, 10], atol=0.25)
    assert len(asked) == 2 * 24  # every order of four, once
    again = removal_curves(linear(true), np.array([1.0, 1 + 1e-12, 1 - 1e-12, -1]), orders=400, seed=3)
    np.testing.assert_array_equal(again["deletion"], flat["deletion"])
    few = [removal_curves(linear(true), [1.0] * 4, seed=seed)["deletion"].mean() for seed in range(3)]
    assert len(set(few)) == 3
    half = removal_curves(linear(true), [2.0, 1.0, 1.0, 0.0], orders=400)["deletion"]
    np.testing.assert_allclose(half, [10, 6, 3.5, 1, 0], atol=0.1)
    with pytest.raises(InputError, match="at least one order"):
        removal_curves(linear(true), true, orders=0)


def test_where_nothing_has_influence_the_shares_are_even():
    totals = xr.DataArray([[3.0, 0.0], [1.0, 0.0]], dims=("concept", "step"))
    assert concept_shares(totals).values.tolist() == [[0.75, 0.5], [0.25, 0.5]]


def test_nulls_know_only_what_they_say():
    like = xr.DataArray(np.zeros((2, 3, 2, 2)), dims=("concept", "frame", "y", "x"), coords={"concept": NAMES})
    nulls = null_influences(like, [(4,), (1, 2)], seed=1)
    assert concept_shares(nulls["uniform"]).values.tolist() == [0.5, 0.5]
    np.testing.assert_allclose(concept_shares(nulls["position"]), [2 / 7, 5 / 7])
    xr.testing.assert_equal(nulls["random"], null_influences(like, [(4,), (1, 2)], seed=1)["random"])


def test_comparison_without_a_model():
    table = vl.compare(fake_trace(), ["cross_attention", "rollout", "max_flow"], concepts=NAMES, steps=[0])
    assert table["agreement"].dims == ("method", "other_method") and np.diag(table["agreement"]).tolist() == [1, 1, 1]
    np.testing.assert_allclose(table["agreement"], table["agreement"].values.T)
    np.testing.assert_allclose(table["share"].sum("concept"), 1)
    assert "rank_correlation" not in table and table["method"].values.tolist() == ["cross_attention", "rollout", "max_flow"]
    maps = [vl.attribute(fake_trace(), name, NAMES, steps=0) for name in ("cross_attention", "rollout")]
    expected = np.mean([scipy.stats.spearmanr(a.values.ravel(), b.values.ravel()).statistic for a, b in zip(*maps, strict=True)])
    assert table["agreement"].sel({"method": "rollout", "other_method": "cross_attention"}).item() == pytest.approx(expected)
    with pytest.raises(InputError, match="unknown attribution method"):
        vl.compare(fake_trace(), ["nothing"], concepts=NAMES)
    with pytest.raises(InputError, match="expected at least one name"):
        vl.compare(fake_trace(), [], concepts=NAMES)
    with pytest.raises(InputError, match="which name the nulls; got uniform"):
        vl.compare(fake_trace(), {"uniform": ("rollout", {})}, concepts=NAMES)
    table = vl.compare(
        fake_trace(), {"plain": ("rollout", {}), "cross only": ("rollout", {"layers": "cross*"})}, concepts=NAMES, steps=[0]
    )
    expected = vl.dominance(vl.attribute(fake_trace(), "rollout", NAMES, steps=[0], layers="cross*"))["share"]
    np.testing.assert_allclose(table["share"].sel({"method": "cross only"}), expected)


def test_masks_rank_a_method_that_sees_the_objects_above_the_nulls():
    truth = blobs((4, 4, 4)).permute(3, 0, 1, 2)

    def sees(problem):
        return truth[: len(problem.tokens)]

    vl.register_method("sees", cost="none", references="none")(sees)
    try:
        table = vl.compare(fake_trace(), ["sees"], concepts=NAMES, masks=(truth > 0.5).numpy())
    finally:
        METHODS.remove("sees")
    assert table["method"].values.tolist() == ["sees", "uniform", "position", "random"]
    assert table["iou"].sel({"method": "sees"}).item() == pytest.approx(1) and table["iou"].sel({"method": "random"}).item() < 0.7
    assert table["pointing"].sel({"method": "sees"}).item() == 1


def test_summary_over_comparisons():
    tables = [vl.compare(fake_trace(seed=seed), ["rollout"], concepts=NAMES, masks=np.ones((2, 4, 4, 4))) for seed in (0, 1)]
    total = summarise(tables, resamples=100)
    assert total.attrs["comparisons"] == 2 and total["iou"].sel({"method": "rollout"}).item() == pytest.approx(1)
    assert (total["pointing_low"] <= total["pointing"]).all() and (total["pointing"] <= total["pointing_high"]).all()
    with pytest.raises(InputError, match="one or more comparisons of the same methods"):
        summarise([])


def test_a_planted_truth_is_recognised():
    """With a stand-in for leave one out that returns what one method says, that method gets a perfect score."""
    tree, real = fake_trace(), METHODS["leave_one_out"]
    planted = vl.attribute(tree, "cross_attention", NAMES)

    def stand_in(problem, **_):
        return Answer(torch.from_numpy(planted.values), ("concept", "step", "frame", "y", "x"))

    METHODS.add(
        "leave_one_out", type(real)("leave_one_out", stand_in, needs_pipe=True, cost="none", references="none"), replace=True
    )
    try:
        from vico_lens.attribution.judging.comparison import _against_causal

        found = {name: vl.attribute(tree, name, NAMES) for name in ("cross_attention", "rollout")}
        causal = vl.attribute(tree, "leave_one_out", NAMES, pipe=object())
        scores = _against_causal(found, causal)
    finally:
        METHODS.add("leave_one_out", real, replace=True)
    assert scores["rank_correlation"][1][0] == pytest.approx(1) and scores["map_correlation"][1][0] == pytest.approx(1)
    assert scores["weakest_found"][1][0] == 1 and scores["map_correlation"][1][1] < 1
