"""Greedy pushing: feasible flows from a few passes over the blocks, without ever undoing one.

A node splits what it holds in proportion to what each of its edges can still deliver to the sink. What arrives is a lower bound
of the flow, and where it meets a cut it is the flow: that settles most flows on real attention before any solver runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.layered import Block, LayeredGraph
from vico_lens.kernels.levels import Levels

__all__ = ["greedy_flow", "push_from", "push_once", "sinks_at_once"]

# Elements of the largest temporary of a batch of sinks, and of the capacities of a batch of flows.
_ONE_BLOCK = 1 << 22
_ALL_BLOCKS = 1 << 24


def greedy_flow(
    graph: LayeredGraph, sources: Sequence[Sequence[int]] | None = None, sinks: str | Tensor = "video", *, rounds: int = 2
) -> Tensor:
    """Certified lower bound of the flow, ``[source, sink]``, from `rounds` of greedy pushing; not differentiable.

    Each round pushes down once on what the rounds before have left. Some rounds (about 4) reach a plateau below the exact flow.
    """
    if rounds < 1:
        raise InputError(f"rounds: expected at least 1; got {rounds}.")
    with torch.no_grad():
        supply, sink = graph.supply(sources), graph.sink(sinks)
        if rounds == 1:
            return torch.cat([push_once(graph, supply, part)[0] for part in torch.split(sink, sinks_at_once(graph))], 1)
        pairs = torch.cartesian_prod(torch.arange(len(supply[0])), torch.arange(len(sink)))
        count = max(1, _ALL_BLOCKS // graph.edges)
        found = [
            _push_rounds(graph, [level[s] for level in supply], sink[k], rounds)
            for s, k in (part.T for part in torch.split(pairs, count))
        ]
        return torch.cat(found).reshape(len(supply[0]), len(sink))


def sinks_at_once(graph: LayeredGraph) -> int:
    """How many sinks `push_once` should be given, so that its temporaries stay some tens of MiB."""
    return max(1, _ONE_BLOCK // max(block.capacity.numel() for link in graph.links for block in link.blocks))


def push_once(graph: Levels, supply: Sequence[Tensor], sink: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One greedy round from every source to every sink at once.

    Parameters
    ----------
    graph : LayeredGraph or OperatorGraph
    supply : sequence of Tensor
        ``[source, node]`` a level.
    sink : Tensor
        ``[sink, node]``.

    Returns
    -------
    Tensor
        Flow delivered, ``[source, sink]``.
    list of Tensor
        Bound of what each node can deliver, ``[sink, node]`` a level.
    """
    reach = [sink]
    for link in reversed(graph.links):
        reach.insert(0, link.narrow_sum(reach[0], back=True))
    return push_from(graph, supply, sink, reach), reach


def push_from(graph: Levels, supply: Sequence[Tensor], sink: Tensor, reach: Sequence[Tensor]) -> Tensor:
    """Flow delivered by one greedy round, ``[source, sink]``, given what each node can deliver, ``[sink, node]`` a level."""
    held = torch.minimum(supply[0][:, None], reach[0])
    for level, link in enumerate(graph.links):
        arrived = link.push(_share(held, reach[level]), reach[level + 1])
        held = arrived + torch.minimum(supply[level + 1][:, None], (reach[level + 1] - arrived).clamp(min=0))
    return torch.minimum(held, sink).sum(-1)


def _useful(block: Block, capacity: Tensor, reach: Tensor) -> Tensor:
    """What each edge can carry that can also go on from its target, given what nodes can deliver, ``[.., node]``."""
    return torch.minimum(capacity, block.gather_targets(reach)[..., None, :])


def _reach(graph: LayeredGraph, capacities: Sequence[Sequence[Tensor]], sink: Tensor) -> list[Tensor]:
    """Bound of what each node can deliver: (+, min) chained from the sink."""
    levels = [sink]
    for link, parts in zip(reversed(graph.links), reversed(capacities), strict=True):
        useful = [_useful(block, capacity, levels[0]).sum(-1) for block, capacity in zip(link.blocks, parts, strict=True)]
        levels.insert(0, link.join(useful))
    return levels


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, at most 1, and 0 where there is nothing to divide."""
    return torch.where(whole > 0, part / whole.clamp(min=torch.finfo(part.dtype).tiny), 0.0).clamp(max=1)


def _push_rounds(graph: LayeredGraph, supply: list[Tensor], sink: Tensor, rounds: int) -> Tensor:
    """Rounds of a batch of flows, each on capacities of its own: supply ``[flow, node]`` a level, sink ``[flow, node]``."""
    left = [[block.capacity for block in link.blocks] for link in graph.links]
    total = sink.new_zeros(len(sink))
    for _ in range(rounds):
        reach = _reach(graph, left, sink)
        entered = [torch.minimum(supply[0], reach[0])]
        held = [entered[0]]
        flows: list[list[Tensor]] = []
        for level, link in enumerate(graph.links):
            share = _share(held[level], reach[level])
            flows.append(
                [
                    _useful(block, capacity, reach[level + 1]) * block.gather_sources(share)[..., None]
                    for block, capacity in zip(link.blocks, left[level], strict=True)
                ]
            )
            arrived = link.join([flow.sum(-2) for flow in flows[level]])
            entered.append(torch.minimum(supply[level + 1], (reach[level + 1] - arrived).clamp(min=0)))
            held.append(arrived + entered[-1])
        out = torch.minimum(held[-1], sink)
        total, sink = total + out.sum(-1), sink - out
        # Nodes may hold more than they could pass on: take back what did not arrive, from the sink upwards.
        kept = _share(out, held[-1])
        supply[-1] = (supply[-1] - entered[-1] * kept).clamp(min=0)
        for level in reversed(range(len(graph.links))):
            link = graph.links[level]
            moved = [
                flow * block.gather_targets(kept)[..., None, :] for block, flow in zip(link.blocks, flows[level], strict=True)
            ]
            left[level] = [(capacity - flow).clamp(min=0) for capacity, flow in zip(left[level], moved, strict=True)]
            kept = _share(link.join([flow.sum(-1) for flow in moved]), held[level])
            supply[level] = (supply[level] - entered[level] * kept).clamp(min=0)
    return total
