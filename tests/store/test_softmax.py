"""Exact columns in bounded memory against the definition, in double precision, values and gradients."""

from __future__ import annotations

import resource

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.kernels import softmax
from vico_lens.kernels.softmax import MASKED, attention, attention_columns, row_normaliser


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every problem too large for one block, so that streaming is what is tested."""
    monkeypatch.setattr(softmax, "_AT_ONCE", 50)
    monkeypatch.setattr(softmax, "_ROWS", 3)
    monkeypatch.setattr(softmax, "_KEYS", 4)


def biases(form: str, rows: int, keys: int) -> torch.Tensor | None:
    if form == "none":
        return None
    if form == "additive":
        return torch.randn(2, 1, rows, keys, dtype=torch.float64)
    bias = torch.where(torch.rand(3, rows, keys) < 0.4, -torch.inf if form == "infinite" else MASKED, 0.0).double()
    bias[1, 0] = MASKED  # a row of which nothing is left
    return bias


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("form", ["none", "additive", "masked", "infinite"])
def test_streamed_columns_equal_the_definition(form: str) -> None:
    query = torch.randn(2, 3, 11, 5, dtype=torch.float64, requires_grad=True)
    key = torch.randn(2, 1, 13, 5, dtype=torch.float64, requires_grad=True)
    bias = biases(form, 11, 13)
    columns = torch.tensor([12, 0, 7, 7])
    expected = attention(query, key, 0.7, bias)[..., columns]
    got = attention_columns(query, key, 0.7, bias, columns)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    weight = torch.rand_like(expected)
    for mine, reference in zip(
        torch.autograd.grad((got * weight).sum(), (query, key)),
        torch.autograd.grad((expected * weight).sum(), (query, key)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_a_kept_normaliser_gives_the_same_columns() -> None:
    query, key = torch.randn(2, 11, 5), torch.randn(2, 13, 5)
    normaliser = row_normaliser(query, key, 0.3)
    got = attention_columns(query, key, 0.3, None, torch.tensor([4]), normaliser=normaliser)
    torch.testing.assert_close(got, attention(query, key, 0.3)[..., 4:5])


def test_definition_equals_torch_attention() -> None:
    """Weights times values must be what the model computed."""
    query, key, value = (torch.randn(2, 9, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(2, 9, 9) < 0.6
    mask[0, 3] = False
    mask[1, 5, 5] = True
    bias = torch.where(mask, 0.0, MASKED)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.5)
    got = attention(query, key, 0.5, bias) @ value
    torch.testing.assert_close(got, expected.nan_to_num(0.0), rtol=0, atol=1e-12)
    assert (attention(query, key, 0.5, bias)[0, 3] == 0).all()


@given(st.sampled_from([torch.float16, torch.bfloat16]), st.floats(1e-3, 200), st.booleans())
def test_half_precision_never_gives_nan(dtype: torch.dtype, size: float, hide: bool) -> None:
    query, key = (torch.randn(3, 17, 8) * size).to(dtype), (torch.randn(3, 19, 8) * size).to(dtype)
    bias = torch.full((17, 19), -65504.0) if hide else None
    columns = attention_columns(query, key, 1.0, bias, torch.arange(19))
    assert columns.isfinite().all()
    torch.testing.assert_close(columns.sum(-1), torch.ones(3, 17), rtol=0, atol=1e-5)


def test_memory_is_bounded_forwards_and_backwards() -> None:
    """4,000 x 4,000 in float32 are 64 MB a head; three heads with gradients must stay far below their 192 MB and its copies."""
    query, key = torch.randn(3, 4000, 16, requires_grad=True), torch.randn(3, 4000, 16, requires_grad=True)
    attention_columns(query[:, :400], key[:, :400], 0.25, None, torch.tensor([5])).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attention_columns(query, key, 0.25, None, torch.tensor([5])).sum().backward()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 60


@pytest.mark.parametrize("keys", [5, 3000])  # at once, and streamed
def test_autocast_takes_no_digits(keys: int) -> None:
    query, key, columns = torch.randn(2000, 8), torch.randn(keys, 8), torch.tensor([4, 1])
    plain = attention_columns(query, key, 0.5, None, columns), *row_normaliser(query, key, 0.5), attention(query, key, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        cast = attention_columns(query, key, 0.5, None, columns), *row_normaliser(query, key, 0.5), attention(query, key, 0.5)
        assert (query[:1] @ key.T).dtype == torch.bfloat16
    for before, after in zip(plain, cast, strict=True):
        assert after.dtype == torch.float32 and torch.equal(before, after)
