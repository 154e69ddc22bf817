"""Attention rollout: capacities multiplied along paths and added over them (Abnar & Zuidema, arXiv 2005.00928)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vico_lens.kernels.layered import LayeredGraph

__all__ = ["rollout"]


def rollout(graph: LayeredGraph, sources: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Sum over all paths from each source to each output video token of the product of their capacities.

    Parameters
    ----------
    graph : LayeredGraph
        With ``residual="share"`` the values of all text tokens at one video token add up to at most 1.
    sources : sequence of sequence of int, optional
        Tokens of each source; their rollouts add. Every token by default.

    Returns
    -------
    Tensor
        ``[source, video token]``, video tokens frame-major. Differentiable.

    Examples
    --------
    >>> from vico_lens.kernels.stages import Stage
    >>> cross = Stage("cross", "attn2", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]))
    >>> time = Stage("temporal", "motion", 1, (2, 1, 1), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]))
    >>> rollout(LayeredGraph.from_stages([cross, time]))
    tensor([[0.3800, 0.1875],
            [0.1200, 0.3125]])
    """
    supply = graph.supply(sources, at_text=1.0)
    mass = supply[0]
    for link, injected in zip(graph.links, supply[1:], strict=True):
        moved = [torch.matmul(block.gather_sources(mass).movedim(0, 1), block.capacity).movedim(1, 0) for block in link.blocks]
        mass = link.join(moved) + injected
    return mass[:, graph.text :]
