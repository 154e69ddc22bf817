from __future__ import annotations

import warnings
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_graphs import Case, random_case, random_stage

from vico_lens.errors import AttributionError, InputError
from vico_lens.kernels import maxflow, maxflow_compiled
from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.maxflow import FlowResult, SaturationWarning, max_flow
from vico_lens.kernels.maxflow_reference import max_flow_definition
from vico_lens.kernels.stages import Stage

CHAIN = torch.tensor([[0.90, 0.06, 0.04], [0.80, 0.15, 0.05], [0.70, 0.10, 0.20]], dtype=torch.float64)
T1 = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], dtype=torch.float64)[None]
T2 = torch.tensor([[0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0.25, 0.25, 0.5]], dtype=torch.float64)[None]


def _assert_equals_networkx(case: Case, number: type) -> None:
    graph = case.graph
    result, sinks = max_flow(graph, case.sources, case.sinks), graph.sink(case.sinks)
    for source, tokens in enumerate(case.sources):
        for sink, capacity in enumerate(sinks):
            expected = float(max_flow_definition(graph, tokens, capacity, number))
            assert result.value[source, sink].item() == pytest.approx(expected, rel=1e-9, abs=1e-300)


def _recompute_cut(graph: LayeredGraph, result: FlowResult, case: Case, source: int, sink: int) -> float:
    """Capacity that crosses the sides, from the definition of a cut."""
    sides = [result.side(level)[source, sink] for level in range(len(graph.widths))]
    supply = graph.supply([case.sources[source]])
    cut = sum(level[0][~side].sum().item() for level, side in zip(supply, sides, strict=True))
    for level, link in enumerate(graph.links):
        for block in link.blocks:
            crossing = block.gather_sources(sides[level])[:, :, None] & ~block.gather_targets(sides[level + 1])[:, None, :]
            cut += block.capacity[crossing].sum().item()
    return cut + graph.sink(case.sinks)[sink][sides[-1]].sum().item()


@pytest.mark.parametrize("number", [float, Fraction])
@given(seed=st.integers(0, 1 << 32))
def test_equals_networkx(number: type, seed: int) -> None:
    _assert_equals_networkx(random_case(seed), number)


@pytest.mark.slow
@settings(max_examples=500)
@given(seed=st.integers(0, 1 << 32))
def test_equals_networkx_on_500_graphs(seed: int) -> None:
    _assert_equals_networkx(random_case(seed), Fraction if seed % 2 else float)


@pytest.mark.parametrize("solver", ["compiled", "torch"])
@given(seed=st.integers(0, 1 << 32))
def test_peaked_attention_whose_weights_span_forty_decades_is_solved(solver: str, seed: int) -> None:
    """Float32 softmaxes with large logits reach 1e-44: no flow is so small beside its neighbours that its cut stays open."""
    case = random_case(seed)
    generator = torch.Generator().manual_seed(seed)
    case.stages = [random_stage(s.kind, s.grid, max(s.tokens, 1), s.order, generator, sharpness=30.0) for s in case.stages]
    case.stages = [stage.having(stage.weights.float().double()) for stage in case.stages]
    result, sinks = max_flow(case.graph, case.sources, case.sinks, solver=solver), case.graph.sink(case.sinks)
    expected = float(max_flow_definition(case.graph, case.sources[0], sinks[-1], Fraction))
    assert result.value[0, -1].item() == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(seed=st.integers(0, 1 << 32))
def test_certificate_is_a_cut_of_equal_value(seed: int) -> None:
    case = random_case(seed)
    graph = case.graph
    result = max_flow(graph, case.sources, case.sinks)
    assert result.gap.abs().max().item() <= 1e-9
    assert torch.equal(result.location.sum(-1), result.cut_value)
    assert len(result.places) == result.location.shape[-1] == len(graph.links) + 2
    for source in range(len(case.sources)):
        for sink in range(result.value.shape[1]):
            cut = _recompute_cut(graph, result, case, source, sink)
            assert cut == pytest.approx(result.cut_value[source, sink].item(), rel=1e-12, abs=1e-300)
    torch.testing.assert_close(sum(result.cut_by_kind().values()), result.cut_value)


