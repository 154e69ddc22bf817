"""Captions as token numbers, each tokenized once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Captions"]


class Captions:
    """Turns captions into ``[caption, token]``, padded to the tokenizer's length, and remembers each."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, Tensor] = {}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return int64 ``[caption, token]``."""
        for caption in captions:
            if caption not in self._known:
                self._known[caption] = self.tokenizer(caption, padding="max_length", return_tensors="pt").input_ids[0]
        return torch.stack([self._known[caption] for caption in captions])
