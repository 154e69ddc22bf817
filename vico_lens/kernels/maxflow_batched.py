"""Exact flows in plain torch: push-relabel on many flows of one graph at once, a level at a time. For CUDA tensors.

The compiled solver visits one node after another; here a whole level of all flows moves together. A node's excess fills its
admissible edges in their order, which a cumulative sum does without a loop, and labels rise to one above the lowest neighbour
with room. The levels alternate, so no two neighbours push at each other at the same time. The values, and the cut nearest to
the sink, are unique, so both solvers agree on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vico_lens.errors import AttributionError
from vico_lens.kernels.certificate import CLOSED, FINEST
from vico_lens.kernels.layered import Block, LayeredGraph, Link

__all__ = ["solve_batched"]

_FAR = 1 << 30

# Elements of all flow tensors of one batch together; the temporaries of one block come on top.
_BATCH = 1 << 27

_SWEEPS_BETWEEN_RELABELLINGS = 4

Receive = Callable[[int, int, float, Tensor, Tensor], None]


def solve_batched(
    graph: LayeredGraph, supply: Sequence[Tensor], sink: Tensor, flows: Sequence[tuple[int, int]], receive: Receive
) -> None:
    """Solve the `flows` (source, sink), as many at once as memory allows, and hand each to `receive`.

    `receive` gets source, sink, value, the cut by place, and the sides (True: source side). It is called between batches, so
    what it raises stops the run there.
    """
    edges = sum(block.capacity.numel() for link in graph.links for block in link.blocks)
    size = max(1, _BATCH // edges)
    for first in range(0, len(flows), size):
        part = flows[first : first + size]
        rows, columns = ([flow[axis] for flow in part] for axis in range(2))
        batch = _Batch(graph, [level[rows] for level in supply], sink[columns])
        batch.run()
        values, locations, sides = batch.value, batch.location(), batch.sides()
        for at, (source, target) in enumerate(part):
            receive(source, target, values[at].item(), locations[at], sides[at])


class _Batch:
    """State of a batch of flows: for each block the flow on its edges, for each level excess and labels."""

    def __init__(self, graph: LayeredGraph, supply: list[Tensor], sink: Tensor) -> None:
        self.graph, self.supply, self.sink = graph, supply, sink
        count = len(sink)
        self.flow = [[block.capacity.new_zeros(count, *block.capacity.shape) for block in link.blocks] for link in graph.links]
        self.excess = [level.clone() for level in supply]
        self.arrived = torch.zeros_like(sink)
        self.label = [torch.full(level.shape, _FAR, dtype=torch.int32, device=level.device) for level in supply]
        finite = torch.cat([torch.where(torch.isinf(level), 0.0, level) for level in supply], 1).sum(1)
        # An unbounded supply cannot deliver more than the sink takes.
        unbounded = torch.cat([torch.isinf(level) for level in supply], 1).any(1)
        bound = torch.where(unbounded, sink.sum(1), torch.minimum(finite, sink.sum(1)))
        self.tolerance = (1e-13 * bound / sum(graph.widths))[:, None]

    @property
    def value(self) -> Tensor:
        """Flow that has reached the sink, ``[flow]``."""
        return self.arrived.sum(1)

    def sides(self) -> Tensor:
        """``[flow, node]``, True where a node cannot reach the sink any more."""
        return torch.cat(self.label, 1) >= _FAR

    def location(self) -> Tensor:
        """The cut by place, ``[flow, place]``."""
        sides = [label >= _FAR for label in self.label]
        places = [torch.where(self.sides(), 0.0, torch.cat(self.supply, 1)).sum(1)]
        for level, link in enumerate(self.graph.links):
            above, below = sides[level].to(self.sink), (~sides[level + 1]).to(self.sink)
            crossing = self.sink.new_zeros(len(self.sink))
            for block in link.blocks:
                reached = torch.matmul(block.gather_sources(above)[:, :, None, :], block.capacity)[:, :, 0]
                crossing = crossing + (reached * block.gather_targets(below)).flatten(1).sum(1)
            places.append(crossing)
        places.append(torch.where(sides[-1], self.sink, 0.0).sum(1))
        return torch.stack(places, 1)

    def run(self) -> None:
        """Sweep over the levels until no excess can move, and again with a finer tolerance where the cut is not met yet."""
        while True:
            self._sweep()
            cut = self.location().sum(1)[:, None]
            open_flows = (cut - self.value[:, None] > CLOSED * cut) & (self.tolerance > FINEST)
            if not bool(open_flows.any()):
                return
            finer = torch.minimum(self.tolerance / 1000, 1e-11 * cut / sum(self.graph.widths))
            self.tolerance = torch.where(open_flows, finer, self.tolerance)

    def _sweep(self) -> None:
        nodes = sum(self.graph.widths)
        self._relabel_all()
        for sweep in range(1, 64 * nodes):
            active = False
            for level in range(len(self.excess)):
                active |= self._discharge(level)
            if not active:
                self._relabel_all()
                return
            if sweep % _SWEEPS_BETWEEN_RELABELLINGS == 0:
                self._relabel_all()
        raise AttributionError(f"expected push-relabel to end; it still moves after {64 * nodes} sweeps. Use solver='compiled'.")

    def _active(self, level: int) -> Tensor:
        return (self.excess[level] > self.tolerance) & (self.label[level] < _FAR)

    def _discharge(self, level: int) -> bool:
        """Push what a level's nodes hold along admissible edges, then raise the labels of those that still hold some."""
        active = self._active(level)
        if not bool(active.any()):
            return False
        held = torch.where(active, self.excess[level], 0.0)
        if level == len(self.graph.links):
            room = self.sink - self.arrived
            full = held >= room
            self.arrived = torch.where(full, self.sink, self.arrived + held)
            held = torch.where(full, held - room, 0.0)
        else:
            held = self._push_down(level, held)
        if level > 0:
            held = self._push_up(level, held)
        self.excess[level] = torch.where(active, held, self.excess[level])
        stuck = self._active(level)
        raised = torch.maximum(self.label[level], self._lowest(level))
        self.label[level] = torch.where(stuck, raised, self.label[level])
        return True

    def _push_down(self, level: int, held: Tensor) -> Tensor:
        remaining, arrived = [], []
        for block, flow in zip(self.graph.links[level].blocks, self.flow[level], strict=True):
            here, below = block.gather_sources(self.label[level]), block.gather_targets(self.label[level + 1])
            admissible = here[..., :, None] == below[..., None, :] + 1
            room = torch.where(admissible, block.capacity - flow, 0.0)
            moved, left = _fill(room, block.gather_sources(held))
            # A full edge is full exactly: rounding must not leave a trace of room.
            flow.copy_(torch.where((moved == room) & admissible, block.capacity, flow + moved))
            remaining.append(left)
            arrived.append(moved.sum(-2))
        link = self.graph.links[level]
        self.excess[level + 1] = self.excess[level + 1] + link.join(arrived)
        return link.join(remaining)

    def _push_up(self, level: int, held: Tensor) -> Tensor:
        remaining, arrived = [], []
        link = self.graph.links[level - 1]
        for block, flow in zip(link.blocks, self.flow[level - 1], strict=True):
            here, above = block.gather_targets(self.label[level]), block.gather_sources(self.label[level - 1])
            admissible = here[..., :, None] == above[..., None, :] + 1
            room = torch.where(admissible, flow.mT, 0.0)
            moved, left = _fill(room, block.gather_targets(held))
            flow.copy_(torch.where((moved == room) & admissible, 0.0, flow.mT - moved).mT)
            remaining.append(left)
            arrived.append(moved.sum(-2))
        self.excess[level - 1] = self.excess[level - 1] + link.join(arrived)
        return link.join(remaining)

    def _lowest(self, level: int) -> Tensor:
        """One above the lowest residual neighbour of every node of a level, `_FAR` without any."""
        lowest = torch.full_like(self.label[level], _FAR)
        if level == len(self.graph.links):
            lowest = torch.where(self.arrived < self.sink, 1, lowest)
        else:
            lowest = torch.minimum(lowest, self._below(level))
        return torch.minimum(lowest, self._above(level)) if level > 0 else lowest

    def _below(self, level: int) -> Tensor:
        link = self.graph.links[level]
        return link.join(
            [_nearest(room, block.gather_targets(self.label[level + 1])) for block, room in self._room_down(link, level)]
        )

    def _above(self, level: int) -> Tensor:
        link, flows = self.graph.links[level - 1], self.flow[level - 1]
        parts = zip(link.blocks, flows, strict=True)
        return link.join([_nearest(flow.mT > 0, block.gather_sources(self.label[level - 1])) for block, flow in parts])

    def _room_down(self, link: Link, level: int) -> Iterator[tuple[Block, Tensor]]:
        for block, flow in zip(link.blocks, self.flow[level], strict=True):
            yield block, flow < block.capacity

    def _relabel_all(self) -> None:
        """Exact distances to the sink in the residual graph: relax upwards, then downwards, until nothing changes."""
        for label in self.label:
            label.fill_(_FAR)
        last = len(self.graph.links)
        self.label[last] = torch.where(self.arrived < self.sink, 1, self.label[last])
        changed = True
        while changed:
            for level in reversed(range(last)):
                self.label[level] = torch.minimum(self.label[level], self._below(level))
            changed = False
            for level in range(1, last + 1):
                nearer = torch.minimum(self.label[level], self._above(level))
                changed |= bool((nearer < self.label[level]).any())
                self.label[level] = nearer


def _fill(room: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Fill edges ``[.., node, edge]`` in order with what each node holds: the amounts, and what is left."""
    total = torch.cumsum(room, -1)
    # Shifted, not `total - room`: beside a wide edge that difference forgets a narrow one, and fills it for nothing.
    before = functional.pad(total[..., :-1], (1, 0))
    moved = torch.minimum((held[..., None] - before).clamp(min=0), room)
    return moved, torch.where(held < total[..., -1], 0.0, (held - moved.sum(-1)).clamp(min=0))


def _nearest(open_edges: Tensor, label: Tensor) -> Tensor:
    """One above the lowest label at the far end of each node's open edges ``[.., node, edge]``."""
    return torch.where(open_edges, label[..., None, :], _FAR - 1).amin(-1) + 1
