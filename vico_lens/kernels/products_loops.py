"""Compiled loops of the three path products on the CPU: [b, i, k] by [b, k, j] to [b, i, j].

The innermost loop runs along j, which is contiguous in both the right operand and the output, so it becomes vector instructions;
nothing of size i*k*j is ever stored. Several k are taken in one pass, so that a row of the output is read and written less often.
Each function fills arrays that it is given, for one slice of the batch at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vico_lens.kernels.jit import compiled, compiled_any_order

__all__ = [
    "hard_backward",
    "hard_backward_few",
    "hard_forward",
    "hard_forward_index",
    "soft_backward",
    "soft_forward",
    "soft_wide_backward",
    "soft_wide_forward",
    "sum_backward",
    "sum_forward",
]

Array = npt.NDArray[Any]


@compiled
def hard_forward(left: Array, right: Array, out: Array) -> None:
    """``out[b,i,j] = max_k min(left[b,i,k], right[b,k,j])``."""
    inner = left.shape[2]
    fours = inner - inner % 4
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = out[b, i]
            row[:] = -np.inf
            for k in range(0, fours, 4):
                a0, a1, a2, a3 = left[b, i, k], left[b, i, k + 1], left[b, i, k + 2], left[b, i, k + 3]
                c0, c1, c2, c3 = right[b, k], right[b, k + 1], right[b, k + 2], right[b, k + 3]
                for j in range(row.size):
                    p0 = a0 if a0 < c0[j] else c0[j]
                    p1 = a1 if a1 < c1[j] else c1[j]
                    p2 = a2 if a2 < c2[j] else c2[j]
                    p3 = a3 if a3 < c3[j] else c3[j]
                    p0 = p0 if p0 > p1 else p1
                    p2 = p2 if p2 > p3 else p3
                    p0 = p0 if p0 > p2 else p2
                    row[j] = p0 if p0 > row[j] else row[j]
            for k in range(fours, inner):
                a = left[b, i, k]
                c = right[b, k]
                for j in range(row.size):
                    path = a if a < c[j] else c[j]
                    row[j] = path if path > row[j] else row[j]


@compiled
def hard_forward_index(left: Array, right: Array, out: Array, index: Array) -> None:
    """`hard_forward`, and in `index` the first k that attains the maximum."""
    inner = left.shape[2]
    twos = inner - inner % 2
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = out[b, i]
            chosen = index[b, i]
            row[:] = -np.inf
            for k in range(0, twos, 2):
                a0, a1 = left[b, i, k], left[b, i, k + 1]
                c0, c1 = right[b, k], right[b, k + 1]
                # As wide as the stored index, or the comparison would not fit the same vector registers.
                k0, k1 = np.int32(k), np.int32(k + 1)
                for j in range(row.size):
                    best, at = row[j], chosen[j]
                    p0 = a0 if a0 < c0[j] else c0[j]
                    p1 = a1 if a1 < c1[j] else c1[j]
                    at = k0 if p0 > best else at
                    best = p0 if p0 > best else best
                    at = k1 if p1 > best else at
                    best = p1 if p1 > best else best
                    row[j], chosen[j] = best, at
            for k in range(twos, inner):
                a = left[b, i, k]
                c = right[b, k]
                for j in range(row.size):
                    path = a if a < c[j] else c[j]
                    chosen[j] = np.int32(k) if path > row[j] else chosen[j]
                    row[j] = path if path > row[j] else row[j]


@compiled
def hard_backward(left: Array, right: Array, index: Array, grad: Array, grad_left: Array, grad_right: Array) -> None:
    """Send each output's gradient to the smaller of the pair at its index; a tie inside the pair gets half and half."""
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            for j in range(right.shape[2]):
                k = index[b, i, j]
                a = left[b, i, k]
                c = right[b, k, j]
                if a < c:
                    grad_left[b, i, k] += grad[b, i, j]
                elif c < a:
                    grad_right[b, k, j] += grad[b, i, j]
                else:
                    half = grad[b, i, j] / 2
                    grad_left[b, i, k] += half
                    grad_right[b, k, j] += half


@compiled_any_order
def hard_backward_few(left: Array, right: Array, index: Array, grad: Array, grad_left: Array, grad_right: Array) -> None:
    """`hard_backward` over every pair instead of the chosen ones: faster while k is small, because it is all vectors."""
    half = grad.dtype.type(0.5)
    zero = grad.dtype.type(0)
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = grad[b, i]
            chosen = index[b, i]
            for k in range(left.shape[2]):
                a = left[b, i, k]
                c = right[b, k]
                target = grad_right[b, k]
                here = np.int32(k)
                total = zero
                for j in range(row.size):
                    passed = row[j] if chosen[j] == here else zero
                    kept = ((half if a < c[j] else zero) + (half if a <= c[j] else zero)) * passed
                    total += kept
                    target[j] += passed - kept
                grad_left[b, i, k] = total


