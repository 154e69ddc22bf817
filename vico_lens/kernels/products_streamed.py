"""The three path products in plain torch, a block of rows at a time: what runs where the compiled loops cannot (CUDA tensors).

Each block materialises ``[batch, rows, k, j]`` for as many rows as fit `BLOCK` elements, so memory stays bounded whatever the
sizes; the work is a handful of fused element-wise launches, which on a GPU is bound by memory traffic, not by arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["BLOCK", "hard_backward", "hard_forward", "soft_backward", "soft_forward", "sum_backward", "sum_forward"]

BLOCK = 1 << 24
"""Elements of the largest temporary; 64 MiB in float32."""


def _blocks(left: Tensor, right: Tensor) -> Iterator[slice]:
    rows = max(1, BLOCK // (left.shape[0] * right.shape[1] * right.shape[2]))
    for first in range(0, left.shape[1], rows):
        yield slice(first, first + rows)


def _pairs(left: Tensor, right: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    return left[:, rows, :, None], right[:, None, :, :]


def hard_forward(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Value and first maximising k of ``max_k min(left, right)``."""
    parts = [torch.minimum(*_pairs(left, right, rows)).max(dim=2) for rows in _blocks(left, right)]
    return torch.cat([part.values for part in parts], 1), torch.cat([part.indices for part in parts], 1)


def hard_backward(left: Tensor, right: Tensor, index: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient to the smaller of each pair at its index; half and half on a tie."""
    a, c = left.gather(2, index), right.gather(1, index)
    share = torch.where(a < c, 1.0, torch.where(a == c, 0.5, 0.0)).to(grad.dtype)
    grad_left = torch.zeros_like(left).scatter_add_(2, index, grad * share)
    grad_right = torch.zeros_like(right).scatter_add_(1, index, grad * (1 - share))
    return grad_left, grad_right


def sum_forward(left: Tensor, right: Tensor) -> Tensor:
    """``sum_k min(left, right)``; the order of the additions is torch's own."""
    return torch.cat([torch.minimum(*_pairs(left, right, rows)).sum(2) for rows in _blocks(left, right)], 1)


def sum_backward(left: Tensor, right: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of every pair to its smaller member; half and half on a tie."""
    grad_left, grad_right = torch.empty_like(left), torch.zeros_like(right)
    for rows in _blocks(left, right):
        a, c = _pairs(left, right, rows)
        passed = grad[:, rows, None, :]
        kept = passed * torch.where(a < c, 1.0, torch.where(a == c, 0.5, 0.0)).to(grad.dtype)
        grad_left[:, rows] = kept.sum(3)
        grad_right += (passed - kept).sum(1)
    return grad_left, grad_right


def _soft_pairs(left: Tensor, right: Tensor, rows: slice, tau: float) -> Tensor:
    """Soft minimum of every pair, in units of `tau`."""
    a, c = _pairs(left, right, rows)
    return torch.minimum(a, c) / tau - torch.log1p(torch.exp(-(a - c).abs() / tau))


def soft_forward(left: Tensor, right: Tensor, tau: float) -> Tensor:
    """``tau * logsumexp_k softmin(left, right)``, stable for any `tau`."""
    return torch.cat([tau * torch.logsumexp(_soft_pairs(left, right, rows, tau), 2) for rows in _blocks(left, right)], 1)


def soft_backward(left: Tensor, right: Tensor, tau: float, out: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Recompute each block's weights from the saved output and share them inside the pairs."""
    grad_left, grad_right = torch.empty_like(left), torch.zeros_like(right)
    for rows in _blocks(left, right):
        a, c = _pairs(left, right, rows)
        weight = grad[:, rows, None, :] * torch.exp(_soft_pairs(left, right, rows, tau) - out[:, rows, None, :] / tau)
        kept = weight * torch.sigmoid((c - a) / tau)
        grad_left[:, rows] = kept.sum(3)
        grad_right += (weight - kept).sum(1)
    return grad_left, grad_right
