"""A small attention graph drawn node by node: capacities, flow and the min cut."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from vico_lens.errors import InputError
from vico_lens.plot.colours import ACCENT, GREY, PALETTE, concept_colours, rgba
from vico_lens.plot.routes import solved
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import number, plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["layered_graph", "layered_graph_numbers"]

_CUT = PALETTE["vermillion"]
_LARGEST = 400  # edges; beyond this a drawing of single edges is a grey cloud
LABELLED = 16  # edges; beyond this the numbers on edges overlap and only the pointer shows them
_PIXELS = (115, 62)  # about what one layer, and one row of nodes, take on a page


def layered_graph_numbers(graph: nx.DiGraph) -> list[dict[str, Any]]:
    """Return one row an edge: ``source, target, capacity, flow, used`` (flow over capacity) and ``cut``.

    Parameters
    ----------
    graph : nx.DiGraph
        Nodes with ``layer`` and ``kind``, edges with ``capacity``; flow and cut are computed when they are not there.

    Raises
    ------
    InputError
        If a node has no layer, or the graph is too large to be drawn edge by edge.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph()
    >>> graph.add_node("a", kind="source", layer=0, label="circle", concept="circle")
    >>> graph.add_node("b", kind="sink", layer=1, label="video")
    >>> graph.add_edge("a", "b", capacity=1.0, flow=0.5, cut=False)
    >>> layered_graph_numbers(graph)[0]["used"]
    0.5
    """
    if graph.number_of_edges() > _LARGEST:
        raise InputError(
            f"expected at most {_LARGEST} edges, got {graph.number_of_edges()}; take a smaller subgraph, or draw plot.sankey."
        )
    bare = [node for node, data in graph.nodes(data=True) if "layer" not in data]
    if bare:
        raise InputError(f"every node needs a layer; missing at {bare[:3]}.")
    rows = []
    for u, v, data in solved(graph).edges(data=True):
        capacity, flow = float(data.get("capacity", np.inf)), float(data["flow"])
        used = flow / capacity if 0 < capacity < np.inf else 0.0
        rows.append({"source": u, "target": v, "capacity": capacity, "flow": flow, "used": used, "cut": bool(data.get("cut"))})
    return rows


def layered_graph(graph: nx.DiGraph, *, theme: Theme = "light") -> Figure:
    """Draw the layers from left to right; width is capacity, the core is flow, edges of the min cut are red and dashed.

    Parameters
    ----------
    graph : see `layered_graph_numbers`
        With the graph attribute ``under_way`` the flow on its edges is shown as one that is no maximum yet.
    theme : {"light", "dark"}

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph()
    >>> graph.add_node("a", kind="source", layer=0, label="circle", concept="circle")
    >>> graph.add_node("b", kind="sink", layer=1, label="video")
    >>> graph.add_edge("a", "b", capacity=1.0, flow=0.5, cut=False)
    >>> type(layered_graph(graph)).__name__
    'Figure'
    """
    rows = layered_graph_numbers(graph)
    place = places_of(graph)
    finite = [row["capacity"] for row in rows if np.isfinite(row["capacity"])]
    most = max(finite, default=1.0) or 1.0
    fig = new_figure(theme)
    for row in rows:
        xs, ys = curve(place[row["source"]], place[row["target"]])
        told = f"capacity {number(row['capacity'])}, flow {number(row['flow'])}{', in the min cut' if row['cut'] else ''}"
        wide = 1.5 + 11 * min(1.0, row["capacity"] / most)
        edge = {"x": xs, "y": ys, "mode": "lines", "showlegend": False, "hoverinfo": "text", "text": told}
        fig.add_scatter(**edge, line={"color": rgba(_CUT if row["cut"] else GREY, 0.28), "width": wide})
        if row["flow"] > 1e-12:
            core = max(1.2, wide * min(1.0, row["used"]))
            style = {"color": _CUT, "width": core, "dash": "5px,3px"} if row["cut"] else {"color": ACCENT, "width": core}
            fig.add_scatter(**edge, line=style)
        # An unbounded edge carries what the others let through: only the finite ones are worth a number at rest.
        if len(rows) <= LABELLED and (row["flow"] > 1e-12 or np.isfinite(row["capacity"])):
            label(fig, xs, ys, f"{number(row['flow'])} / {number(row['capacity'])}")
    draw_nodes(fig, graph, place)
    sent = sum(row["flow"] for row in rows if graph.nodes[row["source"]].get("kind") == "source")
    cut = [row for row in rows if row["cut"]]
    edges = f"{len(cut)} edge{'s' if len(cut) != 1 else ''}"
    closed = number(sum(row["capacity"] for row in cut))
    note = "Width: capacity. Core: flow." + (" Numbers: flow / capacity." if len(rows) <= LABELLED else "")
    if graph.graph.get("under_way"):
        finding = f"{number(sent)} reaches the video so far" if sent else "Nothing has been sent yet"
    else:
        finding = f"The maximum flow is {number(sent)}, held back by a cut of {edges} with capacity {closed}"
        note += " Red, dashed: the min cut."
    return finish(fig, finding, note, theme=theme, height=height_of(graph))


def height_of(graph: nx.DiGraph) -> int:
    """Height of the drawing in pixels: room for the nodes of the fullest layer."""
    deepest = max(np.unique([data["layer"] for _, data in graph.nodes(data=True)], return_counts=True)[1])
    return int(min(760, max(280, 80 + 62 * deepest)))


def label(fig: Figure, xs: list[float], ys: list[float], text: str) -> None:
    """Write a number beside an edge, a third of the way along, where edges that cross have parted."""
    i = len(xs) // 3
    dx, dy = _PIXELS[0] * (xs[i + 1] - xs[i - 1]), _PIXELS[1] * (ys[i + 1] - ys[i - 1])
    # The steeper the edge, the higher its number, so that the end of the text does not lie on the line.
    slope = min(0.9, abs(dy / dx)) if dx else 0.9
    fig.add_annotation(x=xs[i], y=ys[i], text=text, showarrow=False, font_size=11, yshift=11 + 3.1 * len(text) * slope)


def places_of(graph: nx.DiGraph) -> dict[Any, tuple[float, float]]:
    """Layers from left to right, in each layer the nodes by frame, row and column from top to bottom."""
    layers: dict[int, list[Any]] = defaultdict(list)
    for node, data in graph.nodes(data=True):
        layers[data["layer"]].append(node)
    place = {}
    for x, layer in enumerate(sorted(layers)):
        ordered = sorted(layers[layer], key=lambda node: tuple(graph.nodes[node].get(dim, 0) for dim in ("frame", "y", "x")))
        for rank, node in enumerate(ordered):
            place[node] = (float(x), (len(ordered) - 1) / 2 - rank)
    return place


def curve(start: tuple[float, float], end: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Draw a straight line to the next layer; an arc round the nodes between when layers are skipped."""
    t = np.linspace(0, 1, 13)
    span = end[0] - start[0]
    lift = 0.0 if span <= 1 else 0.42 * (span - 1) * (1 if end[1] >= start[1] else -1)
    x, y = start[0] + t * span, start[1] + t * (end[1] - start[1]) + 4 * lift * t * (1 - t)
    return x.round(4).tolist(), y.round(4).tolist()


