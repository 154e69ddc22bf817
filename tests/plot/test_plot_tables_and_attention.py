from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import vico_lens as vl
from vico_lens import plot
from vico_lens.errors import AttributionError, InputError
from vico_lens.store.reading import temporal_matrix
from vico_lens.testing.traces import fake_trace

METHODS = ["cross_attention", "rollout", "max_flow"]


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return fake_trace()


def test_agreement_names_the_extremes():
    table = np.array([[1, 0.9, 0.2], [0.9, 1, np.nan], [0.2, np.nan, 1]])
    data = xr.Dataset({"agreement": (("method", "other_method"), table)}, coords={"method": METHODS, "other_method": METHODS})
    figure = plot.agreement(data)
    assert (
        figure.layout.meta["finding"]
        == "Cross attention and rollout agree most (0.90), cross attention and max flow least (0.20)"
    )
    assert figure.data[0].text[1][2] == "–"
    with pytest.raises(InputError, match="square table"):
        plot.agreement(data["agreement"].isel(method=slice(0, 2)))
    with pytest.raises(InputError, match="agreement"):
        plot.agreement(xr.Dataset())


def test_comparison_of_a_trace_can_be_drawn(tree):
    table = vl.compare(tree, METHODS, concepts=["red circle", "blue square"])
    numbers = plot.agreement_numbers(table)
    assert np.allclose(np.diag(numbers), 1) and np.allclose(numbers, numbers.values.T)


def test_faithfulness_ranks_with_the_right_sign_and_leaves_nulls_out():
    scores = xr.Dataset(
        {
            "deletion": ("method", [0.1, 0.3, 0.0]),
            "insertion": ("method", [0.8, 0.2, 0.9]),
            "iou": ("method", [np.nan] * 3),
            "share": (("method", "concept"), np.ones((3, 2))),
        },
        coords={"method": ["rollout", "max_flow", "random"]},
    )
    numbers = plot.faithfulness_numbers(scores)
    assert list(numbers.data_vars) == ["deletion", "insertion"]
    figure = plot.faithfulness(scores)
    assert figure.layout.meta["finding"] == "Rollout scores best, on average over 2 scores"
    assert "Random know nothing" in figure.layout.meta["note"] or "random" in figure.layout.meta["note"].lower()
    assert np.allclose(figure.data[0].z, [[2 / 3, 6 / 7], [0, 0], [1, 1]], atol=1e-4)
    with pytest.raises(InputError, match="scores over the dim method"):
        plot.faithfulness(scores[["share"]])


def test_sweep_of_rows_and_of_an_array():
    rows = [{"label": "two", "group": g, "successes": s, "trials": 50} for g, s in (("plain", 20), ("balanced", 30))]
    numbers = plot.sweep_numbers(rows)
    assert np.isclose(numbers[1]["low"], plot.wilson(30, 50)[0])
    figure = plot.sweep(rows, quantity="all correct")
    assert figure.layout.meta["finding"].startswith(
        "two: all correct 60\u00a0% (46 to 72\u00a0%) balanced, 40\u00a0%".replace("46 to 72", "46\u00a0to\u00a072")
    )
    yes = xr.DataArray([[True, True, False, True], [False] * 4], dims=("objective", "seed"), coords={"objective": ["a", "b"]})
    assert [(row["value"], row["trials"], row["rate"]) for row in plot.sweep_numbers(yes, "objective")] == [
        (0.75, 4, True),
        (0.0, 4, True),
    ]
    index = xr.DataArray(
        [1.0, 0.0, np.nan, 1.0], dims="run", coords={"condition": ("run", ["plain", "plain", "plain", "balanced"])}
    )
    by_condition = [(row["label"], row["value"], row["trials"]) for row in plot.sweep_numbers(index, "condition")]
    assert by_condition == [("plain", 0.5, 2), ("balanced", 1.0, 1)]
    with pytest.raises(InputError, match="no finite value"):
        plot.sweep_numbers(index * np.nan, "condition")
    real = plot.sweep_numbers(yes.astype(float) * 3, "objective")
    assert real[0]["value"] == 2.25 and real[0]["low"] < 2.25 < real[0]["high"] and not real[0]["rate"]
    for bad in ([], [{"label": "x"}]):
        with pytest.raises(InputError):
            plot.sweep(bad)
    with pytest.raises(InputError, match="by must be"):
        plot.sweep(yes, "nothing")


