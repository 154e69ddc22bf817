"""Stages read from a trace: selection, order, joint blocks, and errors that say what is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from attribution_trees import FAMILIES, build_tree

from vico_lens.attribution import stages_from_trace
from vico_lens.attribution.trace_stages import choose_grid
from vico_lens.errors import AttributionError, InputError
from vico_lens.store.selection import records


def test_stages_are_head_means_in_execution_order(unet_tree):
    stages = stages_from_trace(unet_tree, 3, grid=None)
    assert [stage.order for stage in stages] == list(range(7))
    assert [stage.kind for stage in stages] == ["spatial", "cross", "temporal", "temporal", "spatial", "cross", "temporal"]
    weights = unet_tree["temporal/3x2x2"]["weights"].sel(step=3).isel(layer=1).mean("head").values
    np.testing.assert_allclose(stages[3].weights, weights.reshape(4, 3, 3), atol=1e-15)
    chosen = stages_from_trace(unet_tree, 3, heads=[1], grid=None)[3]
    np.testing.assert_allclose(
        chosen.weights, unet_tree["temporal/3x2x2"]["weights"].sel(step=3, head=1).isel(layer=1).values.reshape(4, 3, 3)
    )


def test_default_grid_is_the_finest_that_reads_text(unet_tree):
    assert {stage.grid for stage in stages_from_trace(unet_tree, 0)} == {(3, 2, 2)}
    sites = records(unet_tree)
    assert choose_grid(sites, "coarsest") == (3, 1, 1)
    assert choose_grid(sites, "3x4x2") == choose_grid(sites, (3, 4, 2)) == (3, 4, 2)
    with pytest.raises(InputError, match="expected 'finest'"):
        choose_grid(sites, "8x8")


def test_joint_blocks_become_one_softmax():
    tree = build_tree(FAMILIES["joint"])
    (stage, _) = stages_from_trace(tree, 0)
    data = tree["joint/2x2x2"].to_dataset().isel(step=0, layer=0).mean("head")
    assert stage.weights.shape == (16, 16) and stage.tokens == 8
    torch.testing.assert_close(stage.weights.sum(1), torch.ones(16, dtype=torch.float64))
    assert stage.weights[3, 8 + 5].item() == pytest.approx(data["text_video"].values[3].reshape(-1)[5])
    assert stage.weights[8 + 6, 2].item() == pytest.approx(data["video_text"].values.reshape(8, 8)[6, 2])
    assert stage.weights[8 + 6, 8 + 1].item() == pytest.approx(data["video_video"].values.reshape(8, 8)[6, 1])


@pytest.mark.parametrize(
    ("layers", "orders"),
    [
        ("*down_blocks*", [0, 1, 2, 3]),
        ("*3x1x1", [4, 5, 6]),
        (["cross/*", 6], [1, 5, 6]),
        (2, [2]),
        ("unet.mid_block.motion_modules.0.attn1", [6]),
    ],
)
def test_layer_patterns(unet_tree, layers, orders):
    assert [site.order for site in records(unet_tree, layers=layers)] == orders


def test_errors_say_what_is_there(unet_tree):
    with pytest.raises(InputError, match=r"steps: expected one or more of \[0, 3\].*got 1"):
        stages_from_trace(unet_tree, 1)
    with pytest.raises(AttributionError, match="expected a trace with joint attention; this one holds cross, spatial, temporal"):
        stages_from_trace(unet_tree, 0, kinds=["joint"])
    with pytest.raises(InputError, match=r"selects none of the 7 usable sites.*5 unet\.mid_block\.attentions\.0\.attn2"):
        stages_from_trace(unet_tree, 0, layers="*up_blocks*")
    with pytest.raises(InputError, match=r"heads: expected one or more of \[0, 1\].*got 4"):
        stages_from_trace(unet_tree, 0, heads=4)
    with pytest.raises(InputError, match=r"expected a trace \(an xarray\.DataTree\); got DataArray"):
        stages_from_trace(unet_tree["cross/3x2x2"]["weights"], 0)
    with pytest.raises(InputError, match=r"branch: expected one or more of \['cond'\].*got 'uncond'"):
        stages_from_trace(unet_tree, 0, branch="uncond")


def test_sites_with_fewer_heads_than_their_group_are_not_filled(unet_tree):
    data = unet_tree["temporal/3x2x2"].to_dataset().assign_coords(heads=("layer", [2, 1]))
    data["weights"] = data["weights"].where((data["layer"] == 0) | (data["head"] == 0))
    unet_tree["temporal/3x2x2"] = xr.DataTree(data)
    stage = stages_from_trace(unet_tree, 0, grid=None)[3]
    np.testing.assert_allclose(stage.weights, data["weights"].isel(step=0, layer=1, head=0).values.reshape(4, 3, 3))
    with pytest.raises(InputError, match=r"heads: expected one or more of \[0\]"):
        stages_from_trace(unet_tree, 0, heads=1)


def test_not_a_number_names_the_site(unet_tree):
    unet_tree["temporal/3x2x2"]["weights"].values[1, 0, 0, 0, 0, 0] = np.nan
    for stage in stages_from_trace(unet_tree, 0):
        assert bool(stage.weights.isfinite().all())
    with pytest.raises(AttributionError, match=r"motion_modules\.0\.attn1 at step 3 holds NaN"):
        [stage.weights for stage in stages_from_trace(unet_tree, 3)]


def test_branch_and_prompt_are_chosen_never_guessed(unet_tree):
    factor = xr.DataArray([1.0, 2.0], dims="branch", coords={"branch": ["uncond", "cond"]})
    both = unet_tree.map_over_datasets(lambda data: data.assign(weights=data["weights"] * factor) if "weights" in data else data)
    both.dataset = both.to_dataset().assign_coords(branch=["uncond", "cond"])
    cond = stages_from_trace(both, 0, kinds=["cross"], layers="*down*")[0].weights
    uncond = stages_from_trace(both, 0, kinds=["cross"], layers="*down*", branch="uncond")[0].weights
    torch.testing.assert_close(cond, 2 * uncond)
    batch = unet_tree.map_over_datasets(lambda data: data.expand_dims(prompt=[0, 1]) if "weights" in data else data)
    with pytest.raises(InputError, match=r"prompt is needed.*one of \[0, 1\]"):
        stages_from_trace(batch, 0)
    assert len(stages_from_trace(batch, 0, prompt=1)) == 7
