"""The bracket of graphs of any size: always around networkx's value, narrow on the bundled model, exact where the ends meet."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_graphs import Case, random_case
from test_operators import draw_stages

import vico_lens as vl
from vico_lens.attribution import stages_from_trace
from vico_lens.errors import InputError
from vico_lens.kernels import contracted, flow_bracket
from vico_lens.kernels.flow_bracket import FlowBracket, coarse_grid
from vico_lens.kernels.flow_bracket import flow_bracket as bracket_of
from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.maxflow import max_flow
from vico_lens.kernels.maxflow_reference import max_flow_definition
from vico_lens.kernels.operator_graph import OperatorGraph
from vico_lens.tinyworld.demonstration import demo_trace


def holds(bracket: FlowBracket, value: torch.Tensor, slack: float = 1e-12) -> None:
    assert bool((bracket.lower <= value * (1 + slack) + 1e-15).all()), (bracket.lower / value).max()
    assert bool((bracket.upper >= value * (1 - slack) - 1e-15).all()), (bracket.upper / value).min()


def streamed(case: Case) -> OperatorGraph:
    return OperatorGraph.from_stages(case.stages, rho=case.rho, residual=case.residual)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep_edges", [True, False])
def test_holds_the_value_of_networkx_on_200_graphs(keep_edges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_bracket, "_KEPT", 1 << 24 if keep_edges else 0)
    monkeypatch.setattr(flow_bracket, "CLOSED", -1.0)  # every flow takes the long way, those that meet a trivial cut too
    for seed in range(100 if keep_edges else 0, 200 if keep_edges else 100):
        case = random_case(seed)
        grid = case.stages[0].grid
        coarse = tuple(random.Random(seed).randint(1, size) for size in grid)
        found = bracket_of(streamed(case), case.sources, case.sinks, coarse=coarse)  # type: ignore[arg-type]
        graph = case.graph
        sinks = graph.sink(case.sinks)
        rows = [[max_flow_definition(graph, source, sink) for sink in sinks] for source in case.sources]
        value = torch.tensor(rows, dtype=torch.float64)
        holds(found, value)


@given(st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=40)
def test_holds_the_exact_flow_of_sites_given_by_factors_on_several_grids(seed: int) -> None:
    stages, _ = draw_stages(seed)
    exact = max_flow(LayeredGraph.from_stages(stages, rho=0.8), [[0]], "frame").value
    coarse = tuple(-(-size // 2) for size in stages[0].grid)
    holds(bracket_of(OperatorGraph.from_stages(stages, rho=0.8), [[0]], "frame", coarse=coarse), exact)  # type: ignore[arg-type]


def test_a_contraction_to_the_same_grid_is_the_flow_itself() -> None:
    for seed in range(30):
        case = random_case(seed)
        graph = streamed(case)
        found = bracket_of(graph, case.sources, case.sinks, coarse=graph.grid)
        exact = max_flow(case.graph, case.sources, case.sinks).value
        torch.testing.assert_close(found.upper, exact, rtol=1e-8, atol=1e-12)


def test_contracted_capacities_are_sums() -> None:
    case = random_case(3)
    graph, dense = streamed(case), case.graph
    coarse = (1, 1, 1)
    cell = contracted.cells_of(graph.grid, coarse, graph.text, [[0]])
    hot = torch.nn.functional.one_hot(cell).double()
    for mine, theirs in zip(graph.links, dense.links, strict=True):
        eye = torch.eye(theirs.width, dtype=torch.float64)
        torch.testing.assert_close(mine.pooled(cell, int(cell.max()) + 1), hot.T @ theirs.carry(eye) @ hot)


@pytest.mark.parametrize(("rho", "widest"), [(0.5, 0.001), (0.8, 0.03), (0.95, 0.03)])
def test_narrow_on_the_bundled_model(rho: float, widest: float) -> None:
    tree = vl.open_trace(demo_trace())
    tokens = [concept.tokens for concept in vl.find_concepts(tree)]
    stages = stages_from_trace(tree, 0)
    graph = OperatorGraph.from_stages(stages, rho=rho)
    sinks = graph.sink("frame")[[0, 7]]
    found = bracket_of(graph, tokens, sinks, coarse=(8, 4, 4))
    # The weights are float32: their last digits depend on how they are computed. Sums over them are exact to float64.
    holds(found, max_flow(LayeredGraph.from_stages(stages, rho=rho), tokens, sinks).value, slack=1e-5)
    assert float(found.gap.max()) <= widest


def test_exact_only_where_the_ends_meet() -> None:
    bracket = FlowBracket(torch.tensor([[1.0, 0.9, 0.0]]).double(), torch.tensor([[1.0, 1.0, 0.0]]).double())
    assert bracket.exact.tolist() == [[True, False, True]]
    torch.testing.assert_close(bracket.gap, torch.tensor([[0.0, 0.1, 0.0]]).double())


def test_progress_counts_passes_and_can_stop_the_run() -> None:
    seen: list[tuple[int, int]] = []
    bracket_of(streamed(random_case(5)), [[0]], progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1][0] <= seen[-1][1]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bracket_of(streamed(random_case(5)), [[0]], progress=stop)


def test_too_many_sinks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_bracket, "_LARGEST", 3)
    with pytest.raises(InputError, match="fewer sinks"):
        bracket_of(streamed(random_case(5)), [[0]], "token")


def test_the_coarse_grid_fits_the_solver() -> None:
    for grid, links in (((13, 30, 45), 30), ((21, 30, 52), 60), ((8, 8, 8), 12), ((200, 2, 2), 60)):
        frames, rows, columns = coarse_grid(grid, links)
        assert links * (frames * rows * columns) ** 2 <= 1 << 21
    assert coarse_grid((3, 1, 1), 2) == (3, 1, 1)
