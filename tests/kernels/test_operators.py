"""Sites as operators against the dense definition: random sites of every kind, dtype, mask and grid, as maps and as factors."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels import factored, operators, resampled
from vico_lens.kernels.bounds import sum_min_bound, widest_path
from vico_lens.kernels.dense import DenseOperator
from vico_lens.kernels.factored import FactorOperator
from vico_lens.kernels.greedy import push_once
from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.operator_graph import OperatorGraph
from vico_lens.kernels.operators import Blend, Operator
from vico_lens.kernels.products import hard_definition, soft_definition, sum_definition
from vico_lens.kernels.rollout import rollout
from vico_lens.kernels.softmax import MASKED, attention
from vico_lens.kernels.stages import Stage, resample, stage_shape, stages_from_calls

KINDS = ("cross", "spatial", "temporal", "spacetime", "joint")


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every site too large for one block, so that what is tested is the way of large sites."""
    monkeypatch.setattr(factored, "_SMALL", 0)
    monkeypatch.setattr(factored, "_KEYS", 3)
    monkeypatch.setattr(factored, "_CARRIED", 1)
    monkeypatch.setattr(factored, "STRIP", 16)
    monkeypatch.setattr(resampled, "STRIP", 16)
    monkeypatch.setattr(resampled, "_SMALL", 0)
    monkeypatch.setattr(resampled, "_HELD", 0)
    monkeypatch.setattr(DenseOperator, "in_memory", False)
    monkeypatch.setattr("vico_lens.kernels.dense.STRIP", 7)


def random_call(
    kind: str,
    grid: tuple[int, int, int],
    tokens: int,
    generator: torch.Generator,
    order: int = 0,
    *,
    mask: str = "none",
    dtype: torch.dtype = torch.float64,
    heads: int = 2,
    framed: bool = False,
) -> SimpleNamespace:
    """An attention call as `AttentionCall` documents it, with any mask."""
    frames, rows, columns = grid
    whole = tokens + frames * rows * columns
    queries = {"temporal": (rows, columns, frames), "joint": (whole,)}.get(kind, grid)
    keys = {"cross": (frames, tokens) if framed else (tokens,), "temporal": (rows, columns, frames), "joint": (whole,)}.get(
        kind, grid
    )
    layout = {"cross": (*grid, tokens), "spatial": (*grid, rows, columns), "temporal": (rows, columns, frames, frames),
              "spacetime": (*grid, *grid), "joint": (whole, whole)}[kind]  # fmt: skip
    bias = None
    if mask == "keys":
        count = {"cross": 1, "temporal": 1, "joint": 1, "spatial": 2, "spacetime": 3}[kind]
        bias = torch.zeros(1, *(1,) * (len(layout) - count), *layout[-count:])
        bias[..., -1:] = MASKED
    elif mask == "pairs":
        bias = torch.where(torch.rand(heads, *layout, generator=generator) < 0.4, -torch.inf, 0.0)
        bias[:, 0] = -3e38  # rows of which nothing is left
    elif mask == "deep":
        bias = torch.full((1, *layout), -5e36)
    elif mask == "soft":
        bias = torch.randn(heads, *layout, generator=generator)
    site = SimpleNamespace(
        kind=kind, module=f"m.{order}", grid=grid, heads=heads, tokens=tokens if kind in ("cross", "joint") else 0, order=order
    )
    query, key = (2 * torch.randn(heads, *shape, 4, generator=generator, dtype=torch.float64) for shape in (queries, keys))
    return SimpleNamespace(site=site, step=0, branch="cond", prompt=0, query=query.to(dtype), key=key.to(dtype), scale=0.5,
                           bias=bias, probabilities=None)  # fmt: skip


