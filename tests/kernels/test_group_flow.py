from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.localflow import local_flow
from vico_lens.kernels.parity import mean_of_groups, parity_influence, parity_loss, smooth
from vico_lens.kernels.products import hard_product, soft_product, sum_product
from vico_lens.kernels.subgraph import merge_tokens, self_capacity, subgraph_flow

KINDS = ("hard", "soft", "sum", "exact", "rollout")
T1 = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], dtype=torch.float64)[None]
T2 = torch.tensor([[0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0.25, 0.25, 0.5]], dtype=torch.float64)[None]
CROSS = torch.tensor([[0.90, 0.06, 0.04], [0.80, 0.15, 0.05], [0.70, 0.10, 0.20]], dtype=torch.float64)[:, None]


def _group(seed: int, frames: int, positions: int, tokens: int, hops: int = 2) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    cross = torch.randn(frames, positions, tokens, generator=generator, dtype=torch.float64).softmax(-1)
    shape = (positions, frames, frames)
    return cross, [torch.randn(shape, generator=generator, dtype=torch.float64).softmax(-1) for _ in range(hops)]


def _whole_loss_maps() -> tuple[Tensor, list[Tensor]]:
    """The maps of method.md 7.4: T=4, 3x3 positions, 8 tokens, 2 heads."""
    step = torch.arange(4 * 2 * 9 * 8, dtype=torch.float64)
    cross = torch.softmax(3 * torch.sin(0.37 * step).reshape(4, 2, 9, 8), -1).mean(1)
    step = torch.arange(9 * 2 * 16, dtype=torch.float64)
    logits = 2 * torch.sin(0.53 * step), 2 * torch.cos(0.29 * step)
    return cross, [torch.softmax(part.reshape(9, 2, 4, 4), -1).mean(1) for part in logits]


