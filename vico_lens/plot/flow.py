"""Flow from the concepts through the layers to the frames, as a Sankey diagram with the min cut marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import networkx as nx

from vico_lens.errors import InputError
from vico_lens.plot.colours import GREY, concept_colours, rgba
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import number, percent, plain, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["sankey", "sankey_numbers", "solved"]

Graphs = nx.DiGraph | Mapping[str, nx.DiGraph]
_PAD = 8  # pixels between nodes of a column
_ROUNDING = 1e-9  # flows below this part of the largest are left out: solver noise, not flow


def solved(graph: nx.DiGraph) -> nx.DiGraph:
    """Return a copy whose edges carry ``flow`` and ``cut``; a graph that has them already is returned as it is.

    Parameters
    ----------
    graph : nx.DiGraph
        Edges with ``capacity``; nodes with ``kind`` ``"source"`` or ``"sink"`` at both ends.

    Raises
    ------
    InputError
        If the graph has no edge, or no source or sink.

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
    ends = {kind: [node for node, data in graph.nodes(data=True) if data.get("kind") == kind] for kind in ("source", "sink")}
    if not ends["source"] or not ends["sink"]:
        raise InputError(
            "expected nodes of the kinds 'source' and 'sink' to send flow between; label them, or give edges a flow."
        )
    work = nx.DiGraph()
    work.add_nodes_from(graph)
    work.add_weighted_edges_from(((u, v, float(data["capacity"])) for u, v, data in graph.edges(data=True)), weight="capacity")
    start, end = object(), object()  # super-source and super-sink: edges without a capacity are unbounded in networkx
    work.add_edges_from([(start, node) for node in ends["source"]] + [(node, end) for node in ends["sink"]])
    _, flow = nx.maximum_flow(work, start, end, flow_func=nx.algorithms.flow.preflow_push)
    _, (near, far) = nx.minimum_cut(work, start, end, flow_func=nx.algorithms.flow.preflow_push)
    result = graph.copy()
    for u, v, data in result.edges(data=True):
        data["flow"] = float(flow[u][v])
        data["cut"] = u in near and v in far
    return result


def sankey_numbers(graph: Graphs) -> list[dict[str, Any]]:
    """Add up the flow between concepts, layers and frames.

    Parameters
    ----------
    graph : nx.DiGraph, or mapping of concept to nx.DiGraph
        One solved graph, or one a concept (then every link keeps its concept). Nodes have ``kind`` (source, token, video,
        sink), ``layer`` (0 for text), and ``frame`` if they are video; edges have ``capacity`` and, unless they shall be
        solved here, ``flow`` and ``cut``.

    Returns
    -------
    list of dict
        One link each: ``concept, source, target, flow, cut`` (the part of `flow` that crosses the min cut). Video nodes
        before the last layer are joined into their layer, those of the last layer into their frames.
    """
    graphs = graph if isinstance(graph, Mapping) else {"": graph}
    if not graphs:
        raise InputError("expected at least one graph, got none.")
    links: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for concept, raw in graphs.items():
        one = solved(raw)
        video = [data["layer"] for _, data in one.nodes(data=True) if data.get("kind") == "video"]
        last = max(video, default=0)
        place = {node: _place(node, data, last, concept) for node, data in one.nodes(data=True)}
        for u, v, data in one.edges(data=True):
            if place[u] is None or place[v] is None or place[u] == place[v]:
                continue
            link = links[str(concept), place[u], place[v]]  # type: ignore[index]
            link[0] += float(data["flow"])
            link[1] += float(data["flow"]) if data.get("cut") else 0.0
    least = _ROUNDING * max((flow for flow, _ in links.values()), default=0.0)
    return [
        {"concept": concept, "source": source, "target": target, "flow": flow, "cut": cut}
        for (concept, source, target), (flow, cut) in links.items()
        if flow > least
    ]


