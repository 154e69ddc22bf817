from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_graphs import random_case, random_stage

from vico_lens.errors import InputError
from vico_lens.kernels.bounds import bracket, sum_min_bound, widest_path
from vico_lens.kernels.greedy import greedy_flow
from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.maxflow import max_flow
from vico_lens.kernels.maxflow_reference import to_edges
from vico_lens.kernels.rollout import rollout
from vico_lens.kernels.stages import Stage


def _widest_by_networkx(graph: LayeredGraph, source: list[int]) -> torch.Tensor:
    """Smallest edge on the way to each video token in a maximum spanning tree of reachability: Dijkstra with min instead of +."""
    edges = to_edges(graph, source, graph.sink("video")[0])
    best = {"source": float("inf")}
    # A layered graph is acyclic, so one pass in topological order settles every node.
    for node in nx.topological_sort(edges):
        for _, after, data in edges.out_edges(node, data=True):
            width = min(best.get(node, 0.0), data.get("capacity", float("inf")))
            best[after] = max(best.get(after, 0.0), width)
    last = len(graph.links)
    return torch.tensor([best.get((last, graph.text + n), 0.0) for n in range(graph.video)], dtype=torch.float64)


def _dense(graph: LayeredGraph) -> list[torch.Tensor]:
    """Each link as one dense matrix [above, below]."""
    matrices = []
    for link in graph.links:
        eye = torch.eye(link.width, dtype=torch.float64)
        rows = [torch.matmul(b.gather_sources(eye)[:, :, None, :], b.capacity)[:, :, 0] for b in link.blocks]
        matrices.append(link.join(rows))
    return matrices


@given(st.integers(0, 1 << 32))
def test_widest_path_equals_networkx(seed: int) -> None:
    case = random_case(seed)
    widest = widest_path(case.graph, case.sources)
    for row, source in zip(widest, case.sources, strict=True):
        if len(source) == 1:  # joined tokens add up where they inject side by side, in both; covered by the flow's own tests
            torch.testing.assert_close(row, _widest_by_networkx(case.graph, source), rtol=0, atol=0)


@given(st.integers(0, 1 << 32))
def test_rollout_equals_a_product_of_matrices(seed: int) -> None:
    case = random_case(seed)
    graph = case.graph
    mass = graph.supply(case.sources, at_text=1.0)
    total = mass[0]
    for matrix, injected in zip(_dense(graph), mass[1:], strict=True):
        total = total @ matrix + injected
    torch.testing.assert_close(rollout(graph, case.sources), total[:, graph.text :])


def test_rollout_of_all_tokens_is_what_is_not_residual() -> None:
    generator = torch.Generator().manual_seed(0)
    stages = [random_stage(kind, (2, 2, 2), 3, i, generator) for i, kind in enumerate(("cross", "temporal", "cross", "spatial"))]
    total = rollout(LayeredGraph.from_stages(stages, rho=0.3)).sum(0)
    # Each cross site keeps 0.3 of what came before it, and the video's own start is no token's.
    torch.testing.assert_close(total, torch.full((8,), 1 - 0.3**2, dtype=torch.float64))


@given(st.integers(0, 1 << 32))
def test_bracket_holds_the_exact_flow(seed: int) -> None:
    case = random_case(seed)
    exact = max_flow(case.graph, case.sources, case.sinks).value
    lower, upper = bracket(case.graph, case.sources, case.sinks)
    assert bool((lower <= exact * (1 + 1e-12) + 1e-15).all())
    assert bool((upper >= exact * (1 - 1e-12) - 1e-15).all())
    once = greedy_flow(case.graph, case.sources, case.sinks, rounds=1)
    more = greedy_flow(case.graph, case.sources, case.sinks, rounds=4)
    assert bool((once <= lower + 1e-12).all())
    assert bool((lower <= more + 1e-12).all())


@given(st.integers(0, 1 << 32))
def test_a_path_carries_no_more_than_the_flow(seed: int) -> None:
    case = random_case(seed)
    exact = max_flow(case.graph, case.sources, "token").value
    assert bool((widest_path(case.graph, case.sources).clamp(max=1) <= exact + 1e-12).all())


@pytest.mark.parametrize("bound", [widest_path, rollout, lambda graph: sum_min_bound(graph, None, "frame")])
def test_gradients_agree_with_finite_differences(bound) -> None:
    generator = torch.Generator().manual_seed(3)
    kinds = ("cross", "temporal", "joint", "spatial")
    stages = [random_stage(kind, (2, 2, 1), 2, i, generator) for i, kind in enumerate(kinds)]

    def value(*weights: torch.Tensor) -> torch.Tensor:
        return bound(
            LayeredGraph.from_stages([Stage(s.kind, s.module, s.order, s.grid, w) for s, w in zip(stages, weights, strict=True)])
        )

    assert torch.autograd.gradcheck(value, [stage.weights.clone().requires_grad_() for stage in stages], eps=1e-7, atol=1e-6)


def test_bad_rounds_are_named() -> None:
    with pytest.raises(InputError, match="rounds: expected at least 1"):
        greedy_flow(random_case(0).graph, rounds=0)