@given(seed=st.integers(0, 1 << 32))
def test_batched_torch_solver_equals_the_compiled_one(seed: int) -> None:
    case = random_case(seed)
    one, other = (max_flow(case.graph, case.sources, case.sinks, solver=solver) for solver in ("compiled", "torch"))
    torch.testing.assert_close(one.value, other.value, rtol=1e-9, atol=1e-300)
    torch.testing.assert_close(one.location, other.location, rtol=1e-9, atol=1e-15)
    assert torch.equal(one.saturated, other.saturated)
    assert torch.equal(one.sides, other.sides)


@pytest.mark.parametrize("residual, rho", [("add", 0.5), ("share", 0.0)])
def test_chain_oracle(residual: str, rho: float) -> None:
    # method.md 7.3: 2.4, 0.31, 0.29, for A (rho=0) and A + I alike.
    stages = [
        Stage("cross", "attn2", 0, (3, 1, 1), CHAIN[:, None]),
        Stage("temporal", "time1", 1, (3, 1, 1), T1),
        Stage("temporal", "time2", 2, (3, 1, 1), T2),
    ]
    result = max_flow(LayeredGraph.from_stages(stages, residual=residual, rho=rho))
    torch.testing.assert_close(result.value[:, 0], torch.tensor([2.4, 0.31, 0.29], dtype=torch.float64), rtol=0, atol=1e-12)
    assert result.saturated_names() == [["source"]] * 3
    assert result.main_place().flatten().tolist() == [0, 0, 0]


def test_cut_between_source_and_sink_says_where() -> None:
    # All attention of the temporal site goes to frame 0, which saw little of the token: that is where the flow is cut.
    cross = torch.tensor([[[0.1, 0.9]], [[0.9, 0.1]]], dtype=torch.float64)
    first = torch.tensor([[[0.9, 0.1], [0.9, 0.1]]], dtype=torch.float64)
    graph = LayeredGraph.from_stages(
        [Stage("cross", "c", 0, (2, 1, 1), cross), Stage("temporal", "t", 1, (2, 1, 1), first)], rho=0.0
    )
    result = max_flow(graph, [[0]])
    assert result.value.item() == pytest.approx(0.1 + 0.1 + 0.1)
    assert result.saturated_names() == [["no"]]
    assert result.places == (("source", ""), ("cross", "c"), ("temporal", "t"), ("sink", ""))
    torch.testing.assert_close(result.location[0, 0], torch.tensor([0.1, 0.0, 0.2, 0.0], dtype=torch.float64))
    assert result.side(1)[0, 0].tolist() == [False, True]


def test_sink_saturation_is_said_and_its_gradient_warns() -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = ("cross", "spatial", "temporal") * 4
    logits = [
        torch.log(random_stage(kind, (2, 2, 2), 3, i, generator, 0.5).weights).requires_grad_() for i, kind in enumerate(kinds)
    ]
    stages = [
        Stage(kind, f"s{i}", i, (2, 2, 2), part.softmax(-1)) for i, (kind, part) in enumerate(zip(kinds, logits, strict=True))
    ]
    result = max_flow(LayeredGraph.from_stages(stages, rho=0.1), [[0, 1, 2]], sinks="token")
    assert set(result.saturated_names()[0]) == {"sink"}
    torch.testing.assert_close(result.value.detach(), torch.ones(1, 8, dtype=torch.float64))
    with pytest.warns(SaturationWarning, match="cut at the sink"):
        grads = torch.autograd.grad(result.value.sum(), logits, allow_unused=True)
    assert max(grad.abs().max().item() for grad in grads if grad is not None) < 1e-12


@pytest.mark.parametrize("solver", ["compiled", "torch"])
def test_gradient_agrees_with_finite_differences(solver: str) -> None:
    checked = 0
    for seed in range(40):
        case = random_case(seed)
        weights = [stage.weights.clone().requires_grad_() for stage in case.stages]

        def value(weights: list[torch.Tensor], case: Case = case) -> torch.Tensor:
            stages = [Stage(s.kind, s.module, s.order, s.grid, w) for s, w in zip(case.stages, weights, strict=True)]
            graph = LayeredGraph.from_stages(stages, rho=case.rho, residual=case.residual)
            flow = max_flow(graph, case.sources, case.sinks, solver=solver).value
            return (flow * torch.linspace(1, 2, flow.numel(), dtype=flow.dtype).reshape(flow.shape)).sum()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SaturationWarning)
            grads = torch.autograd.grad(value(weights), weights, allow_unused=True)
        generator = torch.Generator().manual_seed(seed)
        # Relative directions keep weights positive however small they are.
        ways = [torch.randn(w.shape, generator=generator, dtype=w.dtype) * w.detach() for w in weights]
        step = 1e-6
        with torch.no_grad():
            here, up, down = (value([w + s * way for w, way in zip(weights, ways, strict=True)]) for s in (0, step, -step))
        slope = sum((grad * way).sum().item() for grad, way in zip(grads, ways, strict=True) if grad is not None)
        right, left = (up - here).item() / step, (here - down).item() / step
        if right != pytest.approx(left, rel=1e-6, abs=1e-7):
            # A kink: the one-sided slopes differ, and the gradient is between them.
            assert right - 1e-6 <= slope <= left + 1e-6
            continue
        checked += 1
        assert slope == pytest.approx((right + left) / 2, rel=1e-6, abs=1e-7)
    assert checked >= 25


