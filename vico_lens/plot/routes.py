"""Flow on graphs small enough to draw: how much passes each edge, and which edges make up the min cut.

Drawing needs the flow edge by edge, which the solvers of floor 1 do not keep; networkx does, and is fast enough below some
thousand edges. So an attention graph is brought to a coarse grid first (a frame becomes one node if need be): what a Sankey
diagram could show is coarse anyway. Values for quoting come from `vico_lens.attribute` on the full grid, not from here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx

from vico_lens.errors import InputError

if TYPE_CHECKING:
    from vico_lens.attribution.graph import AttentionGraph

__all__ = ["Carry", "concept_graphs", "solved"]

Carry = Literal["max_flow", "rollout"]
_MOST_EDGES = 20_000  # preflow-push in networkx takes seconds from here on


def solved(graph: nx.DiGraph) -> nx.DiGraph:
    """Return a copy whose edges carry ``flow`` and ``cut``; a graph that has them already is returned as it is.

    Parameters
    ----------
    graph : nx.DiGraph
        Edges with ``capacity`` (none: unbounded); nodes with ``kind`` ``"source"`` or ``"sink"`` at both ends.

    Raises
    ------
    InputError
        If the graph has no edge, no source or sink, is too large, or a path without any bound joins source and sink.

    Examples
    --------
    >>> graph = nx.DiGraph([("a", "v", {"capacity": 0.4}), ("v", "t", {"capacity": 1.0})])
    >>> nx.set_node_attributes(graph, {"a": "source", "v": "video", "t": "sink"}, "kind")
    >>> edges = solved(graph).edges
    >>> edges["a", "v"]["flow"], edges["a", "v"]["cut"], edges["v", "t"]["cut"]
    (0.4, True, False)
    """
    if graph.number_of_edges() == 0:
        raise InputError("expected a graph with edges, got none.")
    if all("flow" in data for _, _, data in graph.edges(data=True)):
        return graph
    if graph.number_of_edges() > _MOST_EDGES:
        raise InputError(
            f"expected at most {_MOST_EDGES} edges to solve for a drawing, got {graph.number_of_edges()}; "
            "make the graph with plot.concept_graphs, which takes a coarser grid."
        )
    work, start, end = _closed(graph)
    residual = nx.algorithms.flow.preflow_push(work, start, end)
    # Only what can still reach the sink lies behind the cut: the cut nearest to the sink, as the solvers of floor 1 report it.
    behind = _reaching(residual, end)
    result = graph.copy()
    for u, v, data in result.edges(data=True):
        arc = residual[u].get(v)  # networkx leaves edges without capacity out
        data["flow"] = 0.0 if arc is None else max(0.0, float(arc["flow"]))
        data["cut"] = u not in behind and v in behind and "capacity" in data
    return result


def concept_graphs(
    graph: AttentionGraph, concepts: Any = None, *, sink: Literal["frame", "video"] = "frame", carry: Carry = "max_flow"
) -> dict[str, nx.DiGraph]:
    """Make one solved graph a concept from an attention graph, coarse enough to draw.

    Parameters
    ----------
    graph : AttentionGraph
        Of one denoising step.
    concepts : optional
        As in `vico_lens.attribute`; those of the prompt when None.
    sink : {"frame", "video"}
        One sink a frame, or one for all.
    carry : {"max_flow", "rollout"}
        What runs through the edges. A maximum flow is one of many, and where the sink is full it is the same for every concept.
        Rollout sends along each edge the sum over all paths through it of the products of their weights: unique, and it tells
        concepts apart. The min cut is marked either way.

    Returns
    -------
    dict
        ``{concept: nx.DiGraph}`` as `plot.sankey` and `plot.layered_graph` take them; ``graph["layers"]`` names the layers.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import AttentionGraph
    >>> graphs = concept_graphs(AttentionGraph.from_trace(fake_trace(), step=1, grid="coarsest"), ["red circle"])
    >>> list(graphs)
    ['red circle']
    """
    frames, rows, columns = graph.grid
    coarse = graph.subgraph(grid=(frames, min(2, rows), min(2, columns)))
    if coarse.blocks.edges > _MOST_EDGES // 4:
        coarse = graph.subgraph(grid=(frames, 1, 1))
    named: Any = concepts
    if coarse.blocks.edges > _MOST_EDGES // 4:
        # Text that lives through the layers has edges to itself at every layer: all that is no concept's becomes one node.
        spans = graph.named_tokens(concepts)
        kept = sorted({token for tokens in spans.values() for token in tokens})
        coarse = coarse.merge_text(kept)
        named = {name: [kept.index(token) for token in tokens] for name, tokens in spans.items()}
    labels = {place + 1: _short(stage.module, stage.order) for place, stage in enumerate(coarse.stages)}
    whole = coarse.to_networkx(named, sink=sink)
    names = [data["concept"] for _, data in whole.nodes(data=True) if data["kind"] == "source"]
    found = {}
    for name in names:
        own = nx.descendants(whole, ("source", name)) | {("source", name)}
        one = nx.DiGraph(whole.subgraph(own))
        one.graph.update(layers=labels, carry=carry)
        found[name] = solved(one)
        if carry == "rollout":
            _carry_products(found[name])
    return found


def _closed(graph: nx.DiGraph) -> tuple[nx.DiGraph, Any, Any]:
    ends = {kind: [node for node, data in graph.nodes(data=True) if data.get("kind") == kind] for kind in ("source", "sink")}
    if not ends["source"] or not ends["sink"]:
        raise InputError(
            "expected nodes of the kinds 'source' and 'sink' to send flow between; label them, or give edges a flow."
        )
    # networkx refuses unbounded paths with an error of its own; a bound no flow can reach keeps ours to say what is wrong.
    bound = 1.0 + sum(float(data["capacity"]) for _, _, data in graph.edges(data=True) if "capacity" in data)
    work, start, end = nx.DiGraph(), object(), object()
    work.add_nodes_from(graph)
    for u, v, data in graph.edges(data=True):
        work.add_edge(u, v, capacity=float(data.get("capacity", bound)))
    for node in ends["source"]:
        work.add_edge(start, node, capacity=bound)
    for node in ends["sink"]:
        work.add_edge(node, end, capacity=bound)
    return work, start, end


def _reaching(residual: nx.DiGraph, end: Any) -> set[Any]:
    """Nodes from which the sink can still be reached in the residual network."""
    found, edge = {end}, [end]
    while edge:
        node = edge.pop()
        for before in residual.pred[node]:
            arc = residual[before][node]
            if before not in found and arc["capacity"] - arc["flow"] > 1e-12 * max(1.0, arc["capacity"]):
                found.add(before)
                edge.append(before)
    return found


def _carry_products(graph: nx.DiGraph) -> None:
    """Replace flows by the sum over paths of the products of weights; unbounded edges have weight 1."""
    order: Sequence[Any] = list(nx.topological_sort(graph))
    kinds = dict(graph.nodes(data="kind"))
    ahead = {node: 1.0 if kinds[node] == "source" else 0.0 for node in order}
    after = {node: 1.0 if kinds[node] == "sink" else 0.0 for node in order}
    for node in order:
        for v, data in graph[node].items():
            ahead[v] += ahead[node] * data.get("capacity", 1.0)
    for node in reversed(order):
        after[node] += sum(after[v] * data.get("capacity", 1.0) for v, data in graph[node].items())
    for u, v, data in graph.edges(data=True):
        data["flow"] = ahead[u] * data.get("capacity", 1.0) * after[v]


def _short(module: str, order: int) -> str:
    """Name a site in a few letters: ``down 0``, ``up 1.2``, ``block 12``."""
    found = re.search(r"(down|mid|up)_blocks?(?:\.(\d+))?\.attentions\.(\d+)", module)
    if found:
        place = ".".join(part for part in (found[2], found[3]) if part is not None)
        return f"{found[1]} {place}"
    found = re.search(r"blocks\.(\d+)", module)
    return f"block {found[1]}" if found else f"site {order}"
