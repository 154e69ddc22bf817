"""The readable definition of exact flow: the same graph edge by edge, in networkx. What the solvers are tested against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import networkx as nx
from torch import Tensor

from vico_lens.kernels.layered import LayeredGraph

__all__ = ["max_flow_definition", "to_edges"]


def to_edges(graph: LayeredGraph, source: Sequence[int], sink: Tensor, number: Callable[[float], Any] = float) -> nx.DiGraph:
    """Spell out a graph for one source (tokens) and one sink (``[node]`` of the last level).

    Nodes are ``"source"``, ``"sink"`` and ``(level, node)``; an edge from the source without bound has no capacity, as networkx
    asks. `number` makes a capacity from a float: ``fractions.Fraction`` gives exact arithmetic.
    """
    edges = nx.DiGraph()
    edges.add_nodes_from(["source", "sink"])
    for level, supply in enumerate(graph.supply([source])):
        for node, capacity in enumerate(supply[0].tolist()):
            if math.isinf(capacity):
                edges.add_edge("source", (level, node))
            elif capacity > 0:
                edges.add_edge("source", (level, node), capacity=number(capacity))
    for level, link in enumerate(graph.links):
        for block in link.blocks:
            groups, rows, columns = block.capacity.shape
            for g, j, i in block.capacity.nonzero().tolist():
                above = block.source + (j * groups + g if block.interleaved else g * rows + j)
                below = block.target + (i * groups + g if block.interleaved else g * columns + i)
                edges.add_edge((level, above), (level + 1, below), capacity=number(block.capacity[g, j, i].item()))
    for node, capacity in enumerate(sink.tolist()):
        if capacity > 0:
            edges.add_edge((len(graph.links), node), "sink", capacity=number(capacity))
    return edges


def max_flow_definition(graph: LayeredGraph, source: Sequence[int], sink: Tensor, number: Callable[[float], Any] = float) -> Any:
    """Maximum flow from one source to one sink by networkx, in the arithmetic of `number`."""
    # Not dinitz: networkx 3.6 can pop from an empty queue there when capacities are floats.
    edges = to_edges(graph, source, sink, number)
    return nx.maximum_flow_value(edges, "source", "sink", flow_func=nx.algorithms.flow.edmonds_karp)
