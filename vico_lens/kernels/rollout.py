"""Attention rollout: capacities multiplied along paths and added over them (Abnar & Zuidema, arXiv 2005.00928)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vico_lens.kernels.levels import Levels, Passes

__all__ = ["rollout", "rollout_step"]


def rollout(graph: Levels, sources: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Sum over all paths from each source to each output video token of the product of their capacities.

    Parameters
    ----------
    graph : LayeredGraph or OperatorGraph
        With ``residual="share"`` the values of all text tokens at one video token add up to at most 1.
    sources : sequence of sequence of int, optional
        Tokens of each source; their rollouts add. Every token by default.

    Returns
    -------
    Tensor
        ``[source, video token]``, video tokens frame-major. Differentiable.

    Examples
    --------
    >>> import torch
    >>> from vico_lens.kernels.layered import LayeredGraph
    >>> from vico_lens.kernels.stages import Stage
    >>> cross = Stage("cross", "attn2", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]))
    >>> time = Stage("temporal", "motion", 1, (2, 1, 1), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]))
    >>> rollout(LayeredGraph.from_stages([cross, time]))
    tensor([[0.3800, 0.1875],
            [0.1200, 0.3125]])
    """
    chosen = graph.chosen(sources)
    mass = graph.start(chosen, at_text=1.0)
    for link in graph.links:
        mass = rollout_step(link, mass, chosen)
    return mass[:, graph.text :]


def rollout_step(link: Passes, mass: Tensor, sources: Sequence[Sequence[int]]) -> Tensor:
    """Take the mass of some sources ``[source, node]`` through one site, and add what the site injects."""
    arrived, injected = link.carry(mass), link.injected(sources)
    return arrived if injected is None else arrived + injected