def sankey(graph: Graphs, *, colours: Mapping[str, str] | None = None, theme: Theme = "light") -> Figure:
    """Draw the flow as a Sankey diagram; links that cross the min cut are opaque.

    Parameters
    ----------
    graph : see `sankey_numbers`
    colours, theme
        Fixed colours by concept; ``"light"`` or ``"dark"``.
    """
    links = sankey_numbers(graph)
    if not links:
        raise InputError("no flow arrives at the sink: there is nothing to draw.")
    concepts = list(
        dict.fromkeys(
            link["concept"] or link["source"] for link in links if link["source"].startswith("concept ") or link["concept"]
        )
    )
    names = [name.removeprefix("concept ") for name in concepts]
    colour = concept_colours(names, colours)
    nodes = sorted({end for link in links for end in (link["source"], link["target"])}, key=_order)
    parts = [
        (link, amount, cut)
        for link in links
        for amount, cut in ((link["cut"], True), (link["flow"] - link["cut"], False))
        if amount > 1e-12
    ]
    shade = [colour.get((link["concept"] or link["source"]).removeprefix("concept "), GREY) for link, _, _ in parts]
    columns = sorted({_order(node)[0] for node in nodes})
    height = max(320, 30 * max(sum(_order(node)[0] == column for node in nodes) for column in columns))
    fig = new_figure(theme)
    fig.add_sankey(
        arrangement="snap",
        node={
            "label": [plain(node.removeprefix("concept ")) for node in nodes],
            "color": [colour.get(node.removeprefix("concept "), GREY) for node in nodes],
            "x": [0.001 + 0.998 * columns.index(_order(node)[0]) / max(1, len(columns) - 1) for node in nodes],
            "y": _middles(nodes, links, height),
            "pad": _PAD,
            "thickness": 13,
            "line": {"width": 0},
            "hovertemplate": "%{label}: %{value:.3g}<extra></extra>",
        },
        link={
            "source": [nodes.index(link["source"]) for link, _, _ in parts],
            "target": [nodes.index(link["target"]) for link, _, _ in parts],
            "value": [amount for _, amount, _ in parts],
            "color": [rgba(tint, 0.85 if cut else 0.32) for tint, (_, _, cut) in zip(shade, parts, strict=True)],
            "customdata": ["in the min cut" if cut else "" for _, _, cut in parts],
            "hovertemplate": "%{source.label} to %{target.label}: %{value:.3g} %{customdata}<extra></extra>",
        },
    )
    total = sum(link["flow"] for link in links if link["source"].startswith("concept "))
    cut = sum(link["cut"] for link in links)
    own = {name: sum(link["flow"] for link in links if link["source"] == f"concept {name}") for name in names}
    top = max(own, key=lambda name: own[name])
    finding = (
        f"{quoted(top)} sends {percent(own[top] / total)} of the flow"
        if len(own) > 1 and total
        else f"{number(total)} units of flow reach the video"
    )
    note = f"Width: flow (1 = one output token's worth). {_cut_note(links, cut, total)}"
    return finish(fig, finding, note, theme=theme, height=height)


def _place(node: Any, data: Mapping[str, Any], last: int, concept: str) -> str | None:
    kind = data.get("kind")
    if kind in ("source", "token"):
        return f"concept {concept or data.get('concept') or data.get('label') or node}"
    if kind == "video":
        return f"frame {data['frame']}" if data["layer"] == last else f"layer {data['layer']}"
    return None


def _order(node: str) -> tuple[int, int, str]:
    kind, _, rest = node.partition(" ")
    if kind == "concept":
        return 0, 0, rest
    return (int(rest), 0, "") if kind == "layer" else (10**9, int(rest), "")


def _middles(nodes: list[str], links: list[dict[str, Any]], height: float) -> list[float]:
    """Vertical middles of the nodes, from 0 to 1, stacked in order with the same scale and gaps that plotly will use.

    Plotly orders nodes by itself unless it is told where they are, and then shuffles the frames.
    """
    amount = {
        node: max(sum(k["flow"] for k in links if k["source"] == node), sum(k["flow"] for k in links if k["target"] == node))
        for node in nodes
    }
    columns: dict[int, list[str]] = defaultdict(list)
    for node in nodes:
        columns[_order(node)[0]].append(node)
    unit = min((height - _PAD * (len(column) - 1)) / (sum(amount[node] for node in column) or 1.0) for column in columns.values())
    middles = {}
    for column in columns.values():
        top = (height - unit * sum(amount[node] for node in column) - _PAD * (len(column) - 1)) / 2
        for node in column:
            middles[node] = min(0.999, max(0.001, (top + unit * amount[node] / 2) / height))
            top += unit * amount[node] + _PAD
    return [middles[node] for node in nodes]


def _cut_note(links: list[dict[str, Any]], cut: float, total: float) -> str:
    if cut <= 0:
        return "No min cut was given."
    at_source = sum(link["cut"] for link in links if link["source"].startswith("concept "))
    if total and at_source > 0.999 * cut:
        return "Opaque: the min cut. It lies wholly at the concepts, so the value says nothing beyond summed cross-attention."
    return f"Opaque: the min cut; {percent(at_source / cut)} of it lies at the concepts."
