"""Flow from the concepts through the layers to the frames, as a Sankey diagram with the min cut marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import networkx as nx

from vico_lens.errors import InputError
from vico_lens.plot.colours import GREY, concept_colours, rgba
from vico_lens.plot.routes import solved
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import number, percent, plain, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["sankey", "sankey_numbers"]

Graphs: TypeAlias = "nx.DiGraph | Mapping[str, nx.DiGraph]"
Place: TypeAlias = tuple[int, int, str]  # column, rank in it, label

_PAD = 8  # pixels between nodes of a column
_ROUNDING = 1e-9  # flows below this part of the largest are left out: solver noise, not flow
_FRAMES, _VIDEO = 10**6, 10**6 + 1  # the last two columns


def sankey_numbers(graph: Graphs) -> list[dict[str, Any]]:
    """Add up the flow between concepts, layers and frames.

    Parameters
    ----------
    graph : nx.DiGraph, or mapping of concept to nx.DiGraph
        One graph, or one a concept (`plot.concept_graphs`; then every link keeps its concept). Nodes have ``kind`` (source,
        token, video, sink), ``layer`` (0 for text), and ``frame`` if they are video; edges have ``capacity``; flow and cut are
        solved for if missing.

    Returns
    -------
    list of dict
        One link each: ``concept, source, target`` (labels), ``flow``, ``cut`` (its part in edges of the min cut). Video nodes are
        joined by the layer at which text last came in, those of the last layer by frame.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import AttentionGraph
    >>> from vico_lens.plot.routes import concept_graphs
    >>> graphs = concept_graphs(AttentionGraph.from_trace(fake_trace(), step=1, grid="coarsest"), ["red circle"])
    >>> sorted(sankey_numbers(graphs)[0])
    ['concept', 'cut', 'flow', 'source', 'target']
    """
    return [
        {"concept": concept, "source": source[2], "target": target[2], "flow": flow, "cut": cut}
        for (concept, source, target), (flow, cut) in _links(graph).items()
    ]


def _links(graph: Graphs) -> dict[tuple[str, Place, Place], tuple[float, float]]:
    graphs = graph if isinstance(graph, Mapping) else {"": graph}
    if not graphs:
        raise InputError("expected at least one graph, got none.")
    sums: dict[tuple[str, Place, Place], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for rank, (concept, raw) in enumerate(graphs.items()):
        one = solved(raw)
        places = _places(one, str(concept), rank)
        for u, v, data in one.edges(data=True):
            if places[u] != places[v]:
                link = sums[str(concept), places[u], places[v]]
                link[0] += float(data["flow"])
                link[1] += float(data["flow"]) if data.get("cut") else 0.0
    least = _ROUNDING * max((flow for flow, _ in sums.values()), default=0.0)
    return {key: (flow, cut) for key, (flow, cut) in sums.items() if flow > least}


def _places(graph: nx.DiGraph, concept: str, rank: int) -> dict[Any, Place]:
    """Where each node of the graph goes in the diagram."""
    kinds = {node: str(data.get("kind")) for node, data in graph.nodes(data=True)}
    names = graph.graph.get("layers", {})
    entries = sorted({graph.nodes[v]["layer"] for u, v in graph.edges if kinds[u] in ("source", "token") and kinds[v] == "video"})
    last = max((data["layer"] for node, data in graph.nodes(data=True) if kinds[node] == "video"), default=0)
    places: dict[Any, Place] = {}
    for node, data in graph.nodes(data=True):
        if kinds[node] in ("source", "token"):
            places[node] = (0, rank, concept or str(data.get("concept") or data.get("label") or node))
        elif kinds[node] == "video" and data["layer"] == last:
            places[node] = (_FRAMES, int(data["frame"]), f"frame {data['frame']}")
        elif kinds[node] == "video":
            entry = max((layer for layer in entries if layer <= data["layer"]), default=data["layer"])
            places[node] = (int(entry), 0, str(names.get(entry, f"layer {entry}")))
        else:
            places[node] = (_VIDEO, 0, "video")
    return places


def sankey(graph: Graphs, *, colours: Mapping[str, str] | None = None, theme: Theme = "light") -> Figure:
    """Draw the flow as a Sankey diagram; links that cross the min cut are opaque.

    Parameters
    ----------
    graph : see `sankey_numbers`
    colours, theme
        Fixed colours by concept; ``"light"`` or ``"dark"``.

    Raises
    ------
    InputError
        If no flow arrives.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import AttentionGraph
    >>> from vico_lens.plot.routes import concept_graphs
    >>> graphs = concept_graphs(AttentionGraph.from_trace(fake_trace(), step=1, grid="coarsest"), ["red circle"])
    >>> type(sankey(graphs)).__name__
    'Figure'
    """
    links = _links(graph)
    if not links:
        raise InputError("no flow arrives at the sink: there is nothing to draw.")
    nodes = sorted({end for _, *ends in links for end in ends})
    names = [label for column, _, label in nodes if column == 0]
    order: list[str] = list(graph) if isinstance(graph, Mapping) else names
    colour = concept_colours(order, colours)
    parts = [
        (key, amount, at_cut)
        for key, (flow, cut) in links.items()
        for amount, at_cut in ((cut, True), (flow - cut, False))
        if amount > _ROUNDING * flow
    ]
    alone = colour[names[0]] if len(names) == 1 else GREY  # in one graph of several concepts the flows mix after the first layer
    tints = [colour.get(concept or source[2], alone) for (concept, source, _), _, _ in parts]
    columns = sorted({column for column, _, _ in nodes})
    height = max(320, 30 * max(sum(node[0] == column for node in nodes) for column in columns))
    fig = new_figure(theme)
    fig.add_sankey(
        arrangement="snap",
        node={
            "label": [plain(label) for _, _, label in nodes],
            "color": [colour.get(label, GREY) if column == 0 else GREY for column, _, label in nodes],
            "x": [0.001 + 0.998 * columns.index(column) / max(1, len(columns) - 1) for column, _, _ in nodes],
            "y": _middles(nodes, links, height),
            "pad": _PAD,
            "thickness": 11,
            "line": {"width": 0},
            "hovertemplate": "%{label}: %{value:.3g}<extra></extra>",
        },
        link={
            "source": [nodes.index(source) for (_, source, _), _, _ in parts],
            "target": [nodes.index(target) for (_, _, target), _, _ in parts],
            "value": [amount for _, amount, _ in parts],
            "color": [rgba(tint, 0.85 if at_cut else 0.32) for tint, (_, _, at_cut) in zip(tints, parts, strict=True)],
            "customdata": [", in the min cut" if at_cut else "" for _, _, at_cut in parts],
            "hovertemplate": "%{source.label} to %{target.label}: %{value:.3g}%{customdata}<extra></extra>",
        },
    )
    return finish(fig, *_sentences(graph, links), theme=theme, height=height)


def _middles(nodes: list[Place], links: Mapping[tuple[str, Place, Place], tuple[float, float]], height: float) -> list[float]:
    """Vertical middles of the nodes, from 0 to 1, stacked in order with the same scale and gaps that plotly will use.

    Plotly orders nodes by itself unless it is told where they are, and then shuffles the frames.
    """
    out: dict[Place, float] = defaultdict(float)
    into: dict[Place, float] = defaultdict(float)
    for (_, source, target), (flow, _) in links.items():
        out[source] += flow
        into[target] += flow
    amount = {node: max(out[node], into[node]) for node in nodes}
    columns: dict[int, list[Place]] = defaultdict(list)
    for node in nodes:
        columns[node[0]].append(node)
    unit = min((height - _PAD * (len(column) - 1)) / sum(amount[node] for node in column) for column in columns.values())
    middles = {}
    for column in columns.values():
        top = (height - unit * sum(amount[node] for node in column) - _PAD * (len(column) - 1)) / 2
        for node in column:
            middles[node] = min(0.999, max(0.001, (top + unit * amount[node] / 2) / height))
            top += unit * amount[node] + _PAD
    return [middles[node] for node in nodes]


def _sentences(graph: Graphs, links: Mapping[tuple[str, Place, Place], tuple[float, float]]) -> tuple[str, str]:
    sent: dict[str, float] = defaultdict(float)
    crossing = {"text": 0.0, "video": 0.0, "inside": 0.0}
    for (_, source, target), (flow, cut) in links.items():
        if source[0] == 0:
            sent[source[2]] += flow
        crossing["text" if source[0] == 0 else "video" if target[0] == _VIDEO else "inside"] += cut
    first = next(iter(graph.values())) if isinstance(graph, Mapping) else graph
    rolled = first.graph.get("carry") == "rollout"
    total, top = sum(sent.values()), max(sent, key=lambda name: sent[name])
    if len(sent) > 1:
        finding = f"{quoted(top)} sends {percent(sent[top] / total)} of the {'rollout' if rolled else 'flow'}"
    else:
        finding = f"{quoted(top)} sends {number(total)} to the video"
    width = "Width: rollout influence." if rolled else "Width: flow (one maximum flow of many)."
    closed = sum(crossing.values())
    if closed <= 0:
        return finding, f"{width} No min cut was given."
    most = max(crossing, key=lambda place: crossing[place])
    where = {
        "text": "at the text: exact flow says no more than summed cross-attention",
        "video": "at the video, whose sinks are full: exact flow hardly tells concepts apart",
        "inside": "inside the network: the layers hold the flow back",
    }
    return (
        finding,
        f"{width} Opaque: the min cut of the drawn graph, {percent(crossing[most] / closed)} of it {where[most]}.",
    )
