"""Exact flow, rollout, widest path and the graph object, against networkx graphs drawn edge by edge from the definitions."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from attribution_trees import CONCEPTS, FAMILIES, build_tree

import vico_lens as vl
from vico_lens.attribution import influence_of_stages, stages_from_trace
from vico_lens.attribution.graph import AttentionGraph
from vico_lens.errors import InputError
from vico_lens.kernels.stages import Stage
from vico_lens.testing.traces import fake_trace

TOKENS = list(CONCEPTS.values())


def query_key(stage, query, key):
    """Weight with which video token `query` reads video token `key` in a self-attention stage."""
    positions = stage.grid[1] * stage.grid[2]
    (frame, place), (key_frame, key_place) = divmod(query, positions), divmod(key, positions)
    if stage.kind == "spatial":
        return float(stage.weights[frame, place, key_place]) if frame == key_frame else 0.0
    if stage.kind == "temporal":
        return float(stage.weights[place, frame, key_frame]) if place == key_place else 0.0
    return float(stage.weights[stage.tokens + query, stage.tokens + key])


def drawn_graph(stages, tokens, sinks, rho, residual):
    """The layered graph of design, one edge at a time: super-source, text, video levels, sink with capacity 1 a token."""
    graph = nx.DiGraph()
    read, kept = (1 - rho, rho) if residual == "share" else (1.0, 1.0)
    volume = int(np.prod(stages[0].grid))
    joint = any(stage.kind == "joint" for stage in stages)
    for token in tokens:
        graph.add_edge("source", ("text", 0, token))
    for level, stage in enumerate(stages):
        for v in range(volume):
            if stage.kind == "cross":
                graph.add_edge(("video", level, v), ("video", level + 1, v), capacity=kept)
                weights = stage.weights.reshape(volume, -1)
                for token in tokens:
                    graph.add_edge(("text", 0, token), ("video", level + 1, v), capacity=read * float(weights[v, token]))
            else:
                for key in range(volume):
                    capacity = read * query_key(stage, v, key) + (kept if v == key else 0)
                    graph.add_edge(("video", level, key), ("video", level + 1, v), capacity=capacity)
        if joint:
            count = stage.tokens
            for query in range(count + volume):
                for key in range(count + volume):
                    if query >= count and key >= count:
                        continue
                    name = [
                        ("text", at, i) if i < count else ("video", at, i - count) for at, i in ((level, key), (level + 1, query))
                    ]
                    graph.add_edge(*name, capacity=read * float(stage.weights[query, key]) + (kept if query == key else 0))
    for v in sinks:
        graph.add_edge(("video", len(stages), v), "sink", capacity=1.0)
    return graph


@pytest.fixture(
    params=[(family, rho, residual) for family in FAMILIES for rho, residual in ((0.5, "share"), (0.8, "share"), (0.5, "add"))]
)
def problem(request):
    family, rho, residual = request.param
    return stages_from_trace(build_tree(FAMILIES[family], seed=3), 3), rho, residual


def test_max_flow_equals_networkx(problem):
    stages, rho, residual = problem
    volume = int(np.prod(stages[0].grid))
    frame = volume // stages[0].grid[0]
    wanted = {"video": [range(volume)], "frame": [range(f * frame, (f + 1) * frame) for f in range(stages[0].grid[0])]}
    for sink, groups in wanted.items():
        got = influence_of_stages(stages, TOKENS, "max_flow", rho=rho, residual=residual, sink=sink).reshape(len(TOKENS), -1)
        for row, tokens in enumerate(TOKENS):
            expected = [
                nx.maximum_flow_value(drawn_graph(stages, tokens, group, rho, residual), "source", "sink") for group in groups
            ]
            np.testing.assert_allclose(got[row], expected, rtol=1e-9)
    got = influence_of_stages(stages, TOKENS, "max_flow", rho=rho, residual=residual, sink="token").reshape(len(TOKENS), -1)
    for v in (0, volume - 1):
        expected = [nx.maximum_flow_value(drawn_graph(stages, tokens, [v], rho, residual), "source", "sink") for tokens in TOKENS]
        np.testing.assert_allclose(got[:, v], expected, rtol=1e-9)


def widest(graph, target):
    """Largest capacity such that a path of edges at least that wide exists."""
    for level in sorted({data.get("capacity", np.inf) for *_, data in graph.edges(data=True)}, reverse=True):
        wide = nx.DiGraph((u, v) for u, v, data in graph.edges(data=True) if data.get("capacity", np.inf) >= level)
        if "source" in wide and target in wide and nx.has_path(wide, "source", target):
            return level
    return 0.0


def test_widest_path_equals_networkx(problem):
    stages, rho, residual = problem
    got = influence_of_stages(stages, TOKENS, "widest_path", rho=rho, residual=residual).reshape(len(TOKENS), -1)
    for row, tokens in enumerate(TOKENS):
        graph = drawn_graph(stages, tokens, [], rho, residual)
        for v in (0, got.shape[1] - 1):
            assert got[row, v].item() == pytest.approx(widest(graph, ("video", len(stages), v)), rel=1e-12)


def test_rollout_is_the_product_of_whole_matrices(problem):
    stages, rho, residual = problem
    count = next(stage.tokens for stage in stages if stage.tokens)
    volume = int(np.prod(stages[0].grid))
    read, kept = (1 - rho, rho) if residual == "share" else (1.0, 1.0)
    state = np.concatenate([np.eye(count), np.zeros((volume, count))])
    for stage in stages:
        whole = np.zeros((count + volume, count + volume))
        if stage.kind == "joint":
            whole = read * np.asarray(stage.weights) + kept * np.eye(count + volume)
        else:
            whole[:count, :count] = np.eye(count)
            whole[count:, count:] = kept * np.eye(volume)
            if stage.kind == "cross":
                whole[count:, :count] = read * np.asarray(stage.weights).reshape(volume, count)
            else:
                whole[count:, count:] += read * np.array([[query_key(stage, q, k) for k in range(volume)] for q in range(volume)])
        state = whole @ state
    got = influence_of_stages(stages, TOKENS, "rollout", rho=rho, residual=residual).reshape(len(TOKENS), volume)
    expected = np.stack([state[count:, list(tokens)].sum(1) for tokens in TOKENS])
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_certificate_travels_with_the_result(family_tree):
    exact = vl.attribute(family_tree, "max_flow", sink="frame")
    assert exact.dims == ("concept", "step", "frame")
    assert np.abs(exact["gap"]).max() <= 1e-9 and exact.attrs["largest_gap"] <= 1e-9
    np.testing.assert_allclose(exact["cut"], exact.values, rtol=1e-9)
    assert set(np.unique(exact["saturated"])) <= {"no", "source", "sink"}
    source = vl.attribute(family_tree, "max_flow", sink="video")
    assert source.dims == ("concept", "step")
    at_source = source["saturated"] == "source"
    assert set(np.unique(source["cut_kind"].where(at_source, drop=True))) <= {"source", "joint"}
    one = vl.attribute(family_tree, "max_flow", sink="token", steps=3)
    assert one.dims == ("concept", "frame", "y", "x") and one["saturated"].dims == one.dims


def test_bracket_and_bounds_hold_the_flow_between_them(family_tree):
    for sink in ("video", "frame", "token"):
        exact = vl.attribute(family_tree, "max_flow", sink=sink)
        both = vl.attribute(family_tree, "max_flow", sink=sink, bracket=True)
        assert (both <= exact + 1e-9).all() and (exact <= both["upper"] + 1e-9).all()
        assert (both["gap"] >= -1e-12).all()
    widest_path = vl.attribute(family_tree, "widest_path")
    assert (widest_path <= vl.attribute(family_tree, "max_flow", sink="token") + 1e-9).all()


def test_subgraph_scope_is_the_exact_kind_of_subgraph_flow(family_tree):
    exact = vl.attribute(family_tree, "subgraph_flow", kind="exact")
    scoped = vl.attribute(family_tree, "max_flow", scope="subgraph", sink="token")
    np.testing.assert_allclose(scoped.values, exact.values, rtol=1e-9)
    assert set(np.unique(scoped["saturated"])) <= {"no", "source", "sink", "mixed"}


def test_masks_as_sinks(unet_tree):
    frames = vl.attribute(unet_tree, "max_flow", sink="frame")
    mask = np.zeros((3, 2, 2), bool)
    mask[1] = True
    np.testing.assert_allclose(vl.attribute(unet_tree, "max_flow", sink=mask).values, frames.isel(frame=1).values, rtol=1e-12)
    several = vl.attribute(unet_tree, "max_flow", sink=np.stack([mask, ~mask]))
    assert several.dims == ("concept", "step", "sink") and several.sizes["sink"] == 2
    with pytest.raises(InputError, match=r"expected a mask of shape \(3, 2, 2\).*got \(3, 4, 4\)"):
        vl.attribute(unet_tree, "max_flow", sink=np.ones((3, 4, 4), bool))
    with pytest.raises(InputError, match="at least one video token in every mask"):
        vl.attribute(unet_tree, "max_flow", sink=np.zeros((3, 2, 2), bool))
    with pytest.raises(InputError, match="capacities in 0"):
        vl.attribute(unet_tree, "max_flow", sink=np.full((3, 2, 2), np.nan))
    with pytest.raises(InputError, match="expected 'video', 'frame', 'token' or a mask"):
        vl.attribute(unet_tree, "max_flow", sink="whole")
    seen = []
    vl.attribute(unet_tree, "max_flow", sink="frame", steps=0, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    with pytest.raises(InputError, match="scope: expected"):
        vl.attribute(unet_tree, "max_flow", scope="part")


def test_graph_object_agrees_with_the_drawn_graph(problem):
    stages, rho, residual = problem
    graph = AttentionGraph.from_stages(stages, rho=rho, residual=residual)
    written = graph.to_networkx(CONCEPTS, sink="frame")
    values = graph.max_flow(CONCEPTS, sink="frame")
    for name, tokens in CONCEPTS.items():
        for frame in range(graph.grid[0]):
            flow = nx.maximum_flow_value(written, ("source", name), ("sink", frame))
            assert flow == pytest.approx(values["value"].sel(concept=name).values[frame], rel=1e-9)
        drawn = drawn_graph(stages, tokens, range(4), rho, residual)
        drawn.remove_nodes_from(set(drawn) - nx.descendants(drawn, "source"))
        nodes = nx.descendants(written, ("source", name))
        shared = [
            edge for edge in drawn.edges if "source" not in edge and "sink" not in edge and drawn.edges[edge]["capacity"] > 0
        ]
        assert all(written.edges[edge]["capacity"] == pytest.approx(drawn.edges[edge]["capacity"]) for edge in shared)
        assert {node for node in drawn if node not in ("source", "sink")} == {
            node for node in nodes if node[0] in ("text", "video")
        }
    np.testing.assert_allclose(values["cut_by_place"].sum("place"), values["cut"], rtol=1e-9)


def test_summary_subgraph_and_labels(unet_tree):
    graph = AttentionGraph.from_trace(unet_tree, step=3)
    summary = graph.summary()
    assert summary["kind"].values.tolist() == ["spatial", "cross", "temporal", "temporal", "spatial", "cross", "temporal"]
    assert summary["edges"].values.tolist() == [48, 12, 36, 36, 48, 12, 36]
    assert summary.attrs["nodes"] == 8 * 12 + 8 and summary.attrs["edges"] == 228 + 2 * 12 * 8
    assert summary["injected"].sel(stage=1).item() == pytest.approx(0.5 * 12)
    part = graph.subgraph("*down*", grid=(3, 1, 1))
    assert [stage.order for stage in part.stages] == [0, 1, 2, 3] and part.grid == (3, 1, 1)
    drawn = part.to_networkx(["red circle"], sink="video")
    assert drawn.nodes[("text", 0, 1)]["label"] == "red" and drawn.nodes[("text", 0, 1)]["concept"] == "red circle"
    assert drawn.nodes[("video", 2, 1)] == {"kind": "video", "layer": 2, "frame": 1, "y": 0, "x": 0, "label": "frame 1 (0, 0)"}
    with pytest.raises(InputError, match=r"edges, more than most_edges=10\. Use subgraph"):
        graph.to_networkx(most_edges=10)
    with pytest.raises(InputError, match="selects none of the stages: 0 unet"):
        graph.subgraph("*nowhere*")
    with pytest.raises(InputError, match="knows no prompt"):
        AttentionGraph.from_stages(graph.stages).max_flow(["red circle"])
    with pytest.raises(InputError, match="one for each of the 8 text tokens; got 2"):
        AttentionGraph.from_stages(graph.stages, ["a", "b"])


@pytest.mark.parametrize("method", ["cross_attention", "rollout", "widest_path", "subgraph_flow", "max_flow"])
def test_gradients_agree_with_finite_differences(method):
    stages = stages_from_trace(build_tree(FAMILIES["full"], seed=5), 0)
    leaves = [stage.weights.clone().requires_grad_() for stage in stages]

    def influence(*weights):
        live = [
            Stage(stage.kind, stage.module, stage.order, stage.grid, part) for stage, part in zip(stages, weights, strict=True)
        ]
        options = {"sink": "frame"} if method == "max_flow" else {"kind": "sum"} if method == "subgraph_flow" else {}
        return influence_of_stages(live, TOKENS, method, **options)

    assert torch.autograd.gradcheck(influence, leaves, fast_mode=True, eps=1e-7, atol=1e-5)


def test_a_graph_of_one_prompt_of_a_batch_looks_concepts_up_in_that_prompt():
    prompts = ["a red circle and a blue square", "a small green bicycle moving up and a yellow triangle"]
    tree = fake_trace(prompt=prompts, grid=(2, 2, 2), coarse=None)
    graph = vl.AttentionGraph.from_trace(tree, step=0, prompt=1)
    flow = graph.max_flow(["yellow triangle"], sink="frame")["value"]
    expected = vl.attribute(tree, "max_flow", ["yellow triangle"], steps=0, prompt=1, sink="frame")
    np.testing.assert_allclose(flow.values, expected.values, rtol=1e-9)
    assert ("source", "yellow triangle") in graph.to_networkx(["yellow triangle"])
