"""Compiled loops of the three path products on the CPU: [b, i, k] by [b, k, j] to [b, i, j].

The innermost loop runs along j, which is contiguous in both the right operand and the output, so it becomes vector instructions;
nothing of size i*k*j is ever stored. Each function fills arrays that it is given, for one slice of the batch at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vico_lens.kernels.jit import compiled, compiled_any_order

__all__ = [
    "hard_backward",
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
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = out[b, i]
            row[:] = -np.inf
            for k in range(left.shape[2]):
                a = left[b, i, k]
                column = right[b, k]
                for j in range(row.size):
                    path = a if a < column[j] else column[j]
                    row[j] = path if path > row[j] else row[j]


@compiled
def hard_forward_index(left: Array, right: Array, out: Array, index: Array) -> None:
    """`hard_forward`, and in `index` the first k that attains the maximum."""
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = out[b, i]
            chosen = index[b, i]
            row[:] = -np.inf
            for k in range(left.shape[2]):
                a = left[b, i, k]
                column = right[b, k]
                for j in range(row.size):
                    path = a if a < column[j] else column[j]
                    better = path > row[j]
                    row[j] = path if better else row[j]
                    chosen[j] = k if better else chosen[j]


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


@compiled
def sum_forward(left: Array, right: Array, out: Array) -> None:
    """``out[b,i,j] = sum_k min(left[b,i,k], right[b,k,j])``, added in the order of k."""
    for b in range(left.shape[0]):
        for i in range(left.shape[1]):
            row = out[b, i]
            row[:] = 0
            for k in range(left.shape[2]):
                a = left[b, i, k]
                column = right[b, k]
                for j in range(row.size):
                    row[j] += a if a < column[j] else column[j]


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
                column = right[b, k]
                target = grad_right[b, k]
                for j in range(row.size):
                    c = column[j]
                    target[j] += row[j] if c < a else (half * row[j] if a == c else zero)
                kept = zero
                for j in range(row.size):
                    c = column[j]
                    kept += row[j] if a < c else (half * row[j] if a == c else zero)
                grad_left[b, i, k] = kept


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
        weighted = np.empty(scaled.shape[2])
        for i in range(left.shape[1]):
            row = scaled[b, i]
            for k in range(left.shape[2]):
                a = left[b, i, k]
                column = right[b, k]
                target = grad_right[b, k]
                for j in range(row.size):
                    path = 1.0 / (a + column[j])
                    weight = row[j] * path
                    share = a * path
                    weighted[j] = weight * share
                    target[j] += weight - weighted[j]
                kept = 0.0
                for j in range(row.size):
                    kept += weighted[j]
                grad_left[b, i, k] = kept


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
