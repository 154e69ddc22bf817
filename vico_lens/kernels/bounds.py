"""Bounds of the exact flow without a solver: one good path and greedy pushing from below, (+, min) products from above.

All are a few passes over the blocks (greedy pushing has its own module). Together they are a bracket, and where its ends meet the
flow is known. The upper bound and the widest path are differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vico_lens.kernels.greedy import greedy_flow
from vico_lens.kernels.layered import Block, LayeredGraph
from vico_lens.kernels.products import ProductKind, path_product

__all__ = ["bracket", "reach_from_sinks", "reach_from_sources", "sum_min_bound", "widest_path"]


def _forward(block: Block, values: Tensor, kind: ProductKind) -> Tensor:
    """One hop from sources ``[source, node]`` through a block, to ``[source, group, target]``."""
    here = block.gather_sources(values).movedim(0, 1)
    # A supply without bound is any number that no edge can carry.
    here = torch.where(torch.isinf(here), 2 * block.capacity.detach().amax() + 1, here)
    return path_product(here, block.capacity, kind).movedim(1, 0)


def widest_path(graph: LayeredGraph, sources: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Capacity of the widest single path from each source to each output video token, ``[source, video token]``.

    A path's capacity is its smallest edge, so this is a lower bound of the flow to that token. A path leaves a source through one
    of its tokens, the widest; where a flow would add them. Differentiable.

    Examples
    --------
    >>> from vico_lens.kernels.stages import Stage
    >>> cross = Stage("cross", "attn2", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]))
    >>> time = Stage("temporal", "motion", 1, (2, 1, 1), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]))
    >>> widest_path(LayeredGraph.from_stages([cross, time], residual="add"))
    tensor([[0.9000, 0.5000],
            [0.4000, 0.8000]])
    """
    chosen = [[token] for token in range(graph.tokens)] if sources is None else sources
    supply = graph.supply(chosen)
    width = supply[0]
    for link, injected in zip(graph.links, supply[1:], strict=True):
        arrived = link.join([_forward(block, width, "hard") for block in link.blocks])
        if link.injection is not None:
            injected = torch.stack([link.injection[list(tokens)].max(0).values for tokens in chosen])
        width = torch.maximum(arrived, injected)
    return width[:, graph.text :]


def reach_from_sources(graph: LayeredGraph, supply: Sequence[Tensor]) -> list[Tensor]:
    """Upper bound of what each node can receive, a ``[source, node]`` for each level: (+, min) chained from the sources."""
    levels = [supply[0]]
    for link, injected in zip(graph.links, supply[1:], strict=True):
        levels.append(link.join([_forward(block, levels[-1], "sum") for block in link.blocks]) + injected)
    return levels


def reach_from_sinks(graph: LayeredGraph, sink: Tensor) -> list[Tensor]:
    """Upper bound of what each node can deliver, a ``[sink, node]`` for each level: (+, min) chained from the sinks."""
    levels = [sink]
    for link in reversed(graph.links):
        parts = [
            path_product(block.gather_targets(levels[0]).movedim(0, 1), block.capacity.mT, "sum").movedim(1, 0)
            for block in link.blocks
        ]
        levels.insert(0, link.join(parts))
    return levels


def sum_min_bound(graph: LayeredGraph, sources: Sequence[Sequence[int]] | None = None, sinks: str | Tensor = "video") -> Tensor:
    """Certified upper bound of the flow from each source to each sink, ``[source, sink]``; differentiable.

    At every level, what nodes can receive meets what they can deliver, plus all that is injected further down; the smallest
    over the levels is the bound. The first level is the chain from the sink, the last the chain from the source.
    """
    supply = graph.supply(sources)
    received = reach_from_sources(graph, supply)
    delivered = reach_from_sinks(graph, graph.sink(sinks))
    bounds = []
    later = graph.like.new_zeros(())
    for level in reversed(range(len(supply))):
        bounds.append(_meet(received[level], delivered[level]) + later)
        later = later + _meet(supply[level], delivered[level])
    return torch.stack(bounds).amin(0)


def _meet(source: Tensor, sink: Tensor) -> Tensor:
    """``sum over nodes of min(source, sink)``, ``[source, sink]``."""
    finite = torch.where(torch.isinf(source), 2 * sink.detach().amax() + 1, source)
    return path_product(finite, sink.mT, "sum")


def bracket(
    graph: LayeredGraph, sources: Sequence[Sequence[int]] | None = None, sinks: str | Tensor = "video", *, rounds: int = 2
) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of the exact flow, each ``[source, sink]``: `greedy_flow` and `sum_min_bound`, in float64."""
    exact = graph.to(torch.float64)
    with torch.no_grad():
        return greedy_flow(exact, sources, sinks, rounds=rounds), sum_min_bound(exact, sources, sinks)
