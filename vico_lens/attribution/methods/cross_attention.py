"""Cross-attention: how much each video token reads a concept, averaged over layers; what DAAM shows (arXiv 2210.04885)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vico_lens.attribution.base import Problem, register_method
from vico_lens.kernels.stages import Stage

__all__ = ["concept_columns", "cross_attention"]


def concept_columns(stage: Stage, tokens: Sequence[Sequence[int]]) -> Tensor:
    """Weights of each concept's tokens, added, at every video token of a stage that reads text: ``[video token, concept]``."""
    every = sorted({token for span in tokens for token in span})
    columns = stage.text_columns(every)
    return torch.stack([columns[:, [every.index(token) for token in span]].sum(-1) for span in tokens], -1)


@register_method(
    "cross_attention",
    exact=True,
    differentiable=True,
    cost="O(L N T d): exact columns of the concepts, no map",
    reads=("cross", "joint"),
    products=1,
    references="arXiv 2210.04885",
)
def cross_attention(problem: Problem) -> Tensor:
    """Attention weight of a concept's tokens at each video token, averaged over layers."""
    reads = [concept_columns(stage, problem.tokens) for stage in problem.stages]
    return torch.stack(reads).mean(0).T.reshape(len(problem.tokens), *problem.grid)
