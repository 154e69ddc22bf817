"""Products along paths: (max, min), its soft form, and (+, min), streamed so that memory is that of the output.

A two-hop path carries the smaller of its two weights. Over all middle nodes k, the *hard* product keeps the best path (the
widest), the *sum* product adds them all (an upper bound of the flow, where hard is a lower one), and the *soft* product of Vico
(arXiv 2407.06182, eq. 6-7) replaces both the minimum and the maximum by log-sum-exp at temperature tau.

Each has its definition beside it, in a few lines that materialise everything; tests hold the fast form equal to it. Hard is
equal bit for bit. Sum is equal bit for bit on the CPU, because both add in the order of k. Ties follow torch: the first
maximising k gets the whole gradient, and a tie inside its pair is split in halves.

CPU tensors run in compiled loops, all others in blocks of plain torch.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vico_lens.errors import InputError
from vico_lens.kernels import products_streamed as streamed

__all__ = [
    "ProductKind",
    "hard_definition",
    "hard_product",
    "path_product",
    "path_product_of_finite",
    "soft_definition",
    "soft_product",
    "sum_definition",
    "sum_product",
]

ProductKind = Literal["hard", "soft", "sum"]

# exp() of a float64 holds up to +-709; the soft product works on exponentials while the values span less than this many taus.
_WIDEST_SPAN = 1300.0

# Up to so many k, visiting every pair in vectors beats following each output's index.
_FEW = 32

# Pairs of numbers below which starting a thread costs more than it saves.
_PAIRS_A_THREAD = 1 << 20


def hard_definition(left: Tensor, right: Tensor) -> Tensor:
    """``out[.., i, j] = max_k min(left[.., i, k], right[.., k, j])``, materialised."""
    return torch.minimum(left[..., :, None, :], right.mT[..., None, :, :]).max(dim=-1).values


def soft_definition(left: Tensor, right: Tensor, tau: float) -> Tensor:
    """The hard definition with both operators softened: ``-tau lse(-x/tau)`` in the pair, ``tau lse(x/tau)`` over k."""
    paths = -tau * torch.logaddexp(-left[..., :, None, :] / tau, -right.mT[..., None, :, :] / tau)
    return tau * torch.logsumexp(paths / tau, dim=-1)


def sum_definition(left: Tensor, right: Tensor) -> Tensor:
    """``out[.., i, j] = sum_k min(left[.., i, k], right[.., k, j])``, materialised and added in the order of k."""
    total, *others = torch.minimum(left[..., :, None, :], right.mT[..., None, :, :]).unbind(-1)
    for path in others:
        total = total + path
    return total


class _Hard(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        if left.device.type == "cpu":
            from vico_lens.kernels import products_loops as loops

            out = left.new_empty(left.shape[0], left.shape[1], right.shape[2])
            if not any(ctx.needs_input_grad):
                _run(loops.hard_forward, left, right, out)
                return out
            index = torch.zeros(out.shape, dtype=torch.int32)
            _run(loops.hard_forward_index, left, right, out, index)
        else:
            out, index = streamed.hard_forward(left, right)
        ctx.save_for_backward(left, right, index)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        left, right, index = ctx.saved_tensors
        if left.device.type != "cpu":
            return streamed.hard_backward(left, right, index, grad)
        from vico_lens.kernels import products_loops as loops

        loop = loops.hard_backward_few if left.shape[-1] <= _FEW else loops.hard_backward
        grad_left, grad_right = torch.zeros_like(left), torch.zeros_like(right)
        _run(loop, left, right, index, grad.contiguous(), grad_left, grad_right)
        return grad_left, grad_right


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        if left.device.type != "cpu":
            return streamed.sum_forward(left, right)
        from vico_lens.kernels import products_loops as loops

        out = left.new_empty(left.shape[0], left.shape[1], right.shape[2])
        _run(loops.sum_forward, left, right, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        left, right = ctx.saved_tensors
        if left.device.type != "cpu":
            return streamed.sum_backward(left, right, grad)
        from vico_lens.kernels import products_loops as loops

        grad_left, grad_right = torch.empty_like(left), torch.zeros_like(right)
        _run(loops.sum_backward, left, right, grad.contiguous(), grad_left, grad_right)
        return grad_left, grad_right


class _Soft(torch.autograd.Function):
    """On the CPU, ``softmin(a, c) = -tau log(e^(-a/tau) + e^(-c/tau))`` turns the whole product into additions and divisions.

    With exponentials of the operands taken once, ``sum_k e^(softmin/tau)`` is ``sum_k 1 / (left + right)`` in float64.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, tau: float) -> Tensor:
        ctx.tau = tau
        if left.device.type != "cpu":
            out = streamed.soft_forward(left, right, tau)
            ctx.save_for_backward(left, right, out)
            return out
        from vico_lens.kernels import products_loops as loops

        lowest = min(left.min().item(), right.min().item())
        highest = max(left.max().item(), right.max().item())
        ctx.narrow = (highest - lowest) / tau <= _WIDEST_SPAN
        out = torch.empty(left.shape[0], left.shape[1], right.shape[2], dtype=torch.float64)
        if ctx.narrow:
            shift = (highest + lowest) / 2
            powers = [torch.exp((shift - operand.double()) / tau) for operand in (left, right)]
            _run(loops.soft_forward, *powers, out)
            ctx.save_for_backward(*powers, out)
            ctx.dtype = left.dtype
            return (shift + tau * out.log()).to(left.dtype)
        _run(loops.hard_forward, left, right, out)
        _run(lambda a, c, o: loops.soft_wide_forward(a, c, tau, o), left, right, out)
        ctx.save_for_backward(left, right, out)
        return out.to(left.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        left, right, out = ctx.saved_tensors
        if left.device.type != "cpu":
            return *streamed.soft_backward(left, right, ctx.tau, out, grad), None
        from vico_lens.kernels import products_loops as loops

        grad_left, grad_right = torch.empty_like(left), torch.zeros_like(right)
        if ctx.narrow:
            _run(loops.soft_backward, left, right, grad.double() / out, grad_left, grad_right)
            return grad_left.to(ctx.dtype), grad_right.to(ctx.dtype), None

        def wide(a: Any, c: Any, o: Any, g: Any, grad_a: Any, grad_c: Any) -> None:
            loops.soft_wide_backward(a, c, ctx.tau, o, g, grad_a, grad_c)

        _run(wide, left, right, out, grad.contiguous(), grad_left, grad_right)
        return grad_left, grad_right, None


def hard_product(left: Tensor, right: Tensor) -> Tensor:
    """Widest two-hop path: ``out[.., i, j] = max_k min(left[.., i, k], right[.., k, j])``.

    Differentiable; equal to `hard_definition` bit for bit, with its gradient (first index at ties). Associative.

    Parameters
    ----------
    left : Tensor
        ``[.., i, k]``, floating, finite.
    right : Tensor
        ``[.., k, j]`` on the same device; leading axes broadcast.

    Returns
    -------
    Tensor
        ``[.., i, j]`` in the operands' common dtype.

    Raises
    ------
    InputError
        If shapes do not match, an operand is empty, not floating or not finite, or the devices differ.

    References
    ----------
    Definition 2 of arXiv 2407.06182.

    Examples
    --------
    >>> left = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])
    >>> right = torch.tensor([[0.7, 0.3], [0.25, 0.75], [0.4, 0.6]])
    >>> hard_product(left, right)
    tensor([[0.5000, 0.3000],
            [0.3000, 0.6000]])
    """
    a, c, shape, dtype = _operands(left, right)
    out: Tensor = _Hard.apply(a, c)  # type: ignore[no-untyped-call]
    return out.reshape(shape).to(dtype)


def sum_product(left: Tensor, right: Tensor) -> Tensor:
    """All two-hop paths together: ``out[.., i, j] = sum_k min(left[.., i, k], right[.., k, j])``.

    The exact flow of a two-hop graph, and an upper bound when chained. Differentiable. Not associative: chained from the source
    or from the sink it is two different bounds, both valid. Parameters, result and errors as in `hard_product`.

    Examples
    --------
    >>> sum_product(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.2], [0.9]]))
    tensor([[0.7000]])
    """
    a, c, shape, dtype = _operands(left, right)
    out: Tensor = _Sum.apply(a, c)  # type: ignore[no-untyped-call]
    return out.reshape(shape).to(dtype)


def soft_product(left: Tensor, right: Tensor, tau: float) -> Tensor:
    """Soft widest path at temperature `tau`; tends to `hard_product` as tau falls.

    Biased: over k equal values v it gives ``v + tau log(k) - tau log(2)``, so tau must be small beside the weights. Not
    associative. Differentiable. Other parameters, result and errors as in `hard_product`; `tau` must be positive.

    References
    ----------
    Equations 6 and 7 of arXiv 2407.06182.

    Examples
    --------
    >>> soft_product(torch.full((1, 2), 0.5), torch.full((2, 1), 0.5), tau=0.01)
    tensor([[0.5000]])
    """
    if not (math.isfinite(tau) and tau > 0):
        raise InputError(f"tau: expected a positive finite temperature; got {tau}. Attention weights call for 0.01 or less.")
    a, c, shape, dtype = _operands(left, right)
    out: Tensor = _Soft.apply(a, c, float(tau))  # type: ignore[no-untyped-call]
    return out.reshape(shape).to(dtype)


def path_product(left: Tensor, right: Tensor, kind: ProductKind, tau: float = 0.001) -> Tensor:
    """One of the three products by its name: ``"hard"``, ``"soft"`` (at `tau`) or ``"sum"``."""
    if kind == "hard":
        return hard_product(left, right)
    if kind == "soft":
        return soft_product(left, right, tau)
    if kind == "sum":
        return sum_product(left, right)
    raise InputError(f"kind: expected 'hard', 'soft' or 'sum'; got {kind!r}.")


def path_product_of_finite(left: Tensor, right: Tensor, kind: ProductKind, tau: float = 0.001) -> Tensor:
    """`path_product` of operands that are finite, contiguous, ``[b, i, k]`` and ``[b, k, j]``, of one dtype: nothing is checked.

    For passes over many blocks on a device, where looking at the numbers would make the host wait for each.
    """
    found: Tensor
    if kind == "hard":
        found = _Hard.apply(left, right)  # type: ignore[no-untyped-call]
    elif kind == "sum":
        found = _Sum.apply(left, right)  # type: ignore[no-untyped-call]
    else:
        found = _Soft.apply(left, right, tau)  # type: ignore[no-untyped-call]
    return found


def _operands(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, torch.Size, torch.dtype]:
    """Check both operands; give them contiguous, ``[b, i, k]`` and ``[b, k, j]``, in float32 or 64, and the result's form."""
    if left.ndim < 2 or right.ndim < 2 or left.shape[-1] != right.shape[-2]:
        raise InputError(f"expected [.., i, k] and [.., k, j] with one k; got {tuple(left.shape)} and {tuple(right.shape)}.")
    if left.device != right.device:
        raise InputError(f"expected both operands on one device; got {left.device} and {right.device}. Move one with .to().")
    for name, operand in (("left", left), ("right", right)):
        if operand.numel() == 0 or not operand.is_floating_point():
            raise InputError(
                f"{name}: expected a non-empty floating tensor; got {operand.dtype} of shape {tuple(operand.shape)}."
            )
        # One sum carries every NaN and infinity; only where it is not finite is each number looked at.
        if not math.isfinite(operand.sum().item()) and not bool(torch.isfinite(operand).all()):
            count = int((~torch.isfinite(operand)).sum())
            raise InputError(f"{name}: expected finite weights; {count} of {operand.numel()} are NaN or infinite. Look upstream.")
    try:
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise InputError(
            f"expected leading axes that broadcast; got {tuple(left.shape[:-2])} and {tuple(right.shape[:-2])}."
        ) from None
    dtype = torch.promote_types(left.dtype, right.dtype)
    work = torch.promote_types(dtype, torch.float32)
    left, right = (x.to(work).expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:]).contiguous() for x in (left, right))
    return left, right, torch.Size((*batch, left.shape[1], right.shape[2])), dtype


def _run(loop: Any, left: Tensor, right: Tensor, *others: Tensor) -> None:
    """Run a compiled loop over the batch, in threads when there is enough of it."""
    from vico_lens.kernels.jit import over_threads

    arrays = [tensor.detach().numpy() for tensor in (left, right, *others)]
    pairs = left.shape[1] * left.shape[2] * right.shape[2]
    over_threads(lambda part: loop(*(array[part] for array in arrays)), left.shape[0], -(-_PAIRS_A_THREAD // pairs))