def by_hand(call: SimpleNamespace) -> Tensor:
    """Head mean of the softmax in float64 by einsum on the documented axes."""
    formula = {"cross": "hfyxc,htc->hfyxt", "spatial": "hfyxc,hfijc->hfyxij", "temporal": "hyxfc,hyxgc->hyxfg",
               "spacetime": "hfyxc,hgijc->hfyxgij", "joint": "hqc,hkc->hqk"}[call.site.kind]  # fmt: skip
    if call.site.kind == "cross" and call.key.ndim == 4:
        formula = "hfyxc,hftc->hfyxt"
    logits = torch.einsum(formula, call.query.double(), call.key.double()) * call.scale
    keys = {"spatial": 2, "spacetime": 3}.get(call.site.kind, 1)
    hidden = torch.zeros(logits.shape, dtype=torch.bool)
    if call.bias is not None:
        logits = logits + call.bias.double().clamp_min(-1e30)
        hidden = (call.bias < -9.95e36).expand(logits.shape)
    flat = logits.flatten(-keys).masked_fill(hidden.flatten(-keys), -torch.inf)
    weights = flat.softmax(-1).nan_to_num(0.0)
    if call.bias is not None and bool((call.bias == -5e36).all()):  # the same number for every key, beside which no logit is seen
        weights = torch.full_like(weights, 1 / weights.shape[-1])
    return weights.mean(0).reshape(stage_shape(call.site.kind, call.site.grid, call.site.tokens))


MASKS = ("none", "keys", "pairs", "deep", "soft")


def draw_call(seed: int, kind: str | None = None, dtype: torch.dtype = torch.float64, mask: str | None = None) -> SimpleNamespace:
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    grid = (choose.randint(1, 3), choose.randint(1, 3), choose.randint(1, 3))
    kind = kind or choose.choice(KINDS)
    tokens, mask, framed = choose.randint(1, 4), mask or choose.choice(MASKS), choose.random() < 0.5
    return random_call(kind, grid, tokens, generator, mask=mask, dtype=dtype, framed=framed)


def stage_of(call: SimpleNamespace) -> Stage:
    return stages_from_calls([call])[0]  # type: ignore[list-item]


# -- one definition of attention -------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 32), st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]), st.booleans())
@settings(deadline=None)
def test_live_stages_are_the_softmax_whatever_the_mask_dtype_and_autocast(seed: int, dtype: torch.dtype, cast: bool) -> None:
    call = draw_call(seed, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=cast):
        weights = stage_of(call).weights
    assert weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(weights.double(), by_hand(call), rtol=0, atol=1e-12 if dtype == torch.float64 else 3e-6)


@pytest.mark.usefixtures("streaming")
@given(st.integers(0, 1 << 32), st.sampled_from([torch.float32, torch.bfloat16]), st.booleans())
@settings(deadline=None)
def test_streamed_sites_are_the_same_softmax(seed: int, dtype: torch.dtype, cast: bool) -> None:
    call = draw_call(seed, dtype=dtype)
    expected = by_hand(call)
    stage = stage_of(call)
    operator = stage.operator
    expected = expected.reshape(operator.shape)
    keys = operator.shape[2]
    with torch.autocast("cpu", torch.bfloat16, enabled=cast):
        mass = torch.rand(operator.shape[0], 5, keys)
        carried, columns, strips = operator.carry(mass), operator.columns([keys - 1, 0]), joined(operator)
    torch.testing.assert_close(carried.double(), mass.double() @ expected.mT, rtol=0, atol=5e-6)
    torch.testing.assert_close(columns.double(), expected[..., [keys - 1, 0]], rtol=0, atol=5e-6)
    torch.testing.assert_close(strips.double(), expected, rtol=0, atol=5e-6)


def joined(operator: Operator) -> Tensor:
    """The map put together from strips, each query met once."""
    whole = torch.full(operator.shape, torch.nan, dtype=operator.dtype)
    for strip in operator.strips():
        assert bool(whole[strip.batch, strip.queries].isnan().all())
        whole[strip.batch, strip.queries] = strip.weights.mT
    return whole


# -- products --------------------------------------------------------------------------------------------------------------------


def forms(seed: int) -> list[Operator]:
    """One random site as a map, as factors, and brought to another grid."""
    call = draw_call(seed, kind=random.Random(seed).choice(KINDS[1:]))
    stage = stage_of(call)
    choose = random.Random(seed + 1)
    moved = resample(stage, tuple(choose.randint(1, 4) for _ in range(3)))  # type: ignore[arg-type]
    return [Stage(stage.kind, "m", 0, stage.grid, by_hand(call)).operator, stage.operator, moved.operator]


