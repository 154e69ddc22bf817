from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_graphs import random_case, random_stage

from vico_lens.errors import InputError
from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.maxflow_reference import to_edges
from vico_lens.kernels.stages import Stage

GENERATOR = torch.Generator().manual_seed(0)
CROSS = random_stage("cross", (2, 2, 3), 4, 0, GENERATOR)
SELF = [random_stage(kind, (2, 2, 3), 4, order, GENERATOR) for order, kind in enumerate(("spatial", "temporal", "spacetime"), 1)]
JOINT = random_stage("joint", (2, 2, 3), 4, 4, GENERATOR)


@given(st.integers(0, 1 << 32), st.floats(0, 0.95))
def test_every_node_takes_in_exactly_one(seed: int, rho: float) -> None:
    # design.md section 5, with every text token a source.
    stages = [stage for stage in random_case(seed).stages]
    graph = LayeredGraph.from_stages(stages, rho=rho)
    for link in graph.links:
        intake = link.join([block.capacity.sum(-2) for block in link.blocks])
        if link.injection is not None:
            intake = intake + link.injection.sum(0)
        torch.testing.assert_close(intake, torch.ones_like(intake))


def test_added_residual_is_the_graph_of_the_paper() -> None:
    graph = LayeredGraph.from_stages([CROSS, SELF[1]], residual="add")
    assert torch.equal(graph.links[0].blocks[0].capacity, torch.ones(12, 1, 1, dtype=torch.float64))
    assert torch.equal(graph.links[0].injection, CROSS.weights.reshape(12, 4).T)
    expected = (SELF[1].weights + torch.eye(2, dtype=torch.float64)).mT
    assert torch.equal(graph.links[1].blocks[0].capacity, expected)


def test_edges_join_the_right_nodes() -> None:
    # Node of frame f at position p is f * 6 + p; weights are [query, key], edges go from key to query.
    graph = LayeredGraph.from_stages([CROSS, *SELF], rho=0.0)
    edges = to_edges(graph, [1], graph.sink("video")[0])
    spatial, temporal, full = (stage.weights for stage in SELF)
    assert edges["source"][(1, 7)]["capacity"] == CROSS.weights[1, 1, 1].item()
    assert edges[(1, 6 + 2)][(2, 6 + 5)]["capacity"] == spatial[1, 5, 2].item()
    assert not edges.has_edge((1, 2), (2, 6 + 5))
    assert edges[(2, 3)][(3, 6 + 3)]["capacity"] == temporal[3, 1, 0].item()
    assert not edges.has_edge((2, 3), (3, 4))
    assert edges[(3, 2)][(4, 9)]["capacity"] == full[9, 2].item()
    assert edges[(4, 0)]["sink"]["capacity"] == 1.0
    assert graph.edges == sum(stage.weights.numel() for stage in (CROSS, *SELF)) + 12


def test_text_nodes_live_through_joint_sites() -> None:
    graph = LayeredGraph.from_stages([JOINT, SELF[0]], rho=0.25)
    assert (graph.text, graph.widths) == (4, (16, 16, 16))
    edges = to_edges(graph, [2], graph.sink("frame")[1])
    assert "capacity" not in edges["source"][(0, 2)]
    assert edges[(0, 2)][(1, 4)]["capacity"] == pytest.approx(0.75 * JOINT.weights[4, 2].item())
    assert edges[(0, 2)][(1, 2)]["capacity"] == pytest.approx(0.75 * JOINT.weights[2, 2].item() + 0.25)
    assert edges[(1, 2)][(2, 2)]["capacity"] == 1.0
    assert sorted(node for node, _ in edges.in_edges("sink")) == [(2, 10 + n) for n in range(6)]


def test_supply_joins_the_tokens_of_a_source() -> None:
    graph = LayeredGraph.from_stages([SELF[0], CROSS], rho=0.5)
    supply = graph.supply([[0, 3], [1]])
    assert [level.shape for level in supply] == [(2, 12)] * 3
    assert not supply[0].any()
    torch.testing.assert_close(supply[2][0], 0.5 * CROSS.weights.reshape(12, 4)[:, [0, 3]].sum(1))
    assert len(graph.supply()[0]) == 4


def test_sinks_by_name_and_by_mask() -> None:
    graph = LayeredGraph.from_stages([CROSS])
    assert graph.sink("video").shape == (1, 12)
    assert torch.equal(graph.sink("frame").sum(1), torch.full((2,), 6.0, dtype=torch.float64))
    assert torch.equal(graph.sink("token"), torch.eye(12, dtype=torch.float64))
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    mask[1, 0, 2] = True
    assert graph.sink(mask).nonzero().tolist() == [[0, 8]]
    assert graph.sink(torch.stack([mask, ~mask])).shape == (2, 12)


def test_bad_graphs_are_named() -> None:
    other = random_stage("temporal", (2, 2, 2), 4, 1, GENERATOR)
    cases = [
        ([], "at least one stage"),
        ([CROSS, other], r"one grid; got \[\(2, 2, 2\), \(2, 2, 3\)\]"),
        (SELF, "cross or joint stages .* got none"),
        ([CROSS, random_stage("cross", (2, 2, 3), 5, 1, GENERATOR)], r"\[4, 5\] text tokens"),
        ([Stage("cross", "attn2", 0, (2, 2, 3), CROSS.weights.mT)], "attn2: expected cross weights"),
        ([Stage("cross", "attn2", 0, (2, 2, 3), -CROSS.weights)], "attn2: expected finite weights"),
        ([Stage("cross", "attn2", 0, (2, 2, 3), CROSS.weights * torch.nan)], "attn2: expected finite weights"),
    ]
    for stages, message in cases:
        with pytest.raises(InputError, match=message):
            LayeredGraph.from_stages(stages)
    with pytest.raises(InputError, match="'share' or 'add'"):
        LayeredGraph.from_stages([CROSS], residual="parity")
    for rho in (-0.1, 1.0):  # at 1 no text gets in at all
        with pytest.raises(InputError, match="rho: expected"):
            LayeredGraph.from_stages([CROSS], rho=rho)


def test_bad_sources_and_sinks_are_named() -> None:
    graph = LayeredGraph.from_stages([CROSS])
    for sources in ([[4]], [[]], [[1, 1]]):
        with pytest.raises(InputError, match=r"distinct tokens in 0\.\.3"):
            graph.supply(sources)
    with pytest.raises(InputError, match="at least one; got none"):
        graph.supply([])
    with pytest.raises(InputError, match="'video', 'frame', 'token' or a mask"):
        graph.sink("pixel")
    with pytest.raises(InputError, match=r"mask of shape \(2, 2, 3\) or \(12,\)"):
        graph.sink(torch.ones(2, 3))
    for mask in (torch.zeros(12), -torch.ones(12), torch.full((12,), torch.inf)):
        with pytest.raises(InputError, match="no empty sink"):
            graph.sink(mask)
