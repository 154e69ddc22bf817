"""How the operands of an attention call are changed so that some of its keys count less, or count as others do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.tracing.interception import Operands

__all__ = ["Block", "Cut", "Replacement"]

Replacement = Literal["mask", "padding", "uncond"]


@dataclass(frozen=True, slots=True)
class Block:
    """The part of a call's attention that is changed: some queries, in some entries of the batch, looking at some keys.

    Attributes
    ----------
    batch : Tensor [entry]
        Entries of the batch axis.
    queries : Tensor [query] or None
        None for all.
    columns : Tensor [column]
        Places on the key axis.
    source : tuple of (Tensor, Tensor) or None
        Entries of the batch and places on the key axis whose key and value take the place of these, for ``to="padding"`` and
        ``to="uncond"``.
    """

    batch: Tensor
    queries: Tensor | None
    columns: Tensor
    source: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """What is done to the blocks of a call.

    Attributes
    ----------
    to : str
        ``mask`` takes the columns out of the softmax; ``padding`` and ``uncond`` put other keys and values in their place.
    scale : float or None
        With ``mask``: the columns' weights are multiplied with it before the rows are normalised, in the place of 0.
    heads : tuple of int or None
        None for all.
    """

    to: Replacement = "mask"
    scale: float | None = None
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.to not in ("mask", "padding", "uncond"):
            raise InputError(f"expected to='mask', 'padding' or 'uncond', got {self.to!r}.")
        if self.scale is not None and (self.to != "mask" or not 0 <= self.scale < math.inf):
            raise InputError(f"expected a scale of 0 or more with to='mask', got scale={self.scale!r} with to={self.to!r}.")

    @property
    def changes_nothing(self) -> bool:
        """Whether the attention stays as it is, whatever the blocks."""
        return self.scale == 1 or self.heads == ()

    def fused(self, operands: Operands, blocks: Sequence[Block]) -> Operands:
        """Change the arguments of `scaled_dot_product_attention`."""
        if self.to != "mask":
            return self._exchanged(operands, blocks)
        query, key, mask = operands["query"], operands["key"], operands.get("attn_mask")
        bias = self._bias(blocks, (query.shape[0], query.shape[1], query.shape[2], key.shape[2]), query.device)
        if operands.get("is_causal"):
            lower = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
            bias = bias.masked_fill(~lower, -math.inf)
        if mask is None:
            mask = bias > -math.inf if not self.scale else bias.to(query.dtype)
        elif mask.dtype == torch.bool:
            mask = mask & (bias > -math.inf) if not self.scale else torch.where(mask, bias, -math.inf).to(query.dtype)
        else:
            mask = mask + bias.to(mask.dtype)
        return operands | {"attn_mask": mask, "is_causal": False}

    def logits(self, logits: Tensor, blocks: Sequence[Block], batch: int, heads: int, offset: int) -> Tensor:
        """Change the logits of a softmax that the model computes itself.

        Parameters
        ----------
        logits : Tensor
            ``[batch, head, query, key]``, or some rows of ``[batch * head, query, key]`` from `offset` on.
        blocks : sequence of Block
            What is changed.
        batch, heads, offset : int
            Sizes of the whole call, and where the rows begin.
        """
        if self.to != "mask":
            raise InputError(
                f"expected to='mask' for a model that computes its softmax itself, got to={self.to!r}: keys and values are not "
                "seen there. Use model.set_default_attn_processor(), or to='mask'."
            )
        queries, keys = logits.shape[-2:]
        bias = self._bias(blocks, (batch, heads, queries, keys), logits.device).to(logits.dtype)
        if logits.ndim == 4:
            return logits + bias
        flat = bias.expand(batch, heads, *bias.shape[2:]).reshape(batch * heads, *bias.shape[2:])
        return logits + flat[offset : offset + len(logits)]

    def _bias(self, blocks: Sequence[Block], shape: tuple[int, int, int, int], device: torch.device) -> Tensor:
        """What is added to the logits ``[batch, head, query, key]``, with axes of size 1 where the cut is the same for all."""
        batch, count, queries, keys = shape
        by_query = any(block.queries is not None for block in blocks)
        bias = torch.zeros(batch, 1 if self.heads is None else count, queries if by_query else 1, keys, device=device)
        heads = self._heads(bias.shape[1], device)
        value = -math.inf if not self.scale else math.log(self.scale)
        for block in blocks:
            rows = torch.arange(bias.shape[2], device=device) if block.queries is None else block.queries
            bias[block.batch[:, None, None, None], heads[None, :, None, None], rows[None, None, :, None], block.columns] = value
        return bias

    def _exchanged(self, operands: Operands, blocks: Sequence[Block]) -> Operands:
        """Put keys and values of other columns in the place of the blocks' own."""
        key, value = operands["key"].clone(), operands["value"].clone()
        heads = self._heads(key.shape[1], key.device)
        if self.heads is not None and key.shape[1] != operands["query"].shape[1]:
            raise InputError("expected all heads, or to='mask', for a model whose heads share keys and values.")
        for block in blocks:
            if block.queries is not None:
                raise InputError(
                    f"expected all frames with to={self.to!r} where one call attends to the text from the whole video; cut "
                    "single frames with to='mask'."
                )
            assert block.source is not None  # made with the block
            entries, places = block.source
            index = (block.batch[:, None, None], heads[None, :, None], block.columns)
            other = (entries[:, None, None], heads[None, :, None], places)
            for name, moved in (("key", key), ("value", value)):
                moved[index] = operands[name][other]
        return operands | {"key": key, "value": value}

    def _heads(self, count: int, device: torch.device) -> Tensor:
        if self.heads is None:
            return torch.arange(count, device=device)
        if max(self.heads) >= count or min(self.heads) < 0:
            raise InputError(f"expected heads from 0 to {count - 1} at every site that is cut, got {list(self.heads)}.")
        return torch.tensor(self.heads, device=device)
