"""Products of matrices in bfloat16 while training on a CPU.

CPUs with AMX take products of bfloat16 matrices six to ten times as fast as float32 ones. Two things must be kept from eating the
gain. The backward pass of the fused attention kernel is twice as slow in bfloat16 as in float32 (torch 2.13), so attention is
written out. Everything else stays in float32: weights, their averages, the optimisers' state, norms and the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["products_in"]


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Take the products of a forward pass in ``"float32"`` (changes nothing) or ``"bfloat16"``."""
    if precision == "float32":
        yield
        return
    functional: Any = torch.nn.functional
    fused = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _attention
    try:
        with torch.autocast("cpu", dtype=getattr(torch, precision)):
            yield
    finally:
        functional.scaled_dot_product_attention = fused


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    """Attention over ``[..., token, channel]`` in three operations, for the calls that the trained architectures make."""
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    if attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value