def test_threads_progress_and_order_of_results() -> None:
    case = random_case(11)
    graph = case.graph
    once = max_flow(graph, sinks="token", threads=1)
    seen: list[tuple[int, int]] = []
    again = max_flow(graph, sinks="token", threads=3, progress=lambda done, total: seen.append((done, total)))
    assert torch.equal(once.value, again.value)
    assert torch.equal(once.sides, again.sides)
    assert seen[-1] == (once.value.numel(), once.value.numel())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_progress_stops_the_run(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maxflow.certify, "trivial_cuts", _no_trivial_cuts(maxflow.certify.trivial_cuts))
    calls = []

    def progress(done: int, total: int) -> None:
        if done > 2:
            calls.append(done)
            raise KeyboardInterrupt

    generator = torch.Generator().manual_seed(0)
    stages = [random_stage(kind, (2, 2, 2), 6, i, generator) for i, kind in enumerate(("cross", "spatial", "temporal"))]
    with pytest.raises(KeyboardInterrupt):
        max_flow(LayeredGraph.from_stages(stages), sinks="token", threads=threads, progress=progress)
    assert len(calls) == 1


def _no_trivial_cuts(original):
    """Trivial cuts out of reach, so that every flow goes to the solver."""

    def raised(*arguments):
        cuts = original(*arguments)
        return maxflow.certify.TrivialCuts(cuts.source + 1, cuts.sink + 1, cuts.intake)

    return raised


def test_a_flow_is_interruptible_within(monkeypatch: pytest.MonkeyPatch) -> None:
    # With no budget the solver looks up after every relabelling; the answer must be the same.
    monkeypatch.setattr(maxflow.certify, "trivial_cuts", _no_trivial_cuts(maxflow.certify.trivial_cuts))
    generator = torch.Generator().manual_seed(1)
    stages = [
        random_stage(kind, (3, 3, 3), 4, i, generator, 4.0) for i, kind in enumerate(("cross", "spatial", "temporal", "spatial"))
    ]
    graph = LayeredGraph.from_stages(stages)
    once = max_flow(graph, sinks="token")
    monkeypatch.setattr(maxflow_compiled, "_BUDGET", 0)
    assert torch.equal(once.value, max_flow(graph, sinks="token").value)


def test_a_certificate_that_does_not_close_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    original = maxflow_compiled.CompiledSolver._one

    def wrong(*arguments):
        solved = original(*arguments)
        return replace(solved, value=0.99 * solved.value)

    monkeypatch.setattr(maxflow_compiled.CompiledSolver, "_one", wrong)
    cross = torch.tensor([[[0.1, 0.9]], [[0.9, 0.1]]], dtype=torch.float64)
    first = torch.tensor([[[0.9, 0.1], [0.9, 0.1]]], dtype=torch.float64)
    stages = [Stage("cross", "c", 0, (2, 1, 1), cross), Stage("temporal", "t", 1, (2, 1, 1), first)]
    with pytest.raises(AttributionError, match="the worst is off by 1"):
        max_flow(LayeredGraph.from_stages(stages, rho=0.0), [[0]])


def test_sides_are_optional_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_case(3).graph
    result = max_flow(graph, keep_sides=False)
    assert result.sides is None
    with pytest.raises(ValueError, match="keep_sides=True"):
        result.side(0)
    monkeypatch.setattr(maxflow, "_LARGEST_SIDES", 10)
    with pytest.raises(InputError, match="keep_sides=False"):
        max_flow(graph)


def test_bad_solver_is_named() -> None:
    with pytest.raises(InputError, match="'auto', 'compiled' or 'torch'"):
        max_flow(random_case(0).graph, solver="dinic")  # type: ignore[arg-type]
