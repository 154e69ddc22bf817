"""Max-flow solvers of other libraries behind one interface: each is built once for a graph, then solves one token after another.

Each solver takes the static edges once; between tokens only the capacities of the source's edges change, in the cheapest way the
solver offers. None of these is a dependency of vico-lens, except networkx.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.maxflow_compiled import pack

__all__ = ["SOLVERS", "Edges", "edges_of"]

Floats = npt.NDArray[np.float64]
Ask = Callable[[int], float]


@dataclass(frozen=True)
class Edges:
    """A graph as an edge list to the whole video's sink: node 0 is the source, 1 the sink; the source's edges come first."""

    tail: npt.NDArray[np.int64]
    head: npt.NDArray[np.int64]
    capacity: Floats
    supply: Floats  # [token, source edge]
    nodes: int


def edges_of(graph: LayeredGraph) -> Edges:
    """Spell a graph of cross-attention out as arrays of edges."""
    net, capacity = pack(graph)
    tails, heads = [], []
    for stage in range(len(graph.links)):
        for p in range(net.block[stage, 0], net.block[stage, 1] + 1):
            groups, rows, columns = (int(part[p]) for part in (net.groups, net.rows, net.columns))
            g, j, i = (axis.ravel() for axis in np.indices((groups, rows, columns)))
            wide = bool(net.interleaved[p])
            tails.append(2 + net.node[stage] + net.source[p] + (j * groups + g if wide else g * rows + j))
            heads.append(2 + net.node[stage + 1] + net.target[p] + (i * groups + g if wide else g * columns + i))
    supply = np.concatenate([level.numpy() for level in graph.supply()], 1)
    fed = np.flatnonzero(supply.any(0))
    last = 2 + net.node[-2] + np.arange(graph.video)
    return Edges(
        tail=np.concatenate([np.zeros_like(fed), *tails, last]),
        head=np.concatenate([2 + fed, *heads, np.ones_like(last)]),
        capacity=np.concatenate([supply[0, fed], capacity, np.ones(len(last))]),
        supply=supply[:, fed],
        nodes=2 + int(net.node[-1]),
    )


def _scipy(edges: Edges) -> Ask:
    """Dinic on int32: capacities are scaled so that everything that leaves a node stays below 2^31."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    most = max(edges.supply.sum(1).max(), 2.0)
    scale = (2**31 - 1) / (1.01 * most)
    order = np.lexsort((edges.head, edges.tail))
    start = np.searchsorted(edges.tail[order], np.arange(edges.nodes + 1))
    fixed = edges.capacity[order]
    fed = edges.supply.shape[1]

    def ask(token: int) -> float:
        values = fixed.copy()
        values[:fed] = edges.supply[token]  # the source is node 0, so its edges come first in any order by tail
        matrix = csr_array(
            (np.round(values * scale).astype(np.int32), edges.head[order].astype(np.int32), start.astype(np.int32)),
            shape=(edges.nodes, edges.nodes),
        )
        return float(maximum_flow(matrix, 0, 1, method="dinic").flow_value) / scale

    return ask


def _igraph(edges: Edges) -> Ask:
    import igraph

    graph = igraph.Graph(n=edges.nodes, edges=np.stack([edges.tail, edges.head], 1), directed=True)
    capacity = edges.capacity.copy()

    def ask(token: int) -> float:
        capacity[: edges.supply.shape[1]] = edges.supply[token]
        return float(graph.maxflow_value(0, 1, capacity.tolist()))

    return ask


def _ortools(edges: Edges) -> Ask:
    """Push-relabel on int64, scaled by 2^40."""
    from ortools.graph.python import max_flow

    scale = 2.0**40
    solver = max_flow.SimpleMaxFlow()
    solver.add_arcs_with_capacity(edges.tail, edges.head, np.round(edges.capacity * scale).astype(np.int64))
    fed = np.arange(edges.supply.shape[1])

    def ask(token: int) -> float:
        solver.set_arcs_capacity(fed, np.round(edges.supply[token] * scale).astype(np.int64))
        solver.solve(0, 1)
        return float(solver.optimal_flow()) / scale

    return ask


def _pymaxflow(edges: Edges) -> Ask:
    """Boykov-Kolmogorov; it keeps residuals, so every token needs a new graph."""
    import maxflow

    fed, last = edges.supply.shape[1], edges.head == 1
    inner = ~last
    inner[:fed] = False
    sinks = edges.tail[last]

    def ask(token: int) -> float:
        graph = maxflow.GraphFloat(edges.nodes, int(inner.sum()))
        graph.add_nodes(edges.nodes)
        graph.add_edges(edges.tail[inner], edges.head[inner], edges.capacity[inner], np.zeros(int(inner.sum())))
        source, sink = np.zeros(edges.nodes), np.zeros(edges.nodes)
        source[edges.head[:fed]] = edges.supply[token]
        sink[sinks] = 1.0
        graph.add_grid_tedges(np.arange(edges.nodes), source, sink)
        return float(graph.maxflow())

    return ask


def _networkx(edges: Edges) -> Ask:
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_weighted_edges_from(
        zip(edges.tail.tolist(), edges.head.tolist(), edges.capacity.tolist(), strict=True), weight="capacity"
    )

    def ask(token: int) -> float:
        for head, capacity in zip(edges.head, edges.supply[token], strict=False):
            graph[0][int(head)]["capacity"] = float(capacity)
        return float(nx.maximum_flow_value(graph, 0, 1, flow_func=nx.algorithms.flow.preflow_push))

    return ask


_ALL: dict[str, tuple[str, Callable[[Edges], Any]]] = {
    "scipy dinic, int32": ("scipy", _scipy),
    "igraph, float": ("igraph", _igraph),
    "ortools, int64": ("ortools", _ortools),
    "PyMaxflow, float": ("maxflow", _pymaxflow),
    "networkx preflow_push": ("networkx", _networkx),
}

SOLVERS: dict[str, Callable[[Edges], Ask]] = {
    name: build for name, (module, build) in _ALL.items() if importlib.util.find_spec(module) is not None
}
"""Name to builder, of those installed."""
