"""Push-relabel on a layered graph of dense blocks, compiled: the arithmetic of exact flow, without a single edge object.

A graph is a `Network`: a few integers a block and one flat array of capacities. Edges leaving a node are contiguous; edges
entering it have a constant stride. The algorithm is push-relabel, first phase only: it moves supply towards the sink in sweeps
over the levels, and stops when no node with excess can reach the sink any more. The value and a minimum cut are known then; a
flow that returns the stranded excess to its source would be a second phase that nobody here needs.

What each sink edge has carried is kept, not what room it has left: a tiny flow into a wide sink would drown in rounding there.

Labels are exact distances after each global relabelling (a breadth-first search from the sink in the residual graph), and `FAR`
for a node that cannot reach the sink. The nodes that still can are the sink side of the minimum cut.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vico_lens.kernels.jit import compiled

__all__ = ["FAR", "Network", "advance", "cut_by_stage", "relabel", "seed", "solve"]

FAR = 1 << 30

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Network(NamedTuple):
    """Shape of a layered graph; S stages between S + 1 levels, and P blocks over all stages.

    Attributes
    ----------
    node : int64 array [S + 2]
        First node of each level, and the number of nodes.
    split : int64 array [S, 2]
        Within a level, nodes below ``split[stage, 0]`` leave through the stage's first block and the others through its second;
        nodes of the next level below ``split[stage, 1]`` are entered by the first.
    block : int64 array [S, 2]
        Numbers of those blocks.
    groups, rows, columns : int64 array [P]
        A block is so many dense groups of `rows` sources and `columns` targets.
    interleaved : bool array [P]
        Whether member j of group g is node ``j * groups + g`` rather than ``g * rows + j``.
    source, target : int64 array [P]
        First node of the block within its level, and within the next.
    edge : int64 array [P]
        First edge of the block in the capacities; the edge from j to i of group g is ``(g * rows + j) * columns + i`` after it.
    """

    node: Integers
    split: Integers
    block: Integers
    groups: Integers
    rows: Integers
    columns: Integers
    interleaved: npt.NDArray[np.bool_]
    source: Integers
    target: Integers
    edge: Integers


@compiled
def _leaving(net: Network, level: int, n: int) -> tuple[int, int, int, int, int]:
    """Edges out of node n of a level: first edge, step between them, how many, node of the first target, step between targets."""
    p = net.block[level, 0] if n < net.split[level, 0] else net.block[level, 1]
    member = n - net.source[p]
    below = net.node[level + 1] + net.target[p]
    if net.interleaved[p]:
        j = member // net.groups[p]
        g = member - j * net.groups[p]
        return net.edge[p] + (g * net.rows[p] + j) * net.columns[p], 1, net.columns[p], below + g, net.groups[p]
    g = member // net.rows[p]
    return net.edge[p] + member * net.columns[p], 1, net.columns[p], below + g * net.columns[p], 1


@compiled
def _entering(net: Network, level: int, n: int) -> tuple[int, int, int, int, int]:
    """Edges into node n of a level: first edge, step between edges, how many, node of the first source, step between sources."""
    stage = level - 1
    p = net.block[stage, 0] if n < net.split[stage, 1] else net.block[stage, 1]
    member = n - net.target[p]
    above = net.node[stage] + net.source[p]
    if net.interleaved[p]:
        i = member // net.groups[p]
        g = member - i * net.groups[p]
        return net.edge[p] + g * net.rows[p] * net.columns[p] + i, net.columns[p], net.rows[p], above + g, net.groups[p]
    g = member // net.columns[p]
    i = member - g * net.columns[p]
    return net.edge[p] + g * net.rows[p] * net.columns[p] + i, net.columns[p], net.rows[p], above + g * net.rows[p], 1


@compiled
def _room(edge: int, forward: bool, capacity: Floats, flow: Floats) -> float:
    """How much more can go along an edge: forward what its flow leaves free, backward what it carries."""
    room: float = capacity[edge] - flow[edge] if forward else flow[edge]
    return room


@compiled
def _reach(
    edges: tuple[int, int, int, int, int],
    forward: bool,
    capacity: Floats,
    flow: Floats,
    label: Integers,
    distance: int,
    queue: Integers,
    tail: int,
) -> int:
    """Give `distance` to the unlabelled far ends of a node's edges that have room, and queue them; the queue's new end."""
    edge, edge_step, count, u, step = edges
    for _ in range(count):
        if label[u] == FAR and _room(edge, forward, capacity, flow) > 0.0:
            label[u] = distance
            queue[tail] = u
            tail += 1
        edge += edge_step
        u += step
    return tail


@compiled
def relabel(
    net: Network, capacity: Floats, flow: Floats, sink: Floats, arrived: Floats, label: Integers, queue: Integers
) -> None:
    """Set every label to its exact residual distance to the sink by breadth-first search; `FAR` where there is no way."""
    levels = net.node.size - 1
    last = levels - 1
    label[:] = FAR
    unseen = np.empty(levels, np.int64)
    for level in range(levels):
        unseen[level] = net.node[level + 1] - net.node[level]
    head = 0
    tail = 0
    for n in range(sink.size):
        if arrived[n] < sink[n]:
            label[net.node[last] + n] = 1
            queue[tail] = net.node[last] + n
            tail += 1
    unseen[last] -= tail
    level = last
    while head < tail:
        w = queue[head]
        head += 1
        while w < net.node[level]:
            level -= 1
        while w >= net.node[level + 1]:
            level += 1
        n = w - net.node[level]
        distance = label[w] + 1
        # From the sink upwards: the far end of an edge in reaches this node along it, that of an edge out against it.
        if level > 0 and unseen[level - 1] > 0:
            before = tail
            tail = _reach(_entering(net, level, n), True, capacity, flow, label, distance, queue, tail)
            unseen[level - 1] -= tail - before
        if level < last and unseen[level + 1] > 0:
            before = tail
            tail = _reach(_leaving(net, level, n), False, capacity, flow, label, distance, queue, tail)
            unseen[level + 1] -= tail - before


@compiled
def _push(
    edges: tuple[int, int, int, int, int],
    forward: bool,
    capacity: Floats,
    flow: Floats,
    excess: Floats,
    label: Integers,
    below: int,
    held: float,
    lowest: int,
) -> tuple[float, int]:
    """Push `held` along a node's edges to neighbours of label `below`; what is left, and the lowest other label with room."""
    edge, edge_step, count, u, step = edges
    for _ in range(count):
        if label[u] <= lowest:
            room = _room(edge, forward, capacity, flow)
            if room > 0.0:
                if label[u] == below:
                    if room > held:
                        flow[edge] += held if forward else -held
                        excess[u] += held
                        return 0.0, lowest
                    # Set, not added up: a full edge has no rounding left in it.
                    flow[edge] = capacity[edge] if forward else 0.0
                    held -= room
                    excess[u] += room
                elif label[u] < lowest:
                    lowest = label[u]
        edge += edge_step
        u += step
    return held, lowest