@compiled
def sum_forward(left: Array, right: Array, out: Array) -> None:
    """``out[b,i,j] = sum_k min(left[b,i,k], right[b,k,j])``, added in the order of k."""
    inner = left.shape[2]
    fours = inner - inner % 4
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = out[b, i]
            row[:] = 0
            for k in range(0, fours, 4):
                a0, a1, a2, a3 = left[b, i, k], left[b, i, k + 1], left[b, i, k + 2], left[b, i, k + 3]
                c0, c1, c2, c3 = right[b, k], right[b, k + 1], right[b, k + 2], right[b, k + 3]
                for j in range(row.size):
                    total = row[j]
                    total += a0 if a0 < c0[j] else c0[j]
                    total += a1 if a1 < c1[j] else c1[j]
                    total += a2 if a2 < c2[j] else c2[j]
                    total += a3 if a3 < c3[j] else c3[j]
                    row[j] = total
            for k in range(fours, inner):
                a = left[b, i, k]
                c = right[b, k]
                for j in range(row.size):
                    row[j] += a if a < c[j] else c[j]


@compiled_any_order
def sum_backward(left: Array, right: Array, grad: Array, grad_left: Array, grad_right: Array) -> None:
    """Send the gradient of each pair to its smaller member, half and half on a tie."""
    half = grad.dtype.type(0.5)
    zero = grad.dtype.type(0)
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = grad[b, i]
            for k in range(left.shape[2]):
                a = left[b, i, k]
                c = right[b, k]
                target = grad_right[b, k]
                total = zero
                for j in range(row.size):
                    # 1, 1/2 or 0 of the gradient stays with the left operand, without a branch.
                    kept = ((half if a < c[j] else zero) + (half if a <= c[j] else zero)) * row[j]
                    total += kept
                    target[j] += row[j] - kept
                grad_left[b, i, k] = total


@compiled
def soft_forward(left: Array, right: Array, total: Array) -> None:
    """``total[b,i,j] = sum_k 1 / (left[b,i,k] + right[b,k,j])`` of operands that are exponentials already."""
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = total[b, i]
            row[:] = 0
            for k in range(left.shape[2]):
                a = left[b, i, k]
                column = right[b, k]
                for j in range(row.size):
                    row[j] += 1.0 / (a + column[j])


@compiled_any_order
def soft_backward(left: Array, right: Array, scaled: Array, grad_left: Array, grad_right: Array) -> None:
    """Backward of `soft_forward` and its logarithm: `scaled` is the output's gradient over the total."""
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = scaled[b, i]
            for k in range(left.shape[2]):
                a = left[b, i, k]
                c = right[b, k]
                target = grad_right[b, k]
                total = 0.0
                for j in range(row.size):
                    path = 1.0 / (a + c[j])
                    weight = row[j] * path
                    kept = weight * (a * path)
                    total += kept
                    target[j] += weight - kept
                grad_left[b, i, k] = total


@compiled
def soft_wide_forward(left: Array, right: Array, tau: float, out: Array) -> None:
    """The soft product for values so far apart, in units of `tau`, that their exponentials would overflow.

    `out` holds the hard product on entry: it is the shift that keeps every exponential in range.
    """
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            for j in range(right.shape[2]):
                shift = out[b, i, j]
                total = 0.0
                for k in range(left.shape[2]):
                    a = left[b, i, k]
                    c = right[b, k, j]
                    low = a if a < c else c
                    total += np.exp((low - shift) / tau) / (1.0 + np.exp(-abs(a - c) / tau))
                out[b, i, j] = shift + tau * np.log(total)


@compiled
def soft_wide_backward(
    left: Array, right: Array, tau: float, out: Array, grad: Array, grad_left: Array, grad_right: Array
) -> None:
    """Backward of `soft_wide_forward`; `out` is what it returned."""
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            for k in range(left.shape[2]):
                a = left[b, i, k]
                kept = 0.0
                for j in range(right.shape[2]):
                    c = right[b, k, j]
                    low = a if a < c else c
                    away = np.exp(-abs(a - c) / tau)
                    weight = grad[b, i, j] * np.exp((low - out[b, i, j]) / tau) / (1.0 + away)
                    share = 1.0 / (1.0 + away) if a <= c else away / (1.0 + away)
                    kept += weight * share
                    grad_right[b, k, j] += weight * (1.0 - share)
                grad_left[b, i, k] = kept
