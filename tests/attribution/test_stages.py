"""Stages from live calls against a plain softmax, and area resampling against its definition."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vico_lens.errors import InputError
from vico_lens.kernels.resampling import area_matrix
from vico_lens.kernels.stages import Stage, resample, stage_shape, stages_from_calls

GRID = (2, 4, 4)
TOKENS = 5
KEYS = {"cross": (TOKENS,), "spatial": (2, 4, 4), "temporal": (4, 4, 2), "spacetime": (2, 4, 4), "joint": (TOKENS + 32,)}
QUERIES = {"cross": (2, 4, 4), "spatial": (2, 4, 4), "temporal": (4, 4, 2), "spacetime": (2, 4, 4), "joint": (TOKENS + 32,)}
KINDS = sorted(KEYS)


def make_call(kind, *, heads=3, seed=0, bias=None, order=0, step=0):
    generator = torch.Generator().manual_seed(seed)
    site = SimpleNamespace(
        kind=kind,
        module=f"unet.{kind}.{order}",
        grid=GRID,
        heads=heads,
        tokens=TOKENS if kind in ("cross", "joint") else 0,
        order=order,
    )
    query = torch.randn(heads, *QUERIES[kind], 8, generator=generator, dtype=torch.float64)
    key = torch.randn(heads, *KEYS[kind], 8, generator=generator, dtype=torch.float64)
    return SimpleNamespace(
        site=site, step=step, branch="cond", prompt=0, query=query, key=key, scale=8**-0.5, bias=bias, probabilities=None
    )


def plain_softmax(call):
    """The same map by einsum on the documented axes, one line a kind."""
    formulas = {
        "cross": "hfyxc,htc->hfyxt",
        "spatial": "hfyxc,hfijc->hfyxij",
        "temporal": "hyxfc,hyxgc->hyxfg",
        "spacetime": "hfyxc,hgijc->hfyxgij",
        "joint": "hqc,hkc->hqk",
    }
    logits = torch.einsum(formulas[call.site.kind], call.query, call.key) * call.scale
    if call.bias is not None:
        logits = logits + call.bias
    return logits.reshape(call.site.heads, *stage_shape(call.site.kind, GRID, call.site.tokens)).softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_stage_equals_plain_softmax(kind):
    call = make_call(kind)
    (stage,) = stages_from_calls([call])
    torch.testing.assert_close(stage.weights, plain_softmax(call).mean(0), rtol=0, atol=1e-12)
    assert stage.tokens == call.site.tokens
    (chosen,) = stages_from_calls([call], heads=[2])
    torch.testing.assert_close(chosen.weights, plain_softmax(call)[2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_bias_is_added_in_the_full_layout(kind):
    shape = {
        "cross": (1, 1, 1, 1, TOKENS),
        "spatial": (1, 2, 1, 1, 4, 4),
        "temporal": (3, 1, 1, 2, 2),
        "spacetime": (1,) * 4 + (2, 4, 4),
        "joint": (1, 1, 37),
    }[kind]
    call = make_call(kind, bias=torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64))
    (stage,) = stages_from_calls([call])
    torch.testing.assert_close(stage.weights, plain_softmax(call).mean(0), rtol=0, atol=1e-12)


def test_a_row_masked_everywhere_has_no_weights():
    bias = torch.zeros(1, 4, 4, 2, 2)
    bias[0, 1, 2, 0], bias[0, 0, 0, 1, 0] = -3e38, -3e38
    (stage,) = stages_from_calls([make_call("temporal", bias=bias)])
    assert stage.weights[6, 0].tolist() == [0.0, 0.0]
    assert stage.weights[0, 1].tolist() == [0.0, 1.0]
    torch.testing.assert_close(stage.weights.sum((-1, -2)).sum(), torch.tensor(31.0, dtype=torch.float64))


def test_keys_that_differ_by_frame():
    call = make_call("cross")
    call.key = torch.randn(3, 2, TOKENS, 8, dtype=torch.float64)
    (stage,) = stages_from_calls([call])
    logits = torch.einsum("hfyxc,hftc->hfyxt", call.query, call.key) * call.scale
    torch.testing.assert_close(stage.weights, logits.softmax(-1).mean(0).reshape(2, 16, TOKENS), rtol=0, atol=1e-12)


def test_heads_streamed_one_by_one_give_the_same(monkeypatch):
    call = make_call("spacetime")
    whole = stages_from_calls([call])[0].weights
    monkeypatch.setattr("vico_lens.kernels.factored._LOGITS_AT_ONCE", 1)
    torch.testing.assert_close(stages_from_calls([call])[0].weights, whole, rtol=0, atol=1e-14)


def test_gradient_reaches_query_and_key():
    call = make_call("temporal", heads=2)
    call.query.requires_grad_(), call.key.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda q, k: stages_from_calls([_with(call, q, k)], grid=(2, 2, 2))[0].weights, (call.query, call.key), fast_mode=True
    )


def _with(call, query, key):
    return SimpleNamespace(**{**vars(call), "query": query, "key": key})


def test_stored_probabilities_are_taken_as_they_are():
    call = make_call("spatial")
    weights = plain_softmax(call)
    eager = SimpleNamespace(**{**vars(call), "query": None, "key": None, "probabilities": weights.reshape(3, 2, 4, 4, 4, 4)})
    torch.testing.assert_close(stages_from_calls([eager])[0].weights, weights.mean(0))


def test_order_and_bad_input():
    calls = [make_call("temporal", order=2), make_call("cross", order=1)]
    assert [stage.kind for stage in stages_from_calls(calls)] == ["cross", "temporal"]
    with pytest.raises(InputError, match="got none"):
        stages_from_calls([])
    with pytest.raises(InputError, match="one \\(step, branch, prompt\\)"):
        stages_from_calls([make_call("cross"), make_call("temporal", step=1)])
    with pytest.raises(InputError, match=r"several of unet\.cross\.0"):
        stages_from_calls([make_call("cross"), make_call("cross")])
    with pytest.raises(InputError, match=r"expected one or more of 0\.\.2"):
        stages_from_calls([make_call("cross")], heads=3)


@given(st.integers(1, 7), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_area_matrices_keep_their_sums(source, target):
    mean, total = area_matrix(source, target, "mean"), area_matrix(source, target, "sum")
    np.testing.assert_allclose(mean.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(total.sum(0), 1, atol=1e-12)
    fine = np.lcm(source, target)  # both matrices by counting cells of a grid that both divide
    share = np.zeros((target, source))
    for cell in range(fine):
        share[cell * target // fine, cell * source // fine] += 1
    np.testing.assert_allclose(mean, share / (fine // target), atol=1e-12)
    np.testing.assert_allclose(total, share / (fine // source), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", [(2, 2, 2), (1, 4, 4), (2, 8, 4), (3, 5, 3)])
def test_resampling_keeps_rows_stochastic(kind, grid):
    (stage,) = stages_from_calls([make_call(kind)])
    moved = resample(stage, grid)
    assert moved.grid == grid and moved.kind == kind and moved.tokens == stage.tokens
    assert moved.weights.shape == stage_shape(kind, grid, stage.tokens)
    torch.testing.assert_close(moved.weights.sum(-1), torch.ones_like(moved.weights[..., 0]), rtol=0, atol=1e-12)


def test_coarse_spacetime_is_mean_over_queries_and_sum_over_keys():
    (stage,) = stages_from_calls([make_call("spacetime")])
    fine = stage.weights.reshape(2, 2, 2, 2, 2, 2, 2, 2, 2, 2)  # f y dy x dx then the keys
    expected = fine.mean((2, 4)).sum((5, 7)).reshape(8, 8)
    torch.testing.assert_close(resample(stage, (2, 2, 2)).weights, expected, rtol=0, atol=1e-12)


def test_joint_blocks_resample_like_their_kinds():
    (stage,) = stages_from_calls([make_call("joint")])
    moved = resample(stage, (2, 2, 2)).weights
    video_text = Stage("cross", "m", 0, GRID, stage.weights[TOKENS:, :TOKENS].reshape(2, 16, TOKENS))
    torch.testing.assert_close(moved[TOKENS:, :TOKENS].reshape(2, 4, TOKENS), resample(video_text, (2, 2, 2)).weights)
    torch.testing.assert_close(moved[:TOKENS, :TOKENS], stage.weights[:TOKENS, :TOKENS])
    video = Stage("spacetime", "m", 0, GRID, stage.weights[TOKENS:, TOKENS:])
    torch.testing.assert_close(moved[TOKENS:, TOKENS:], resample(video, (2, 2, 2)).weights)