@compiled
def _discharge(
    net: Network,
    level: int,
    n: int,
    capacity: Floats,
    flow: Floats,
    excess: Floats,
    sink: Floats,
    arrived: Floats,
    label: Integers,
    tolerance: float,
) -> int:
    """Push one node's excess away, raising its label as needed, until it is gone or cannot reach the sink; edges read."""
    last = net.node.size - 2
    limit = net.node[last + 1] + 2
    v = net.node[level] + n
    held = excess[v]
    work = 0
    while held > tolerance and label[v] < FAR:
        lowest = FAR
        if level == last:
            room = sink[n] - arrived[n]
            arrived[n] = arrived[n] + held if held < room else sink[n]
            held = max(held - room, 0.0)
        else:
            edges = _leaving(net, level, n)
            work += edges[2]
            held, lowest = _push(edges, True, capacity, flow, excess, label, label[v] - 1, held, lowest)
        if level > 0 and held > 0.0:
            edges = _entering(net, level, n)
            work += edges[2]
            held, lowest = _push(edges, False, capacity, flow, excess, label, label[v] - 1, held, lowest)
        if held > tolerance:
            # Every admissible edge is full now: rise above the lowest neighbour that still has room.
            raised = max(lowest, label[v]) + 1
            label[v] = raised if lowest < FAR and raised < limit else FAR
    excess[v] = held
    return work


