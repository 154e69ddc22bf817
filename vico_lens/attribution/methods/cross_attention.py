"""Cross-attention: how much each video token reads a concept, averaged over layers; what DAAM shows (arXiv 2210.04885)."""

from __future__ import annotations

import torch
from torch import Tensor

from vico_lens.attribution.base import Problem, register_method
from vico_lens.kernels.stages import Stage

__all__ = ["cross_attention", "video_reads_text"]


def video_reads_text(stage: Stage) -> Tensor:
    """Weights of text in the rows of video tokens: ``[frame, position, token]`` of a cross or joint stage."""
    if stage.kind == "cross":
        return stage.weights
    frames, rows, columns = stage.grid
    return stage.weights[stage.tokens :, : stage.tokens].reshape(frames, rows * columns, stage.tokens)


def concept_columns(reads: Tensor, tokens: tuple[tuple[int, ...], ...]) -> Tensor:
    """Sum the columns of each concept's tokens: ``[.., token]`` to ``[.., concept]``."""
    return torch.stack([reads[..., list(span)].sum(-1) for span in tokens], -1)


@register_method(
    "cross_attention",
    exact=True,
    differentiable=True,
    cost="O(L N K): sums of stored weights",
    reads=("cross", "joint"),
    references="arXiv 2210.04885",
)
def cross_attention(problem: Problem) -> Tensor:
    """Attention weight of a concept's tokens at each video token, averaged over layers."""
    reads = [concept_columns(video_reads_text(stage), problem.tokens) for stage in problem.stages]
    return torch.stack(reads).mean(0).movedim(-1, 0).reshape(len(problem.tokens), *problem.grid)
