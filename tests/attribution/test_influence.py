"""Attribution by cross-attention and subgraph flow, against definitions written out on the trace's own axes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from attribution_trees import CONCEPTS, FAMILIES, build_tree

import vico_lens as vl
from vico_lens.attribution import influence_of_stages, register_method, stages_from_trace
from vico_lens.attribution.base import METHODS, methods
from vico_lens.attribution.methods.subgraph_flow import groups_of
from vico_lens.errors import AttributionError, ConceptError, InputError
from vico_lens.kernels.stages import Stage


def test_cross_attention_is_the_mean_over_layers_of_the_sum_over_tokens(unet_tree):
    influence = vl.attribute(unet_tree, "cross_attention")
    fine = unet_tree["cross/3x2x2"]["weights"].isel(layer=0).mean("head")
    coarse = unet_tree["cross/3x1x1"]["weights"].isel(layer=0).mean("head")
    for name, tokens in CONCEPTS.items():
        tokens = list(tokens)
        expected = (fine.isel(token=tokens).sum("token").values + coarse.isel(token=tokens).sum("token").values) / 2
        np.testing.assert_allclose(influence.sel(concept=name).values, expected, atol=1e-12)


def test_result_carries_its_record(unet_tree):
    influence = vl.attribute(unet_tree, "subgraph_flow", ["blue square"], kind="sum", rho=0.3, layers="*down*")
    assert influence.dims == ("concept", "step", "frame", "y", "x") and influence.shape == (1, 2, 3, 2, 2)
    assert influence["step"].values.tolist() == [0, 3] and influence["timestep"].values.tolist() == [999.0, 699.0]
    assert influence.attrs["method"] == "subgraph_flow" and "2407.06182" in influence.attrs["references"]
    assert json.loads(influence.attrs["settings"]) == {"kind": "sum", "layers": "*down*", "residual": "share", "rho": 0.3}
    assert json.loads(influence.attrs["tokens"]) == {"blue square": [4, 5]}
    assert vl.attribute(unet_tree, "cross_attention", steps=3).dims == ("concept", "frame", "y", "x")
    assert vl.attribute(unet_tree, "cross_attention", steps=slice(1, None))["step"].values.tolist() == [3]


def test_every_family_has_an_answer(family_tree):
    for name in ("cross_attention", "subgraph_flow"):
        influence = vl.attribute(family_tree, name)
        assert influence.dims == ("concept", "step", "frame", "y", "x")
        assert (influence > 0).all() and (influence <= 1).all()


def test_groups_follow_execution_order_and_block():
    stages = stages_from_trace(build_tree(FAMILIES["unet"]), 0)
    assert [(cross.order, [after.order for after in follow]) for cross, follow in groups_of(stages)] == [(1, [2, 3]), (5, [6])]
    moved = [stage for stage in stages if stage.order not in (5, 6)]
    moved.append(Stage("temporal", "unet.up_blocks.0.motion_modules.0.attn1", 9, (3, 2, 2), stages[2].weights))
    assert [[after.order for after in follow] for _, follow in groups_of(moved)] == [[2, 3]]
    full = stages_from_trace(build_tree(FAMILIES["full"]), 0)
    assert [(cross.order, [after.order for after in follow]) for cross, follow in groups_of(full)] == [(1, [2]), (3, [])]
    joint = stages_from_trace(build_tree(FAMILIES["joint"]), 0)
    assert [(cross.order, [after.order for after in follow]) for cross, follow in groups_of(joint)] == [(0, [1]), (1, [])]


def two_hops(after, before, kind):
    """Paths ``[position, target, middle]`` by ``[position, middle, source]``, by loops."""
    result = np.zeros((len(after), after.shape[1], before.shape[2]))
    for p, target, source in np.ndindex(*result.shape):
        paths = [min(after[p, target, middle], before[p, middle, source]) for middle in range(after.shape[2])]
        result[p, target, source] = max(paths) if kind == "hard" else sum(paths)
    return result


def hand_flow(stages, tokens, kind, rho):
    """Path flow to each video token, averaged over groups; (+, min) needs an order: time first, then the text."""
    maps = []
    for cross, follow in groups_of(stages):
        injected = (1 - rho) * np.asarray(cross.weights)[..., list(tokens)]
        source = (injected.max(-1) if kind == "hard" else injected.sum(-1)).T[..., None]
        hops = [(1 - rho) * np.asarray(stage.weights) + rho * np.eye(len(injected)) for stage in follow]
        through = hops[0]
        for hop in hops[1:]:
            through = two_hops(hop, through, kind)
        maps.append(two_hops(through, source, kind)[..., 0].T)
    return np.mean(maps, 0)


@pytest.mark.parametrize("kind", ["hard", "sum"])
@pytest.mark.parametrize("rho", [0.5, 0.2])
def test_subgraph_flow_by_hand(unet_tree, kind, rho):
    influence = vl.attribute(unet_tree, "subgraph_flow", CONCEPTS, kind=kind, rho=rho, steps=0)
    stages = stages_from_trace(unet_tree, 0)
    for name, tokens in CONCEPTS.items():
        np.testing.assert_allclose(
            influence.sel(concept=name).values.reshape(3, 4), hand_flow(stages, tokens, kind, rho), atol=1e-12
        )


def test_bounds_hold_in_order(unet_tree):
    hard, exact, bound = (vl.attribute(unet_tree, "subgraph_flow", kind=kind).values for kind in ("hard", "exact", "sum"))
    assert (hard <= exact + 1e-12).all() and (exact <= bound + 1e-12).all() and (hard < exact - 1e-6).any()


CHAIN_T1 = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]
CHAIN_T2 = [[0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0.25, 0.25, 0.5]]
CHAIN_C = [[0.90, 0.06, 0.04], [0.80, 0.15, 0.05], [0.70, 0.10, 0.20]]


def chain_stages():
    grid = (3, 1, 1)
    double = {"dtype": torch.float64}
    return [
        Stage("cross", "b.attn2", 0, grid, torch.tensor(CHAIN_C, **double)[:, None]),
        Stage("temporal", "b.t.attn1", 1, grid, torch.tensor(CHAIN_T1, **double)[None]),
        Stage("temporal", "b.t.attn2", 2, grid, torch.tensor(CHAIN_T2, **double)[None]),
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kind": "hard", "parity": True}, [[0.7, 0.15, 0.15], [0.7, 0.15, 0.15], [0.7, 0.125, 0.2]]),
        (
            {"kind": "soft", "parity": True},
            [[0.69999951, 0.15000169, 0.14993437], [0.69993240, 0.15006815, 0.15679815], [0.69993287, 0.13091193, 0.19999999]],
        ),
        (
            {"kind": "rollout", "parity": True},
            [[0.8435, 0.08985, 0.06665], [0.7957499, 0.120225, 0.084025], [0.74875, 0.103375, 0.147875]],
        ),
        ({"kind": "hard", "residual": "add"}, [[0.9, 0.15, 0.2], [0.8, 0.15, 0.2], [0.7, 0.15, 0.2]]),
    ],
)
def test_published_numbers_of_the_chain(options, expected):
    influence = influence_of_stages(chain_stages(), [(0,), (1,), (2,)], "subgraph_flow", **options)
    np.testing.assert_allclose(influence.reshape(3, 3).T, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "corner", "total"),
    [
        ("hard", [0.18882076, 0.17826815, 0.1423152, 0.13325867, 0.1390286, 0.1291255, 0.12011437, 0.15252081], 50.16362541),
        ("soft", [0.18915126, 0.1783697, 0.14462905, 0.13576604, 0.14138842, 0.13052721, 0.12831698, 0.15432612], 50.63806164),
        ("rollout", [0.2227902, 0.14804167, 0.10428, 0.09024296, 0.09518666, 0.09523319, 0.09819553, 0.14602979], 36.0),
    ],
)
def test_published_map_of_a_whole_group(kind, corner, total):
    frames, heads, cells, tokens = 4, 2, 9, 8
    wave = torch.arange(frames * heads * cells * tokens, dtype=torch.float64)
    cross = (3 * torch.sin(0.37 * wave)).reshape(frames, heads, cells, tokens).softmax(-1).mean(1)
    wave = torch.arange(cells * heads * frames * frames, dtype=torch.float64)
    first = (2 * torch.sin(0.53 * wave)).reshape(cells, heads, frames, frames).softmax(-1).mean(1)
    second = (2 * torch.cos(0.29 * wave)).reshape(cells, heads, frames, frames).softmax(-1).mean(1)
    grid = (frames, 3, 3)
    stages = [
        Stage("cross", "down", 0, grid, cross),
        Stage("temporal", "down", 1, grid, first),
        Stage("temporal", "down", 2, grid, second),
    ]
    influence = influence_of_stages(stages, [(token,) for token in range(tokens)], "subgraph_flow", kind=kind, parity=True)
    np.testing.assert_allclose(influence[:, 0, 0, 0], corner, atol=1e-6)
    assert influence.sum().item() == pytest.approx(total, abs=1e-6)


def test_errors_name_what_was_expected(unet_tree):
    with pytest.raises(InputError, match=r"unknown attribution method 'rolout'.*did you mean 'rollout'"):
        vl.attribute(unet_tree, "rolout")
    with pytest.raises(ConceptError, match="'green cone' is not in the prompt"):
        vl.attribute(unet_tree, "cross_attention", ["green cone"])
    with pytest.raises(ConceptError, match="at least one concept"):
        vl.attribute(unet_tree, "cross_attention", [])
    with pytest.raises(InputError, match=r"expected one or more token indices in 0\.\.7; got \[9\]"):
        vl.attribute(unet_tree, "cross_attention", {"x": [9]})
    with pytest.raises(InputError, match=r"steps: expected one or more of \[0, 3\].*got \[0, 1\]"):
        vl.attribute(unet_tree, "cross_attention", steps=[0, 1])
    with pytest.raises(InputError, match=r"steps: expected one or more.*got \[\]"):
        vl.attribute(unet_tree, "cross_attention", steps=[])
    with pytest.raises(InputError, match="subgraph_flow has no option temperature; its own options: kind='hard'"):
        vl.attribute(unet_tree, "subgraph_flow", temperature=1.0)
    with pytest.raises(InputError, match=r"rho: expected a residual share of at least 0 and below 1; got 1\.5"):
        vl.attribute(unet_tree, "cross_attention", rho=1.5)
    with pytest.raises(InputError, match="leaves no cross or joint attention"):
        vl.attribute(unet_tree, "subgraph_flow", layers="temporal/*")
    only_video = build_tree({("spatial", (2, 2, 2)): [("unet.attn1", 0)]})
    with pytest.raises(AttributionError, match="expected a trace with cross or joint attention; this one holds spatial"):
        vl.attribute(only_video, "cross_attention")
    with pytest.raises(AttributionError, match="parity mode expected temporal attention"):
        vl.attribute(build_tree({("cross", (2, 2, 2)): [("unet.attn2", 0)]}), "subgraph_flow", parity=True)


def test_a_new_method_takes_a_few_lines(unet_tree):
    @register_method("first_frame", cost="nothing", reads=("cross",))
    def first_frame(problem):
        """Everything belongs to the first frame."""
        maps = torch.zeros(len(problem.tokens), *problem.grid)
        maps[:, 0] = 1
        return maps

    try:
        assert "first_frame" in vl.methods() and vl.methods()["first_frame"].summary == "Everything belongs to the first frame."
        assert float(vl.attribute(unet_tree, "first_frame").sum()) == 2 * 2 * 4
        with pytest.raises(InputError, match="registered already"):
            register_method("first_frame")(first_frame.function)
    finally:
        METHODS.remove("first_frame")


def test_a_method_that_returns_the_wrong_thing_is_told(unet_tree):
    for name, result in [("flat", torch.ones(2)), ("nan", torch.full((2, 3, 2, 2), float("nan")))]:
        register_method(name)(lambda problem, result=result: result)
        try:
            with pytest.raises(AttributionError, match=f"{name} (returned shape|gave values that are not finite at step 0)"):
                vl.attribute(unet_tree, name)
        finally:
            METHODS.remove(name)


def test_declared_capabilities_are_complete():
    for name, method in methods().items():
        assert method.name == name and method.cost and method.references and method.summary, name