@pytest.mark.usefixtures("streaming")
@given(st.integers(0, 1 << 32), st.sampled_from([Blend(), Blend(0.3, 0.7), Blend(1.0, 1.0)]))
@settings(deadline=None, max_examples=15)
def test_path_products_equal_their_definitions(seed: int, blend: Blend) -> None:
    for operator in forms(seed):
        batch, queries, keys = operator.shape
        capacity = operator.dense() * blend.new + blend.keep * torch.eye(queries, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        above, below = (torch.rand(batch, 3, count, generator=generator, dtype=torch.float64) for count in (keys, queries))
        close = {"rtol": 0, "atol": 1e-11}
        torch.testing.assert_close(operator.widest(above, blend), hard_definition(above, capacity.mT), **close)
        torch.testing.assert_close(operator.narrow_sum(above, blend), sum_definition(above, capacity.mT), **close)
        torch.testing.assert_close(operator.narrow_sum(below, blend, back=True), sum_definition(below, capacity), **close)
        torch.testing.assert_close(operator.product("soft", above, blend, 0.1), soft_definition(above, capacity.mT, 0.1), **close)
        torch.testing.assert_close(operator.carry_back(below), below @ operator.dense(), **close)
        share = torch.rand(batch, 2, 3, keys, generator=generator, dtype=torch.float64)
        pushed = torch.einsum("bcsk,bsqk->bcsq", share, torch.minimum(capacity[:, None], below[..., None]))
        torch.testing.assert_close(operator.push(share, below, blend), pushed, **close)
        marked, other = (values > 0.5 for values in (above, below))
        crossing = torch.einsum("bck,bqk,bcq->c", marked.double(), capacity, other.double())
        torch.testing.assert_close(operator.crossing(marked.double(), other, blend), crossing, **close)
        from_cell, to_cell = (torch.randint(0, 3, (batch, count), generator=generator) for count in (keys, queries))
        hot = [torch.nn.functional.one_hot(cell, 3).double() for cell in (from_cell, to_cell)]
        pooled = torch.einsum("bki,bqk,bqj->ij", hot[0], capacity, hot[1])
        torch.testing.assert_close(operator.pooled(from_cell, to_cell, 3, blend), pooled, **close)


@pytest.mark.usefixtures("streaming")
@given(st.integers(0, 1 << 32))
@settings(deadline=None)
def test_a_joint_site_without_its_text_keeps_its_rows(seed: int) -> None:
    stage = stage_of(draw_call(seed, kind="joint"))
    text = stage.tokens
    whole, part = stage.operator.dense(), stage.video_only().operator
    torch.testing.assert_close(part.dense(), whole[:, text:, text:])
    torch.testing.assert_close(joined(part), whole[:, text:, text:])
    mass = torch.rand(1, 2, part.shape[2], dtype=torch.float64)
    torch.testing.assert_close(part.carry(mass), mass @ whole[:, text:, text:].mT)
    torch.testing.assert_close(part.columns([0]), whole[:, text:, text : text + 1])
    torch.testing.assert_close(stage.text_columns([0]), whole[0, text:, :1])


@given(st.integers(0, 1 << 32))
@settings(deadline=None)
def test_moved_maps_are_area_means_of_queries_and_area_sums_of_keys(seed: int) -> None:
    """Against a resampling by counting cells of a grid that both grids divide."""
    stage = stage_of(draw_call(seed, kind=random.Random(seed).choice(("spacetime", "joint"))))
    choose = random.Random(seed + 1)
    grid = (choose.randint(1, 4), choose.randint(1, 4), choose.randint(1, 4))
    text = stage.tokens

    def counted(rule: str) -> Tensor:
        whole = torch.ones(1, 1, dtype=torch.float64)
        for old, new in zip(stage.grid, grid, strict=True):
            share = torch.zeros(new, old, dtype=torch.float64)
            for cell in range(old * new):
                share[cell // old, cell // new] += 1 / (old if rule == "mean" else new)
            whole = torch.kron(whole, share)
        return torch.block_diag(torch.eye(text, dtype=torch.float64), whole) if text else whole

    expected = counted("mean") @ stage.weights @ counted("sum").T
    torch.testing.assert_close(resample(stage, grid).weights, expected, rtol=0, atol=1e-12)


# -- graphs ----------------------------------------------------------------------------------------------------------------------


def draw_stages(seed: int, *, grad: bool = False, masks: tuple[str, ...] = MASKS) -> tuple[list[Stage], list[Tensor]]:
    """Two to four sites on up to two grids, brought to one; some joint."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    grid = (choose.randint(1, 3), choose.randint(1, 3), choose.randint(1, 3))
    coarse = tuple(max(1, size - choose.randint(0, 1)) for size in grid)
    tokens = choose.randint(1, 3)
    text = choose.choice((("cross",), ("joint",), ("cross", "joint")))
    kinds = [choose.choice(("spatial", "temporal", "spacetime", *text)) for _ in range(choose.randint(1, 3))]
    kinds.insert(choose.randint(0, len(kinds)), text[0])
    calls = [
        random_call(
            kind, choose.choice((grid, coarse)), tokens, generator, order, mask=choose.choice(masks), framed=choose.random() < 0.5
        )  # type: ignore[arg-type]
        for order, kind in enumerate(kinds)
    ]
    leaves = [tensor.requires_grad_(grad) for call in calls for tensor in (call.query, call.key)]
    return stages_from_calls(calls, grid=grid), leaves  # type: ignore[arg-type]


@pytest.mark.usefixtures("streaming")
@given(st.integers(0, 1 << 32), st.sampled_from([("share", 0.5), ("share", 0.9), ("share", 0.0), ("add", 0.5)]))
@settings(deadline=None, max_examples=40)
def test_passes_over_operators_equal_those_over_edges(seed: int, capacities: tuple[str, float]) -> None:
    stages, _ = draw_stages(seed)
    residual, rho = capacities
    dense = LayeredGraph.from_stages(stages, rho=rho, residual=residual)  # type: ignore[arg-type]
    streamed = OperatorGraph.from_stages(stages, rho=rho, residual=residual)  # type: ignore[arg-type]
    sources = [[0], list(range(dense.tokens))]
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(rollout(streamed, sources), rollout(dense, sources), **close)
    torch.testing.assert_close(widest_path(streamed, sources), widest_path(dense, sources), **close)
    for sinks in ("video", "frame", "token"):
        torch.testing.assert_close(sum_min_bound(streamed, sources, sinks), sum_min_bound(dense, sources, sinks), **close)
        for mine, theirs in zip(streamed.supply(sources), dense.supply(sources), strict=True):
            torch.testing.assert_close(mine, theirs, **close)
        mine, _ = push_once(streamed, streamed.supply(sources), streamed.sink(sinks))
        theirs, _ = push_once(dense, dense.supply(sources), dense.sink(sinks))
        torch.testing.assert_close(mine, theirs, **close)


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("method", [rollout, widest_path, sum_min_bound])
@given(seed=st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=25)
def test_gradients_of_streamed_passes_equal_those_of_the_definition(method, seed: int) -> None:
    # A row of biases that drown its logits has no gradient worth the name.
    stages, leaves = draw_stages(seed, grad=True, masks=("none", "keys", "pairs", "soft"))
    if any(isinstance(stage.operator, resampled.ResampledOperator) for stage in stages) and method is not rollout:
        return
    sources = [[0]]
    found = []
    for graph in (OperatorGraph.from_stages(stages, rho=0.4), LayeredGraph.from_stages(stages, rho=0.4)):
        value = method(graph, sources)
        weight = torch.rand(value.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found.append(torch.autograd.grad((value * weight).sum(), leaves, allow_unused=True))
    for leaf, mine, theirs in zip(leaves, *found, strict=True):
        parts = [torch.zeros_like(leaf) if part is None else part for part in (mine, theirs)]
        torch.testing.assert_close(*parts, rtol=0, atol=1e-8)


# -- particulars -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("with_bias", [False, True])
def test_causal_sites_hide_later_keys(small: bool, with_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr(factored, "_SMALL", 0)
        monkeypatch.setattr(factored, "_KEYS", 3)
        monkeypatch.setattr(factored, "STRIP", 16)
        monkeypatch.setattr("vico_lens.kernels.softmax._AT_ONCE", 4)
    query, key = (torch.randn(2, 1, 7, 4, dtype=torch.float64) for _ in range(2))
    bias = torch.zeros(1, 1, 7, 7)
    bias[..., 0] = MASKED if with_bias else 0.0
    hidden = torch.ones(7, 7).triu(1).bool() | (bias[0, 0] < -1e36)
    logits = ((query @ key.mT) * 0.5).masked_fill(hidden, -torch.inf)
    expected = logits.softmax(-1).nan_to_num(0.0).mean(0)
    site = FactorOperator(query, key, 0.5, bias if with_bias else None, causal=True)
    mass = torch.rand(1, 2, 7, dtype=torch.float64)
    torch.testing.assert_close(site.dense(), expected)
    torch.testing.assert_close(site.carry(mass), mass @ expected.mT)
    torch.testing.assert_close(site.columns([5, 0]), expected[..., [5, 0]])
    torch.testing.assert_close(joined(site), expected)
    torch.testing.assert_close(site.part(3, 2).carry(mass[..., 2:]), mass[..., 2:] @ expected[:, 3:, 2:].mT)


@pytest.mark.usefixtures("streaming")
def test_heads_that_share_a_key() -> None:
    query, key = (
        torch.randn(4, 1, 5, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 1, 5, 4, dtype=torch.float64, requires_grad=True),
    )
    expected = attention(query, key.repeat_interleave(2, 0), 0.5).mean(0)
    site = FactorOperator(query, key, 0.5)
    mass = torch.rand(1, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(site.carry(mass), mass @ expected.mT)
    torch.testing.assert_close(site.columns([1]), expected[..., [1]])
    for mine, theirs in ((site.narrow_sum(mass), sum_definition(mass, expected.mT)), (site.carry(mass), mass @ expected.mT)):
        pairs = [torch.autograd.grad((value * mass).sum(), (query, key), retain_graph=True) for value in (mine, theirs)]
        for one, other in zip(*pairs, strict=True):
            torch.testing.assert_close(one, other)


def test_a_coarse_map_of_a_site_too_large_for_its_own_is_put_together_from_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(random_call("spacetime", (2, 4, 4), 0, torch.Generator().manual_seed(0)))
    expected = resample(stage, (2, 2, 1)).weights
    monkeypatch.setattr(operators, "LARGEST_MAP", 100)
    monkeypatch.setattr(resampled, "LARGEST_MAP", 100)
    monkeypatch.setattr(resampled, "_HELD", 0)
    torch.testing.assert_close(resample(stage, (2, 2, 1)).weights, expected)


def test_a_map_that_is_too_large_is_refused_with_what_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "LARGEST_MAP", 24)
    site = FactorOperator(torch.randn(1, 1, 5, 4), torch.randn(1, 1, 5, 4), 0.5)
    with pytest.raises(InputError, match=r"1 x 5 x 5 .* product with it, for columns, or for it pooled"):
        site.dense()
    assert site.carry(torch.ones(1, 1, 5)).shape == (1, 1, 5)


@pytest.mark.usefixtures("streaming")
def test_nan_is_refused_where_a_minimum_would_hide_it() -> None:
    query = torch.randn(1, 1, 5, 4)
    query[0, 0, 2, 1] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        FactorOperator(query, torch.randn(1, 1, 5, 4), 0.5).widest(torch.ones(1, 1, 5))


def test_operands_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(InputError, match="head size"):
        FactorOperator(torch.randn(1, 1, 5, 4), torch.randn(1, 1, 5, 3), 0.5)
    with pytest.raises(InputError, match="multiple"):
        FactorOperator(torch.randn(3, 1, 5, 4), torch.randn(2, 1, 5, 4), 0.5)