@compiled
def seed(net: Network, capacity: Floats, reach: Floats, flow: Floats, excess: Floats, sink: Floats, arrived: Floats) -> None:
    """Start from one greedy push instead of nothing: every node splits what it holds by what each edge can still deliver.

    `reach` bounds what each node can deliver. Filling edges one by one would crowd the first nodes of every level; an even split
    leaves little to correct. `flow` and `arrived` are overwritten, `excess` keeps what could not be passed on.
    """
    last = net.node.size - 2
    for level in range(last):
        for n in range(net.node[level + 1] - net.node[level]):
            v = net.node[level] + n
            e, _, count, u, step = _leaving(net, level, n)
            if excess[v] <= 0.0 or reach[v] <= 0.0:
                flow[e : e + count] = 0.0
                continue
            part = min(excess[v] / reach[v], 1.0)
            passed = 0.0
            for i in range(e, e + count):
                moved = part * min(capacity[i], reach[u])
                flow[i] = moved
                excess[u] += moved
                passed += moved
                u += step
            excess[v] = max(excess[v] - passed, 0.0)
    first = net.node[last]
    for n in range(sink.size):
        moved = min(excess[first + n], sink[n])
        arrived[n] = moved
        excess[first + n] -= moved


@compiled
def advance(
    net: Network,
    capacity: Floats,
    flow: Floats,
    excess: Floats,
    sink: Floats,
    arrived: Floats,
    label: Integers,
    queue: Integers,
    tolerance: float,
    budget: int,
) -> bool:
    """Run sweeps from the first level to the last until no excess can move or about `budget` edges were read; True when done.

    `flow`, `excess`, `arrived` and `label` are the state: call again with them to go on. Labels are exact on return when done.
    """
    levels = net.node.size - 1
    total = 0
    since = 0
    sweeps = 0
    while True:
        active = False
        sweeps += 1
        for level in range(levels):
            for n in range(net.node[level + 1] - net.node[level]):
                v = net.node[level] + n
                if excess[v] > tolerance and label[v] < FAR:
                    active = True
                    since += _discharge(net, level, n, capacity, flow, excess, sink, arrived, label, tolerance)
        if not active:
            relabel(net, capacity, flow, sink, arrived, label, queue)
            return True
        if since > 2 * capacity.size or sweeps % 8 == 0:
            relabel(net, capacity, flow, sink, arrived, label, queue)
            total += since + capacity.size
            since = 0
            if total > budget:
                return False


@compiled
def solve(
    net: Network,
    capacity: Floats,
    flow: Floats,
    excess: Floats,
    sink: Floats,
    arrived: Floats,
    label: Integers,
    queue: Integers,
    tolerance: float,
) -> None:
    """Reset all but `excess`, then run to the end: for graphs so small that nobody would interrupt them."""
    flow[:] = 0.0
    arrived[:] = 0.0
    relabel(net, capacity, flow, sink, arrived, label, queue)
    advance(net, capacity, flow, excess, sink, arrived, label, queue, tolerance, 1 << 62)


@compiled
def cut_by_stage(
    net: Network, capacity: Floats, supply: Floats, sink: Floats, source_side: npt.NDArray[np.bool_], location: Floats
) -> None:
    """Capacity that crosses from the source side to the sink side: from the source, in each stage, into the sink.

    A node of infinite supply on the sink side makes the cut infinite, as it should.
    """
    last = net.node.size - 2
    location[:] = 0.0
    for level in range(last + 1):
        for n in range(net.node[level + 1] - net.node[level]):
            v = net.node[level] + n
            if not source_side[v]:
                location[0] += supply[v]
            elif level == last:
                location[last + 1] += sink[n]
            else:
                e, _, count, u, step = _leaving(net, level, n)
                for i in range(e, e + count):
                    if not source_side[u]:
                        location[level + 1] += capacity[i]
                    u += step
