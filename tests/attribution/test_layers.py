"""Influence and dominance one layer at a time."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import vico_lens as vl
from vico_lens.attribution.base import methods
from vico_lens.errors import InputError
from vico_lens.testing.traces import fake_trace

NAMES = ["red circle", "blue square"]
ON_STAGES = [name for name, method in methods().items() if not method.needs_pipe]


@pytest.mark.parametrize(("method", "options"), [("cross_attention", {}), ("subgraph_flow", {"kind": "sum"})])
def test_the_mean_over_layers_is_the_whole(method, options):
    tree = fake_trace()
    whole = vl.attribute(tree, method, NAMES, **options)
    layers = vl.attribute(tree, method, NAMES, per_layer=True, **options)
    assert layers.dims == ("concept", "step", "layer", "frame", "y", "x")
    np.testing.assert_allclose(layers.mean("layer"), whole, rtol=1e-6)
    readers = [(int(order), str(module)) for node in tree.subtree if node.path.startswith("/cross/")
               for order, module in zip(node["order"].values, node["module"].values, strict=True)]  # fmt: skip
    assert list(zip(layers["layer"].values.tolist(), layers["module"].values.tolist(), strict=True)) == sorted(readers)


def test_a_layer_by_itself_is_the_same_as_selecting_it():
    tree = fake_trace("spacetime", grid=(2, 2, 2))
    layers = vl.attribute(tree, "rollout", NAMES, steps=0, per_layer=True)
    order = int(layers["layer"][0])
    following = int(layers["layer"][1])
    alone = vl.attribute(tree, "rollout", NAMES, steps=0, layers=list(range(order, following)))
    np.testing.assert_allclose(layers.isel(layer=0), alone, rtol=1e-6)


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
@pytest.mark.parametrize("method", ON_STAGES)
def test_every_method_on_stages_answers_by_layer(family, method):
    tree = fake_trace(family, grid=(2, 2, 2), steps=(0, 2), **({"coarse": (2, 1, 1)} if family == "unet" else {}))
    influence = vl.attribute(tree, method, NAMES, per_layer=True)
    assert influence.dims[:3] == ("concept", "step", "layer") and bool(np.isfinite(influence).all())
    if method == "max_flow":
        assert influence["saturated"].dims == influence.dims and float(abs(influence["gap"]).max()) <= 1e-9


def test_dominance_by_layer_is_worked_out_by_hand():
    values = np.zeros((2, 2, 3))
    values[0, :, 0], values[1, :, 0], values[:, :, 2] = 3, 1, 1  # 3:1 in the first layer, none in the second, even in the third
    influence = xr.DataArray(values, dims=("concept", "frame", "layer"), coords={"concept": NAMES, "layer": [1, 5, 9]})
    found = vl.dominance(influence)
    np.testing.assert_allclose(found["share_by_layer"].sel(layer=1), [0.75, 0.25])
    assert np.isnan(found["share_by_layer"].sel(layer=5)).all()
    assert found["evenness_by_layer"].sel(layer=9).item() == pytest.approx(1)
    assert found["dominant_by_layer"].sel(layer=1).item() == "red circle"
    assert found["share"].values.tolist() == pytest.approx([8 / 12, 4 / 12])


def test_a_method_of_the_whole_model_has_no_layers():
    with pytest.raises(InputError, match="per_layer: leave_one_out runs the whole model again and has no layers"):
        vl.attribute(fake_trace(), "leave_one_out", NAMES, pipe=object(), per_layer=True)
