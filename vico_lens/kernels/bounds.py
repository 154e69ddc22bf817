"""Bounds of the exact flow without a solver: one good path and greedy pushing from below, (+, min) products from above.

All are a few passes over the blocks. Together they are a bracket, and where its ends meet the flow is known. The upper bound
and the widest path are differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.layered import Block, LayeredGraph
from vico_lens.kernels.products import ProductKind, path_product

__all__ = ["bracket", "greedy_flow", "reach_from_sinks", "reach_from_sources", "sum_min_bound", "widest_path"]


def _forward(block: Block, values: Tensor, kind: ProductKind) -> Tensor:
    """One hop from sources ``[source, node]`` through a block, to ``[source, group, target]``."""
    here = block.gather_sources(values).movedim(0, 1)
    # A supply without bound is any number that no edge can carry.
    here = torch.where(torch.isinf(here), 2 * block.capacity.detach().amax() + 1, here)
    return path_product(here, block.capacity, kind).movedim(1, 0)


def widest_path(graph: LayeredGraph, sources: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Capacity of the widest single path from each source to each output video token, ``[source, video token]``.

    A path's capacity is its smallest edge, so this is a lower bound of the flow to that token. Differentiable.

    Examples
    --------
    >>> from vico_lens.kernels.stages import Stage
    >>> cross = Stage("cross", "attn2", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]))
    >>> time = Stage("temporal", "motion", 1, (2, 1, 1), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]))
    >>> widest_path(LayeredGraph.from_stages([cross, time], residual="add"))
    tensor([[0.9000, 0.5000],
            [0.4000, 0.8000]])
    """
    supply = graph.supply(sources)
    width = supply[0]
    for link, injected in zip(graph.links, supply[1:], strict=True):
        arrived = link.join([_forward(block, width, "hard") for block in link.blocks])
        width = torch.maximum(arrived, injected) if link.injection is not None else arrived
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


def greedy_flow(
    graph: LayeredGraph, sources: Sequence[Sequence[int]] | None = None, sinks: str | Tensor = "video", *, rounds: int = 2
) -> Tensor:
    """Certified lower bound of the flow, ``[source, sink]``, from `rounds` of greedy pushing; not differentiable.

    Each round pushes down once, every node splitting its flow in proportion to what each edge can still deliver. No flow is ever
    undone, so some rounds (about 4) reach a plateau below the exact flow.
    """
    if rounds < 1:
        raise InputError(f"rounds: expected at least 1; got {rounds}.")
    with torch.no_grad():
        supply, sink = graph.supply(sources), graph.sink(sinks)
        if rounds == 1:
            return torch.cat([push_once(graph, supply, row[None])[0] for row in sink], 1)
        single = [[levels[s : s + 1] for levels in supply] for s in range(len(supply[0]))]
        return torch.stack([torch.stack([_push_rounds(graph, levels, row, rounds) for row in sink]) for levels in single])


def _useful(block: Block, reach: Tensor) -> Tensor:
    """What each edge can carry that can also go on from its target, given what targets can deliver, ``[1, node]``."""
    return torch.minimum(block.capacity, block.gather_targets(reach)[0, :, None, :])


def _reach_one(graph: LayeredGraph, sink: Tensor) -> list[Tensor]:
    """`reach_from_sinks` for a single sink, without the transposed copies that many sinks are worth."""
    levels = [sink]
    for link in reversed(graph.links):
        levels.insert(0, link.join([_useful(block, levels[0]).sum(-1)[None] for block in link.blocks]))
    return levels


def push_once(graph: LayeredGraph, supply: Sequence[Tensor], sink: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One greedy round of every source to one sink ``[1, node]``: the delivered flow ``[source, 1]``, and `reach_from_sinks`."""
    reach = _reach_one(graph, sink)
    held = torch.minimum(supply[0], reach[0])
    for level, link in enumerate(graph.links):
        share = _share(held, reach[level])
        moved = []
        for block in link.blocks:
            useful = _useful(block, reach[level + 1])
            moved.append(torch.matmul(block.gather_sources(share).movedim(0, 1), useful).movedim(1, 0))
        arrived = link.join(moved)
        held = arrived + torch.minimum(supply[level + 1], (reach[level + 1] - arrived).clamp(min=0))
    return torch.minimum(held, sink).sum(1, keepdim=True), reach


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, at most 1, and 0 where there is nothing to divide."""
    return torch.where(whole > 0, part / whole.clamp(min=torch.finfo(part.dtype).tiny), 0.0).clamp(max=1)


def _push_rounds(graph: LayeredGraph, supply: list[Tensor], sink: Tensor, rounds: int) -> Tensor:
    """Several rounds of one source to one sink, on what the rounds before have left."""
    left, supply = graph, list(supply)
    total = sink.new_zeros(())
    for _ in range(rounds):
        reach = _reach_one(left, sink[None])
        entered = [torch.minimum(supply[0], reach[0])]
        held = [entered[0]]
        flows: list[list[Tensor]] = []
        for level, link in enumerate(left.links):
            share = _share(held[level], reach[level])
            flows.append([_useful(block, reach[level + 1]) * block.gather_sources(share)[0, :, :, None] for block in link.blocks])
            arrived = link.join([flow.sum(1)[None] for flow in flows[level]])
            entered.append(torch.minimum(supply[level + 1], (reach[level + 1] - arrived).clamp(min=0)))
            held.append(arrived + entered[-1])
        out = torch.minimum(held[-1][0], sink)
        total, sink = total + out.sum(), sink - out
        # Nodes may hold more than they could pass on: take back what did not arrive, from the sink upwards.
        kept = _share(out[None], held[-1])
        supply[-1] = (supply[-1] - entered[-1] * kept).clamp(min=0)
        for level in reversed(range(len(left.links))):
            link = left.links[level]
            flows[level] = [
                flow * block.gather_targets(kept)[0, :, None, :] for block, flow in zip(link.blocks, flows[level], strict=True)
            ]
            kept = _share(link.join([flow.sum(2)[None] for flow in flows[level]]), held[level])
            supply[level] = (supply[level] - entered[level] * kept).clamp(min=0)
        left = left.less(flows)
    return total


def bracket(
    graph: LayeredGraph, sources: Sequence[Sequence[int]] | None = None, sinks: str | Tensor = "video", *, rounds: int = 2
) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of the exact flow, each ``[source, sink]``: `greedy_flow` and `sum_min_bound`, in float64."""
    exact = graph.to(torch.float64)
    with torch.no_grad():
        return greedy_flow(exact, sources, sinks, rounds=rounds), sum_min_bound(exact, sources, sinks)
