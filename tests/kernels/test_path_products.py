from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.errors import InputError
from vico_lens.kernels import products, products_streamed
from vico_lens.kernels.products import (
    hard_definition,
    hard_product,
    path_product,
    soft_definition,
    soft_product,
    sum_definition,
    sum_product,
)

LEFT = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])
RIGHT = torch.tensor([[0.7, 0.3], [0.25, 0.75], [0.4, 0.6]])
ATTENTION = st.builds(
    lambda seed, b, i, k, j, levels: (_random(seed, (b, i, k), levels), _random(seed + 1, (b, k, j), levels)),
    st.integers(0, 10_000),
    *(st.integers(1, top) for top in (3, 6, 20, 9)),
    st.sampled_from((None, 4, 16)),
)


def _random(seed: int, shape: tuple[int, ...], levels: int | None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Uniform numbers; with `levels`, of so few values that ties abound."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return values if levels is None else (values * levels).floor() / levels


def test_oracle_of_the_reference_operators() -> None:
    # method.md 7.1, measured on the unmodified reference operators.
    assert torch.equal(hard_product(LEFT, RIGHT), torch.tensor([[0.5, 0.3], [0.3, 0.6]]))
    expected = {
        0.1: [[0.50106686, 0.37883455], [0.33748761, 0.58618128]],
        0.01: [[0.5, 0.30693170], [0.30006674, 0.60000002]],
        0.001: [[0.5, 0.30069315], [0.30000001, 0.6]],
        1e-4: [[0.5, 0.30006933], [0.3, 0.6]],
    }
    for tau, values in expected.items():
        torch.testing.assert_close(soft_product(LEFT, RIGHT, tau), torch.tensor(values), rtol=0, atol=1e-6)
    half = soft_product(LEFT.half(), RIGHT.half(), 0.01)
    torch.testing.assert_close(half, torch.tensor([[0.5, 0.30688477], [0.30004883, 0.60009766]]).half(), rtol=0, atol=5e-4)


@pytest.mark.parametrize("value, tau", [(0.5, 0.01), (0.5, 0.001), (0.0, 0.01)])
@pytest.mark.parametrize("k", [1, 2, 16, 160])
def test_soft_bias_law(value: float, tau: float, k: int) -> None:
    # method.md 7.2: v + tau ln k - tau ln 2.
    out = soft_product(torch.full((1, k), value, dtype=torch.float64), torch.full((k, 1), value, dtype=torch.float64), tau)
    assert out.item() == pytest.approx(value + tau * math.log(k) - tau * math.log(2), abs=1e-12)


def test_hard_gradient_of_a_full_tie() -> None:
    left, right = torch.full((1, 2), 0.5, requires_grad=True), torch.full((2, 1), 0.5, requires_grad=True)
    hard_product(left, right).sum().backward()
    assert left.grad.tolist() == [[0.5, 0.0]]
    assert right.grad.tolist() == [[0.5], [0.0]]


@given(ATTENTION)
def test_hard_and_sum_equal_their_definitions_bit_for_bit(operands: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert torch.equal(hard_product(*operands), hard_definition(*operands))
    assert torch.equal(sum_product(*operands), sum_definition(*operands))


@given(ATTENTION, st.sampled_from((0.1, 0.01, 0.001)))
def test_soft_equals_its_definition(operands: tuple[torch.Tensor, torch.Tensor], tau: float) -> None:
    double = [operand.double() for operand in operands]
    torch.testing.assert_close(soft_product(*double, tau), soft_definition(*double, tau), rtol=0, atol=1e-12)
    torch.testing.assert_close(soft_product(*operands, tau), soft_definition(*operands, tau), rtol=0, atol=1e-6)


@given(ATTENTION, st.sampled_from(("hard", "sum", "soft")))
def test_gradients_equal_those_of_the_definitions(operands: tuple[torch.Tensor, torch.Tensor], kind: str) -> None:
    definition = {"hard": hard_definition, "sum": sum_definition, "soft": lambda a, b: soft_definition(a, b, 0.01)}[kind]
    leaves = [operand.double().requires_grad_() for operand in operands]
    out = path_product(*leaves, kind, 0.01)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    ours = torch.autograd.grad((out * weight).sum(), leaves)
    theirs = torch.autograd.grad((definition(*leaves) * weight).sum(), leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["hard", "sum", "soft"])
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    leaves = [_random(seed, shape, None, torch.float64).requires_grad_() for seed, shape in ((1, (2, 3, 5)), (2, (2, 5, 4)))]
    assert torch.autograd.gradcheck(lambda a, b: path_product(a, b, kind, 0.05), leaves, eps=1e-6, atol=1e-7)


@given(ATTENTION, st.integers(1, 200))
def test_streamed_form_for_other_devices_equals_the_compiled_one(operands: tuple[torch.Tensor, torch.Tensor], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products_streamed, "BLOCK", block)
        left, right = (operand.double() for operand in operands)
        grad = torch.linspace(-1, 1, left.shape[0] * left.shape[1] * right.shape[2], dtype=torch.float64)
        grad = grad.reshape(left.shape[0], left.shape[1], right.shape[2])
        hard, index = products_streamed.hard_forward(left, right)
        soft = products_streamed.soft_forward(left, right, 0.01)
        pairs = [
            (hard, "hard", products_streamed.hard_backward(left, right, index, grad)),
            (products_streamed.sum_forward(left, right), "sum", products_streamed.sum_backward(left, right, grad)),
            (soft, "soft", products_streamed.soft_backward(left, right, 0.01, soft, grad)),
        ]
    for value, kind, grads in pairs:
        leaves = [left.clone().requires_grad_(), right.clone().requires_grad_()]
        out = path_product(*leaves, kind, 0.01)
        torch.testing.assert_close(value, out.detach(), rtol=0, atol=1e-12)
        for one, other in zip(grads, torch.autograd.grad(out, leaves, grad), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_soft_product_stays_finite_where_exponentials_would_not() -> None:
    left = torch.tensor([[1.0, 0.0, 0.4]], dtype=torch.float64, requires_grad=True)
    right = torch.tensor([[0.2], [1.0], [0.9]], dtype=torch.float64, requires_grad=True)
    out = soft_product(left, right, 1e-5)
    out.backward()
    assert out.item() == pytest.approx(0.4, abs=1e-4)
    torch.testing.assert_close(left.grad, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(out, soft_definition(left, right, 1e-5), rtol=0, atol=1e-12)
    # The same values through both ways of computing.
    narrow = soft_product(left, right, 0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_WIDEST_SPAN", 0.0)
        torch.testing.assert_close(soft_product(left, right, 0.01), narrow, rtol=0, atol=1e-14)


def test_sum_bounds_the_flow_and_hard_associates() -> None:
    a, b, c = (_random(seed, (1, 5, 5), None, torch.float64) for seed in range(3))
    assert torch.equal(hard_product(hard_product(a, b), c), hard_product(a, hard_product(b, c)))
    assert not torch.equal(sum_product(sum_product(a, b), c), sum_product(a, sum_product(b, c)))
    assert bool((sum_product(a, b) >= hard_product(a, b)).all())


def test_leading_axes_broadcast_and_dtypes_promote() -> None:
    left, right = _random(0, (2, 1, 3, 4), None), _random(1, (5, 4, 2), None).double()
    out = hard_product(left, right)
    assert out.shape == (2, 5, 3, 2)
    assert out.dtype == torch.float64
    assert torch.equal(out, hard_definition(left.double().expand(2, 5, 3, 4), right.expand(2, 5, 4, 2)))
    assert hard_product(LEFT.bfloat16(), RIGHT.bfloat16()).dtype == torch.bfloat16


def test_threads_give_the_same_result() -> None:
    left, right = _random(0, (64, 40, 30), None), _random(1, (64, 30, 40), None)
    once = [path_product(left, right, kind, 0.01) for kind in ("hard", "sum", "soft")]
    torch.set_num_threads(3)
    try:
        again = [path_product(left, right, kind, 0.01) for kind in ("hard", "sum", "soft")]
    finally:
        torch.set_num_threads(1)
    for one, other in zip(once, again, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "left, right, message",
    [
        (torch.rand(2, 3), torch.rand(2, 3), r"one k; got \(2, 3\) and \(2, 3\)"),
        (torch.tensor([[float("nan")]]), torch.rand(1, 1), "left: expected finite weights; 1 of 1"),
        (torch.rand(1, 1), torch.tensor([[float("inf")]]), "right: expected finite weights"),
        (torch.ones(1, 1, dtype=torch.int64), torch.rand(1, 1), "non-empty floating"),
        (torch.rand(1, 0), torch.rand(0, 1), "non-empty floating"),
        (torch.rand(2, 1, 1), torch.rand(3, 1, 1), "leading axes that broadcast"),
    ],
)
def test_bad_operands_are_named(left: torch.Tensor, right: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hard_product(left, right)


def test_bad_options_are_named() -> None:
    with pytest.raises(InputError, match="tau: expected a positive"):
        soft_product(LEFT, RIGHT, 0.0)
    with pytest.raises(InputError, match="'hard', 'soft' or 'sum'"):
        path_product(LEFT, RIGHT, "mean")  # type: ignore[arg-type]