def test_temporal_matrix_is_the_mean_of_the_weights(tree):
    weights = tree["temporal/4x4x4"]["weights"]
    matrix = plot.temporal_matrix_numbers(tree, layers="*/4x4x4")
    assert np.allclose(matrix, weights.mean([d for d in weights.dims if d not in ("frame", "key_frame")]), atol=1e-6)
    assert np.allclose(matrix.sum("key_frame"), 1)
    one = plot.temporal_matrix_numbers(tree, step=1, heads=1, layers="*/4x4x4")
    assert np.allclose(one, weights.sel(step=1).isel(head=1, layer=0).mean(("y", "x")), atol=1e-6)
    assert "even would be 25" in plot.temporal_matrix(tree).layout.meta["finding"]
    with pytest.raises(InputError, match=r"steps: expected one or more of \[0, 1\].*got 9"):
        plot.temporal_matrix(tree, step=9)


def test_temporal_matrix_reads_spacetime_and_joint_traces():
    for family in ("spacetime", "joint"):
        matrix = plot.temporal_matrix_numbers(fake_trace(family))
        assert matrix.shape == (4, 4)
        assert np.allclose(matrix, temporal_matrix(fake_trace(family)).mean("step"))
    with pytest.raises(AttributionError, match="temporal or spacetime or joint attention; this one holds cross"):
        plot.temporal_matrix(xr.DataTree.from_dict({"cross/4x4x4": fake_trace()["cross/4x4x4"].to_dataset()}))


def test_attention_maps_of_every_kind_are_slices_of_the_trace(tree):
    cross = plot.attention_numbers(tree, "cross/4x4x4", token="circle", head=1, step=0)
    weights = tree["cross/4x4x4"]["weights"].isel(layer=0)
    circle = [i for i, word in enumerate(tree.coords["word"].values) if word == "circle"]
    assert cross.dims == ("frame", "y", "x") and np.allclose(cross, weights.sel(step=0).isel(head=1, token=circle).sum("token"))
    module = str(tree["spatial/4x4x4"]["module"].values[0])
    spatial = plot.attention_numbers(tree, module, query=(1, 2, 3))
    assert spatial.dims == ("y", "x") and np.isclose(spatial.sum(), 1, atol=1e-5)
    temporal = plot.attention_numbers(tree, "temporal/4x4x4/0", query=(0, 1, 1))
    assert np.allclose(temporal, tree["temporal/4x4x4"]["weights"].isel(step=-1, layer=0, y=1, x=1, frame=0).mean("head"))
    for family, site in (("spacetime", "spacetime/4x4x4"), ("joint", "joint/4x4x4")):
        volume = plot.attention_numbers(fake_trace(family), site, query=(0, 0, 0))
        assert volume.dims == ("frame", "y", "x") and 0 < float(volume.sum()) <= 1 + 1e-5
    joint = plot.attention_numbers(fake_trace("joint"), "joint/4x4x4", token=2)
    assert joint.dims == ("frame", "y", "x")


def test_attention_figures_of_every_kind(tree):
    assert len(plot.attention(tree, "cross/4x4x4", token="circle").data) == 4
    assert (
        plot.attention(tree, "cross/4x4x4", token="circle")
        .layout.meta["finding"]
        .startswith("“\u2068circle\u2069” is read most in frame")
    )
    assert len(plot.attention(tree, "spatial/4x4x4").data) == 1
    assert plot.attention(tree, "temporal/4x4x4", head=0).data[0].type == "bar"


@pytest.mark.parametrize(
    ("site", "options", "message"),
    [
        ("nowhere", {}, "cross/4x4x4"),
        ("cross/4x4x4/7", {}, "layers 0 to 0"),
        ("cross/4x4x4", {"token": "zebra"}, "the words are: a, red, circle"),
        ("cross/4x4x4", {"token": 99}, "token must lie"),
        ("cross/4x4x4", {"step": 5}, "steps: expected.*got 5"),
        ("cross/4x4x4", {"head": 5}, "heads: expected.*got 5"),
        ("spatial/4x4x4", {"query": (9, 0, 0)}, "query must be"),
        ("spatial/4x4x4", {"token": 1}, "nothing there reads text"),
    ],
)
def test_attention_says_what_is_missing(tree, site, options, message):
    with pytest.raises(InputError, match=message):
        plot.attention(tree, site, **options)
