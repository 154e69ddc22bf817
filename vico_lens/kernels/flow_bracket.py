"""A certified bracket of the exact flow at any size, from vectors over nodes alone.

A solver goes back to edges, so it needs the flow on each of them in memory. Here an edge exists only while a pass meets it.

- **Below**: greedy pushing in rounds. What the rounds so far have left of an edge is a function of its capacity and of three
  numbers of its two nodes for each round, so it is computed anew and never stored. The first round is guided by the optimum of
  the contracted graph: of each edge it sees the part that the optimum uses. Every round is a feasible flow by construction.
- **Above**: (+, min) from the sources and from the sinks, which is never above the two trivial cuts; the minimum cut of the
  contracted graph; and that cut made cheaper level by level: given the sides of its neighbours, each node takes the cheaper side.

Sums are taken in float64, so the bracket holds for the capacities as they are computed. Where its ends meet the flow is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.bounds import reach_from_sources, upper_of
from vico_lens.kernels.contracted import cells_of, contracted_flow
from vico_lens.kernels.greedy import push_from
from vico_lens.kernels.operator_graph import Edges, OperatorGraph
from vico_lens.kernels.stages import Grid

__all__ = ["FlowBracket", "coarse_grid", "flow_bracket"]

# Edges of the contracted graph over all links.
_SOLVABLE = 1 << 21
# Numbers that a batch of flows holds: its guides, one for each link and pair of cells, and what its rounds did to each node.
_GUIDES = 1 << 26
# Edges that are kept in memory from pass to pass rather than computed anew.
_KEPT = 1 << 24
# Numbers of all vectors over nodes, sinks and levels.
_LARGEST = 1 << 28
# Relative width at which a bracket counts as closed.
CLOSED = 1e-9

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FlowBracket:
    """Lower and upper bound of the flow from every source to every sink, each ``[source, sink]``, in float64.

    Attributes
    ----------
    lower : Tensor
        Value of a feasible flow.
    upper : Tensor
        Smallest of the bounds from above.
    """

    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> Tensor:
        """``(upper - lower) / upper``; 0 where the flow is 0."""
        return torch.where(self.upper > 0, (self.upper - self.lower) / self.upper.clamp(min=1e-300), 0.0).clamp(min=0)

    @property
    def exact(self) -> Tensor:
        """Whether the ends meet."""
        return self.gap <= CLOSED


def coarse_grid(grid: Grid, links: int) -> Grid:
    """The finest grid, by halving the longer of rows and columns, then frames, whose contracted graph the solver can hold.

    >>> coarse_grid((13, 30, 45), 30)
    (13, 4, 3)
    """
    frames, rows, columns = grid
    while links * (frames * rows * columns) ** 2 > _SOLVABLE and frames * rows * columns > 1:
        if rows * columns > 1 and (rows > 2 or columns > 2 or frames == 1):
            rows, columns = (rows, -(-columns // 2)) if columns >= rows else (-(-rows // 2), columns)
        else:
            frames = -(-frames // 2)
    return frames, rows, columns


def flow_bracket(
    graph: OperatorGraph,
    sources: Sequence[Sequence[int]] | None = None,
    sinks: str | Tensor = "video",
    *,
    coarse: Grid | None = None,
    rounds: int = 8,
    sweeps: int = 3,
    progress: Progress | None = None,
) -> FlowBracket:
    """Bracket the maximum flow from every source to every sink.

    Parameters
    ----------
    graph : OperatorGraph
        Of any size; a pass costs what its attention costs.
    sources, sinks
        As in `vico_lens.kernels.maxflow.max_flow`.
    coarse : tuple of int, optional
        Grid of the contracted graph; `coarse_grid` by default.
    rounds : int
        Greedy rounds for flows that the first bounds leave open.
    sweeps : int
        At most so many passes of cut improvement.
    progress : callable, optional
        Called as ``progress(done, total)`` with passes over links; what it raises stops the run.

    Returns
    -------
    FlowBracket

    Raises
    ------
    InputError
        If there are so many sinks that vectors over nodes would not fit.

    Examples
    --------
    >>> from vico_lens.kernels.stages import Stage
    >>> cross = Stage("cross", "attn2", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]))
    >>> time = Stage("temporal", "motion", 1, (2, 1, 1), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]))
    >>> bracket = flow_bracket(OperatorGraph.from_stages([cross, time]), sinks="frame")
    >>> bracket.lower, bool(bracket.exact.all())
    (tensor([[0.5500, 0.3500],
            [0.2500, 0.4500]], dtype=torch.float64), True)
    """
    graph = graph.to(torch.float64)
    with torch.no_grad():
        chosen, sink = graph.chosen(sources), graph.sink(sinks)
        size = (len(chosen) + 1) * len(sink) * sum(graph.widths)
        if size > _LARGEST:
            raise InputError(
                f"expected fewer sinks: {len(sink)} of them would take {size * 8 / 2**30:.0f} GiB of numbers over nodes. Ask for "
                "sink='frame', sink='video' or a few masks, or for a coarser grid=."
            )
        run = _Run(graph, progress, len(graph.links) * (5 + 3 * rounds + 2 * sweeps))
        supply = graph.supply(chosen)
        delivered = [sink]
        for level in reversed(range(len(graph.links))):
            delivered.insert(0, graph.links[level].narrow_sum(delivered[0], back=True))
            run.tick()
        received = reach_from_sources(graph, supply)
        upper = upper_of(supply, received, delivered)
        lower = torch.minimum(push_from(graph, supply, sink, delivered), upper)
        run.tick(3 * len(graph.links))
        found = FlowBracket(lower, upper)
        open_flows = [(int(source), int(end)) for source, end in (~found.exact).nonzero().tolist()]
        if not open_flows:
            return found
        cell = cells_of(graph.grid, coarse or coarse_grid(graph.grid, len(graph.links)), graph.text, chosen, sink.device)
        return _narrow(run, found, open_flows, supply, sink, cell, rounds, sweeps)


def _narrow(
    run: _Run,
    found: FlowBracket,
    flows: Sequence[tuple[int, int]],
    supply: Sequence[Tensor],
    sink: Tensor,
    cell: Tensor,
    rounds: int,
    sweeps: int,
) -> FlowBracket:
    """Better bounds for the flows that are still open, some flows at a time."""
    graph, cells = run.graph, int(cell.max()) + 1
    capacities = [link.pooled(cell, cells) for link in graph.links]
    run.tick(len(graph.links))
    lower, upper = found.lower.clone(), found.upper.clone()
    at_once = max(1, _GUIDES // (len(graph.links) * (cells**2 + 6 * rounds * graph.widths[0])))
    for first in range(0, len(flows), at_once):
        part = flows[first : first + at_once]
        rows, columns = (torch.tensor([flow[axis] for flow in part], device=sink.device) for axis in (0, 1))
        given, ends = [level[rows] for level in supply], sink[columns]
        solved = [contracted_flow(capacities, [level[flow] for level in given], ends[flow], cell) for flow in range(len(part))]
        cut = torch.tensor([flow.cut for flow in solved], dtype=torch.float64, device=sink.device)
        sides = [torch.stack([flow.sides[level][cell] for flow in solved]) for level in range(len(supply))]
        cut = torch.minimum(torch.minimum(cut, upper[rows, columns]), _improved(run, given, ends, sides, sweeps))
        pushed = _Greedy(run, given, ends, cell, [flow.use for flow in solved]).push(rounds, cut)
        upper[rows, columns] = cut
        lower[rows, columns] = torch.maximum(lower[rows, columns], pushed)
    return FlowBracket(torch.minimum(lower, upper), upper)


class _Run:
    """The edges of a graph, met link by link: kept where they are few, computed anew where they are many; and how far it got."""

    def __init__(self, graph: OperatorGraph, progress: Progress | None, total: int) -> None:
        self.graph, self.progress, self.total, self.done = graph, progress, total, 0
        count = sum(link.edge_count for link in graph.links)
        self.kept: list[list[Edges]] | None = None
        if count <= _KEPT:
            self.kept = [
                [replace(edges, capacity=edges.capacity.clone()) for edges in link.edges(torch.float64)] for link in graph.links
            ]

    def edges(self, level: int) -> Iterable[Edges]:
        """All edges of a link in some parts, in float64."""
        self.tick()
        return self.kept[level] if self.kept is not None else self.graph.links[level].edges(torch.float64)

    def tick(self, count: int = 1) -> None:
        self.done = min(self.done + count, self.total)
        if self.progress is not None:
            self.progress(self.done, self.total)


def _improved(run: _Run, supply: Sequence[Tensor], sink: Tensor, sides: list[Tensor], sweeps: int) -> Tensor:
    """Capacity of each flow's cut after sweeps of improvement, ``[flow]``; `sides` ``[flow, node]`` a level, changed in place.

    A node of unbounded supply stays on the source's side: the other side would cost the whole supply.
    """
    links = len(run.graph.links)
    best = torch.full((len(sink),), torch.inf, dtype=torch.float64, device=sink.device)
    for _ in range(sweeps):
        into = torch.zeros_like(sink)
        value = torch.zeros_like(best)
        changed = torch.zeros((), dtype=torch.bool, device=sink.device)
        for level in range(links + 1):
            away = sink if level == links else _linear(run.edges(level), (~sides[level + 1]).double(), "source")
            towards = supply[level] + into
            side = torch.where(away == towards, sides[level], away < towards)
            changed |= (side != sides[level]).any()
            sides[level] = side
            value += torch.where(side, 0.0, towards).sum(1)
            if level < links:
                into = _linear(run.edges(level), side.double(), "target")
        value += torch.where(sides[links], sink, 0.0).sum(1)
        best = torch.minimum(best, value)
        if not bool(changed):
            break
    return best


def _linear(edges: Iterable[Edges], values: Tensor, into: str) -> Tensor:
    """Capacities times values at one end, added at the other: ``[flow, node]``."""
    out = torch.zeros_like(values)
    for part in edges:
        if into == "source":
            got = torch.matmul(part.capacity, values[:, part.target].movedim(0, -1)).movedim(-1, 0)
            out.index_add_(1, part.source.flatten(), got.flatten(1))
        else:
            got = torch.matmul(part.capacity.mT, values[:, part.source].movedim(0, -1)).movedim(-1, 0)
            out.index_add_(1, part.target.flatten(), got.flatten(1))
    return out


@dataclass
class _Past:
    """What the rounds so far did at one link, a tensor ``[flow, node]`` a round: share sent, reach below, part that arrived."""

    share: list[Tensor] = field(default_factory=list)
    reach: list[Tensor] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)


class _Greedy:
    """Rounds of greedy pushing for a batch of flows, each on residual capacities of its own.

    The first round follows the optimum of the contracted graph, the others take what it has left.

    Parameters
    ----------
    run : _Run
    supply : sequence of Tensor
        ``[flow, node]`` a level.
    sink : Tensor
        ``[flow, node]``.
    cell : Tensor
        Cell of each node in the contracted graph.
    guides : list of list of Tensor
        Part of each edge between cells that the first round may see, ``[cell, cell]`` a link, for each flow.
    """

    def __init__(self, run: _Run, supply: Sequence[Tensor], sink: Tensor, cell: Tensor, guides: list[list[Tensor]]) -> None:
        self.run, self.cell, self.guides = run, cell, guides
        self.supply, self.sink = [level.clone() for level in supply], sink.clone()
        self.past = [_Past() for _ in run.graph.links]
        self.guided = True
        # Where edges are kept from pass to pass, so is what the rounds have left of them: [level][part][flow].
        self.rest: list[list[Tensor]] | None = None
        if run.kept is not None and len(sink) * sum(edges.capacity.numel() for link in run.kept for edges in link) <= _KEPT:
            self.rest = [[edges.capacity.expand(len(sink), -1, -1, -1) for edges in link] for link in run.kept]

    def push(self, rounds: int, upper: Tensor) -> Tensor:
        """Value of a feasible flow after at most so many rounds, ``[flow]``; fewer where all flows meet `upper`."""
        total = torch.zeros(len(self.sink), dtype=torch.float64, device=self.sink.device)
        for _ in range(rounds):
            total += self._round()
            if bool((total >= upper * (1 - CLOSED)).all()):
                break
        return total

    def _round(self) -> Tensor:
        links = range(len(self.past))
        ones = torch.ones_like(self.sink)
        reach = [self.sink]
        for level in reversed(links):
            reach.insert(0, self._pass(level, reach[0], ones, "source"))
        entered = [torch.minimum(self.supply[0], reach[0])]
        held, shares = [entered[0]], []
        for level in links:
            shares.append(_share(held[level], reach[level]))
            arrived = self._pass(level, reach[level + 1], shares[level], "target")
            entered.append(torch.minimum(self.supply[level + 1], (reach[level + 1] - arrived).clamp(min=0)))
            held.append(arrived + entered[-1])
        out = torch.minimum(held[-1], self.sink)
        self.sink = self.sink - out
        # Nodes may hold more than they could pass on: take back what did not arrive, from the sink upwards.
        kept = _share(out, held[-1])
        self.supply[-1] = (self.supply[-1] - entered[-1] * kept).clamp(min=0)
        after: list[tuple[Tensor, Tensor, Tensor]] = []
        for level in reversed(links):
            sent = shares[level] * self._pass(level, reach[level + 1], kept, "source")
            after.insert(0, (shares[level], reach[level + 1], kept))
            kept = _share(sent, held[level])
            self.supply[level] = (self.supply[level] - entered[level] * kept).clamp(min=0)
        for past, (share, below, arrived) in zip(self.past, after, strict=True):
            past.share.append(share)
            past.reach.append(below)
            past.kept.append(arrived)
        if self.rest is not None:
            self._settle(self.rest)
        return out.sum(1)

    def _settle(self, rest: list[list[Tensor]]) -> None:
        """Take the round off what is left of every edge, and forget the round."""
        for level, parts in enumerate(rest):
            for part, edges in enumerate(self.run.edges(level)):
                parts[part] = torch.stack([self._left(level, part, flow, edges) for flow in range(len(self.sink))])
            self.past[level] = _Past()
        self.guided = False

    def _pass(self, level: int, below: Tensor, factor: Tensor, into: str) -> Tensor:
        """What edges can still carry on, ``min(left, below)``, times a factor of one end, added at the other ``[flow, node]``."""
        out = torch.zeros_like(below)
        for part, edges in enumerate(self.run.edges(level)):
            for flow in range(len(below)):
                useful = torch.minimum(self._left(level, part, flow, edges), below[flow, edges.target][:, None])
                if into == "source":
                    got = torch.matmul(useful, factor[flow, edges.target][..., None])[..., 0]
                    out[flow].index_add_(0, edges.source.flatten(), got.flatten())
                else:
                    got = torch.matmul(factor[flow, edges.source][:, None], useful)[:, 0]
                    out[flow].index_add_(0, edges.target.flatten(), got.flatten())
        return out

    def _left(self, level: int, part: int, flow: int, edges: Edges) -> Tensor:
        """Capacities that the rounds so far have left of some edges, as far as the round in hand may see them."""
        past, left = self.past[level], edges.capacity if self.rest is None else self.rest[level][part][flow]
        for turn in range(len(past.share) + 1):
            seen = left
            if turn == 0 and self.guided:
                use = self.guides[flow][level]
                seen = left * use[self.cell[edges.source][..., None], self.cell[edges.target][:, None]]
            if turn == len(past.share):
                return seen
            reach, share, kept = past.reach[turn][flow], past.share[turn][flow], past.kept[turn][flow]
            moved = torch.minimum(seen, reach[edges.target][:, None])
            left = (left - moved * share[edges.source][..., None] * kept[edges.target][:, None]).clamp(min=0)
        return left


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, at most 1, and 0 where there is nothing to divide."""
    return torch.where(whole > 0, part / whole.clamp(min=1e-300), 0.0).clamp(max=1)
