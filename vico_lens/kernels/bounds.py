"""Bounds of the exact flow without a solver: one good path and greedy pushing from below, (+, min) products from above.

All are a few passes over the blocks (greedy pushing has its own module). Together they are a bracket, and where its ends meet the
flow is known. The upper bound and the widest path are differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vico_lens.kernels.greedy import greedy_flow
from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.levels import Levels
from vico_lens.kernels.products import path_product

__all__ = ["bracket", "reach_from_sinks", "reach_from_sources", "sum_min_bound", "upper_of", "widest_path"]


def widest_path(graph: Levels, sources: Sequence[Sequence[int]] | None = None) -> Tensor:
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
    chosen = graph.chosen(sources)
    width = graph.start(chosen, at_text=torch.inf)
    for link in graph.links:
        arrived, injected = link.widest(width), link.injected(chosen, "max")
        width = arrived if injected is None else torch.maximum(arrived, injected)
    return width[:, graph.text :]


def reach_from_sources(graph: Levels, supply: Sequence[Tensor]) -> list[Tensor]:
    """Upper bound of what each node can receive, a ``[source, node]`` for each level: (+, min) chained from the sources."""
    levels = [supply[0]]
    for link, injected in zip(graph.links, supply[1:], strict=True):
        levels.append(link.narrow_sum(levels[-1]) + injected)
    return levels


def reach_from_sinks(graph: Levels, sink: Tensor) -> list[Tensor]:
    """Upper bound of what each node can deliver, a ``[sink, node]`` for each level: (+, min) chained from the sinks."""
    levels = [sink]
    for link in reversed(graph.links):
        levels.insert(0, link.narrow_sum(levels[0], back=True))
    return levels


def sum_min_bound(graph: Levels, sources: Sequence[Sequence[int]] | None = None, sinks: str | Tensor = "video") -> Tensor:
    """Certified upper bound of the flow from each source to each sink, ``[source, sink]``; differentiable.

    At every level, what nodes can receive meets what they can deliver, plus all that is injected further down; the smallest
    over the levels is the bound. The first level is the chain from the sink, the last the chain from the source.
    """
    supply = graph.supply(sources)
    return upper_of(supply, reach_from_sources(graph, supply), reach_from_sinks(graph, graph.sink(sinks)))


def upper_of(supply: Sequence[Tensor], received: Sequence[Tensor], delivered: Sequence[Tensor]) -> Tensor:
    """`sum_min_bound`, given what nodes of each level are supplied, receive and deliver."""
    bounds = []
    later = supply[0].new_zeros(())
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