@pytest.mark.parametrize(
    "residual, kind, expected",
    [
        ("parity", "hard", [[0.7, 0.15, 0.15], [0.7, 0.15, 0.15], [0.7, 0.125, 0.2]]),
        (
            "parity",
            "soft",
            [[0.69999951, 0.15000169, 0.14993437], [0.69993240, 0.15006815, 0.15679815], [0.69993287, 0.13091193, 0.19999999]],
        ),
        ("parity", "rollout", [[0.8435, 0.08985, 0.06665], [0.7957499, 0.120225, 0.084025], [0.74875, 0.103375, 0.147875]]),
        ("add", "hard", [[0.9, 0.15, 0.2], [0.8, 0.15, 0.2], [0.7, 0.15, 0.2]]),
        (
            "add",
            "soft",
            [[0.9, 0.15006839, 0.19999954], [0.79999995, 0.15006839, 0.19999976], [0.7, 0.15006816, 0.2]],
        ),
    ],
)
def test_chain_oracle(residual: str, kind: str, expected: list[list[float]]) -> None:
    # method.md 7.3, measured on the reference operators.
    flow = subgraph_flow(CROSS, [T1, T2], kind=kind, tau=0.01, residual=residual)
    torch.testing.assert_close(flow[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_joined_hops_oracle() -> None:
    joined = hard_product(self_capacity(T2, "parity"), self_capacity(T1, "parity"))[0]
    expected = torch.tensor([[0.7, 0.2, 0.15], [0.15, 0.7, 0.15], [0.125, 0.125, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(joined, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight, hard, soft, sharp", [(0.01, 0.01, 0.0376023, 0.0127726), (0.0, 0.0, 0.0276802, None)])
def test_tiny_flow_oracle(weight: float, hard: float, soft: float, sharp: float | None) -> None:
    # method.md 7.3: uniform temporal maps, T=16.
    cross = torch.full((16, 1, 1), weight, dtype=torch.float64)
    uniform = torch.full((1, 16, 16), 1 / 16, dtype=torch.float64)
    hops = [uniform, uniform]

    def value(**options: object) -> float:
        return subgraph_flow(cross, hops, residual="parity", **options)[0, 0, 0].item()

    assert value(kind="hard") == pytest.approx(hard)
    assert value(kind="soft", tau=0.01) == pytest.approx(soft, abs=1e-6)
    if sharp is not None:
        assert value(kind="soft", tau=0.001) == pytest.approx(sharp, abs=1e-6)
    assert value(kind="exact") == pytest.approx(16 * weight, abs=1e-12)


@pytest.mark.parametrize(
    "kind, first, total, influence, loss",
    [
        (
            "hard",
            [0.18882076, 0.17826815, 0.1423152, 0.13325867, 0.1390286, 0.1291255, 0.12011437, 0.15252081],
            50.16362541,
            [0.130589774, 0.045967612, 0.538245289],
            0.954032388,
        ),
        (
            "soft",
            [0.18915126, 0.1783697, 0.14462905, 0.13576604, 0.14138842, 0.13052721, 0.12831698, 0.15432612],
            50.63806164,
            [0.130331304, 0.041643008, 0.541851525],
            0.958356992,
        ),
        (
            "rollout",
            [0.2227902, 0.14804167, 0.10428, 0.09024296, 0.09518666, 0.09523319, 0.09819553, 0.14602979],
            36.0,
            [0.02318171, 0.00662132, 0.600453947],
            0.99337868,
        ),
    ],
)
def test_whole_loss_oracle(kind: str, first: list[float], total: float, influence: list[float], loss: float) -> None:
    # method.md 7.4, to 1e-6.
    cross, hops = _whole_loss_maps()
    flow = mean_of_groups([subgraph_flow(cross, hops, kind=kind, tau=0.01, residual="parity").reshape(4, 3, 3, 8)])
    torch.testing.assert_close(flow[0, 0, 0], torch.tensor(first, dtype=torch.float64), rtol=0, atol=1e-6)
    assert flow.sum().item() == pytest.approx(total, abs=1e-6)
    reached = parity_influence(flow, [2, 4, 6], last=7)
    torch.testing.assert_close(reached, torch.tensor(influence, dtype=torch.float64), rtol=0, atol=1e-6)
    assert parity_loss(flow, [2, 4, 6], last=7).item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(
    "kind, density", [("hard", (0.135, 0.049, 0.042)), ("soft", (0.333, 0.333, 0.167)), ("rollout", (0.333, 0.444, 0.222))]
)
def test_gradient_density_of_the_whole_loss(kind: str, density: tuple[float, ...]) -> None:
    # method.md 7.4, over cross, first and second temporal map.
    cross, hops = _whole_loss_maps()
    leaves = [cross.requires_grad_(), *(hop.requires_grad_() for hop in hops)]
    flow = subgraph_flow(cross, hops, kind=kind, tau=0.01, residual="parity").reshape(4, 3, 3, 8)
    grads = torch.autograd.grad(parity_loss(flow, [2, 4, 6], last=7), leaves)
    found = [(grad != 0).double().mean().item() for grad in grads]
    # Zeros of the reference operators are rounding as well as structure: its soft weights vanish below 1e-16 of the largest.
    if kind == "soft":
        found = [(grad.abs() > 1e-10 * grad.abs().max()).double().mean().item() for grad in grads]
    assert found == pytest.approx(density, abs=5e-4)


def test_how_few_entries_a_loss_at_full_size_reaches() -> None:
    # method.md 7.5: through one voxel's 27 neighbours, rollout reaches 1,440, 2,304 and 432 entries of the maps, hard some
    # dozens.
    generator = torch.Generator().manual_seed(0)
    shapes = ((16, 160, 77), (160, 16, 16), (160, 16, 16))
    leaves = [torch.rand(shape, generator=generator, dtype=torch.float64).softmax(-1).requires_grad_() for shape in shapes]
    reached = {}
    for kind in ("rollout", "hard"):
        flow = subgraph_flow(leaves[0], leaves[1:], kind=kind, residual="parity").reshape(16, 10, 16, 77)
        grads = torch.autograd.grad(parity_loss(flow, [2, 4, 7], last=11), leaves)
        reached[kind] = [int((grad != 0).sum()) for grad in grads]
    assert reached["rollout"] == [1440, 2304, 432]
    assert max(reached["hard"]) <= 144


def test_smoothing_weights() -> None:
    point = torch.zeros(5, 5, 5)
    point[2, 2, 2] = 1
    blurred = smooth(point)
    centre, face, edge, corner = (blurred[2, 2, 2], blurred[1, 2, 2], blurred[1, 1, 2], blurred[1, 1, 1])
    for value, expected in zip((centre, face, edge, corner), (0.19122, 0.07035, 0.02588, 0.00952), strict=True):
        assert value.item() == pytest.approx(expected, abs=1e-5)
    assert blurred.sum().item() == pytest.approx(1)


def _networkx_flow(injection: Tensor, hops: list[Tensor], frame: int, position: int, token: int) -> float:
    graph = nx.DiGraph()
    graph.add_nodes_from(["source", (len(hops), frame)])
    frames = len(injection)
    for f in range(frames):
        graph.add_edge("source", (0, f), capacity=injection[f, position, token].item())
    for level, hop in enumerate(hops):
        for query in range(frames):
            for key in range(frames):
                graph.add_edge((level, key), (level + 1, query), capacity=hop[position, query, key].item())
    return nx.maximum_flow_value(graph, "source", (len(hops), frame), flow_func=nx.algorithms.flow.edmonds_karp)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 2), st.integers(1, 3), st.integers(0, 3))
def test_exact_equals_networkx(seed: int, frames: int, positions: int, tokens: int, count: int) -> None:
    cross, hops = _group(seed, frames, positions, tokens, count)
    if seed % 2:
        cross = (5 * cross).clamp(max=3)  # injections beyond what the hops can carry: cuts in the middle
    flow = local_flow(cross, hops)
    for frame in range(frames):
        for position in range(positions):
            for token in range(tokens):
                expected = _networkx_flow(cross, hops, frame, position, token) if hops else cross[frame, position, token].item()
                assert flow[frame, position, token].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("residual", ["share", "add", "parity"])
def test_hard_and_sum_bracket_exact(residual: str) -> None:
    cross, hops = _group(3, 6, 4, 5)
    hard, total, exact = (subgraph_flow(cross, hops, kind=kind, residual=residual) for kind in ("hard", "sum", "exact"))
    assert bool((hard <= exact + 1e-12).all())
    assert bool((exact <= total + 1e-12).all())
    assert bool((exact > hard + 1e-3).any())


def test_hard_does_not_depend_on_the_order_of_products_and_soft_does() -> None:
    cross, hops = _group(0, 5, 3, 4)
    first, second = (self_capacity(hop, "parity") for hop in hops)
    chained = hard_product(second, hard_product(first, cross.permute(1, 0, 2))).permute(1, 0, 2)
    assert torch.equal(subgraph_flow(cross, hops, residual="parity"), chained)
    chained = soft_product(second, soft_product(first, cross.permute(1, 0, 2), 0.01), 0.01).permute(1, 0, 2)
    assert not torch.allclose(subgraph_flow(cross, hops, kind="soft", tau=0.01, residual="parity"), chained, atol=1e-4)


def test_sum_never_exceeds_the_injection() -> None:
    cross, hops = _group(0, 8, 2, 30)
    flow = subgraph_flow(cross, hops, kind="sum")
    assert bool((flow <= 0.5 * cross.sum(0) + 1e-12).all())
    chained = 0.5 * cross.permute(1, 0, 2)
    for hop in hops:
        chained = sum_product(self_capacity(hop), chained)
    assert bool((chained.permute(1, 0, 2) > flow + 1e-3).any())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("residual", ["share", "add", "parity"])
def test_gradients_agree_with_finite_differences(kind: str, residual: str) -> None:
    cross, hops = _group(7, 3, 2, 3)
    leaves = [cross.requires_grad_(), *(hop.requires_grad_() for hop in hops)]

    def flow(cross: Tensor, *hops: Tensor) -> Tensor:
        return subgraph_flow(cross, hops, kind=kind, tau=0.05, residual=residual, concepts=[[0, 2], [1]])

    assert torch.autograd.gradcheck(flow, leaves, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_concepts_join_their_tokens(kind: str) -> None:
    cross, hops = _group(5, 4, 2, 5)
    both = subgraph_flow(cross, hops, kind=kind, tau=0.01, concepts=[[1, 3], [2]])
    single = subgraph_flow(cross, hops, kind=kind, tau=0.01)
    assert both.shape == (4, 2, 2)
    torch.testing.assert_close(both[..., 1], single[..., 2])
    if kind == "hard":
        assert torch.equal(both[..., 0], single[..., [1, 3]].amax(-1))
    if kind == "rollout":
        torch.testing.assert_close(both[..., 0], single[..., [1, 3]].sum(-1))
    if kind in ("sum", "exact"):
        assert bool((both[..., 0] <= single[..., [1, 3]].sum(-1) + 1e-12).all())


def test_full_space_time_site_is_one_position() -> None:
    cross, _ = _group(1, 3, 4, 5, 0)
    _, (full,) = _group(2, 12, 1, 1, 1)
    flow = subgraph_flow(cross.reshape(12, 1, 5), [full], kind="hard", residual="add").reshape(3, 4, 5)
    capacity = full[0] + torch.eye(12, dtype=torch.float64)
    expected = torch.minimum(capacity[:, :, None], cross.reshape(1, 12, 5)).amax(1).reshape(3, 4, 5)
    assert torch.equal(flow, expected)


def test_float32_is_returned_as_it_came() -> None:
    cross, hops = _group(1, 3, 2, 4)
    for kind in KINDS:
        flow = subgraph_flow(cross.float(), [hop.float() for hop in hops], kind=kind)
        assert flow.dtype == torch.float32
        torch.testing.assert_close(flow.double(), subgraph_flow(cross, hops, kind=kind), rtol=0, atol=1e-5)


def test_bad_input_is_named() -> None:
    cross, hops = _group(0, 3, 2, 4)
    with pytest.raises(InputError, match=r"temporals\[1\]: expected .* = \(2, 3, 3\)"):
        subgraph_flow(cross, [hops[0], hops[1][:1]])
    with pytest.raises(InputError, match="kind: expected"):
        subgraph_flow(cross, hops, kind="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="residual: expected"):
        subgraph_flow(cross, hops, residual="mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rho: expected"):
        subgraph_flow(cross, hops, rho=1.0)
    with pytest.raises(InputError, match=r"tokens in 0\.\.3 each; got \[4\]"):
        subgraph_flow(cross, hops, concepts=[[4]])
    with pytest.raises(InputError, match="at least one; got none"):
        merge_tokens(cross, [], "hard")
    broken = cross.clone()
    broken[0, 0, 0] = float("nan")
    for kind in KINDS:
        with pytest.raises(InputError, match="finite"):
            subgraph_flow(broken, hops, kind=kind)
    with pytest.raises(InputError, match="not negative"):
        local_flow(-cross, hops)
    flow = subgraph_flow(*_whole_loss_maps()).reshape(4, 3, 3, 8)
    with pytest.raises(InputError, match="last: expected"):
        parity_loss(flow, [1], last=9)
    with pytest.raises(InputError, match=r"numbers in 1\.\.6; got \[0, 2\]"):
        parity_loss(flow, [0, 2], last=7)
    with pytest.raises(InputError, match="at least 3 axes"):
        smooth(torch.zeros(3, 3))
