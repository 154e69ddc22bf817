"""The attention of ``torch.nn.MultiheadAttention``, taken from its inputs and weights.

Under a function mode this module leaves its fast path, which changes its result in the last bits, and what it calls then is
hidden behind one function. So it runs with function modes off, as it does without a trace, and its query and key are projected
once more for the record. The layer of ``torch.nn.TransformerEncoder``, which has a fast path of its own, is treated alike.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

__all__ = ["FUSED", "Projected", "encoder_call", "projected"]

FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Modules that must not see a function mode."""

Projected = tuple[Tensor, Tensor, Tensor | None, float]
"""Query and key ``[batch, head, token, channel]``, additive mask or None, and scale."""


def projected(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Projected:
    """Project query and key of one call as the module does.

    Parameters
    ----------
    module : nn.MultiheadAttention
        The module.
    args, kwargs : tuple, mapping
        What its forward was called with.

    Examples
    --------
    >>> module, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(3, 5, 8)
    >>> query, key, mask, scale = projected(module, (x, x, x), {})
    >>> tuple(query.shape), mask is None, scale
    ((3, 2, 5, 4), True, 0.5)
    """
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    query, key = (_batched(module, given[name]) for name in ("query", "key"))
    if module._qkv_same_embed_dim:
        query_weight, key_weight, _ = module.in_proj_weight.chunk(3)
    else:
        query_weight, key_weight = module.q_proj_weight, module.k_proj_weight
    query_bias, key_bias = (None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)[:2]
    query, key = linear(query, query_weight, query_bias), linear(key, key_weight, key_bias)
    batch, heads, added = query.shape[0], module.num_heads, 0
    if module.bias_k is not None:
        key, added = torch.cat([key, module.bias_k.expand(batch, -1, -1)], 1), 1
    if module.add_zero_attn:
        key, added = torch.cat([key, key.new_zeros(batch, 1, key.shape[-1])], 1), added + 1
    mask = None
    for name in ("attn_mask", "key_padding_mask"):
        part = given.get(name)
        if part is None:
            continue
        if part.dtype == torch.bool:  # True hides a key here
            part = torch.zeros(part.shape, dtype=query.dtype, device=part.device).masked_fill(part, -torch.inf)
        if name == "key_padding_mask":
            part = part.reshape(batch, 1, 1, -1)
        elif part.ndim == 3:
            part = part.reshape(batch, heads, *part.shape[1:])
        part = nn.functional.pad(part, (0, added))
        mask = part if mask is None else mask + part
    query, key = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key))
    if mask is not None:
        mask = mask[(None,) * (4 - mask.ndim)]
    return query, key, mask, 1 / math.sqrt(query.shape[-1])


def encoder_call(layer: nn.TransformerEncoderLayer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Projected:
    """Project query and key of an encoder layer that ran as one fused kernel."""
    given = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
    source = given["src"]
    if layer.norm_first:
        source = layer.norm1(source)
    masks = {"attn_mask": given.get("src_mask"), "key_padding_mask": given.get("src_key_padding_mask")}
    return projected(layer.self_attn, (source, source, source), masks)


def _batched(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Bring an input to ``[batch, token, channel]``."""
    if x.ndim == 2:
        return x[None]
    return x if module.batch_first else x.transpose(0, 1)