def draw_nodes(fig: Figure, graph: nx.DiGraph, place: dict[Any, tuple[float, float]]) -> None:
    nodes = list(graph.nodes(data=True))
    labels = [plain(_name(node, data)) for node, data in nodes]
    ends = {plain(_name(node, data)) for node, data in nodes if data.get("kind") in ("source", "token")}
    colour = concept_colours([label for label in labels if label in ends])
    sides = {"source": "middle left", "token": "middle left", "sink": "middle right"}
    fig.add_scatter(
        x=[place[node][0] for node, _ in nodes],
        y=[place[node][1] for node, _ in nodes],
        mode="markers+text" if len(nodes) <= 60 else "markers",
        text=labels,
        textposition=[sides.get(str(data.get("kind")), "bottom center") for _, data in nodes],
        textfont_size=12,
        marker={"size": 15, "color": [colour.get(label, GREY) for label in labels], "line_width": 0},
        hovertext=labels,
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )
    right = max(x for x, _ in place.values())
    tall = max(abs(y) for _, y in place.values())
    fig.update_xaxes(visible=False, range=[-0.16 * right - 0.15, 1.1 * right + 0.15])
    fig.update_yaxes(visible=False, range=[-tall - 0.55, tall + 0.55])


def _name(node: Any, data: dict[str, Any]) -> str:
    if data.get("concept") or data.get("label"):
        return str(data.get("concept") or data["label"])
    if data.get("kind") == "video" and "frame" in data:
        return f"frame {data['frame']}" + (f", ({data['y']}, {data['x']})" if data.get("y") or data.get("x") else "")
    return "video" if data.get("kind") == "sink" else str(node)
