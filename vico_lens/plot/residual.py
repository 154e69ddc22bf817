"""The residual graph of a flow: what every edge can still carry, and what flow could be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import networkx as nx

from vico_lens.errors import InputError
from vico_lens.plot.colours import ACCENT, GREY, PALETTE, rgba
from vico_lens.plot.network import LABELLED, curve, draw_nodes, height_of, label, places_of
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import number, plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["residual_graph", "residual_graph_numbers"]

_BACK = PALETTE["pink"]
_BEND = 0.2  # how far an arc that leads back stands off its edge, in units of the distance between nodes
_ROUNDING = 1e-12


def residual_graph_numbers(graph: nx.DiGraph) -> list[dict[str, Any]]:
    """Return one row an arc of the residual graph: ``source, target, left`` and ``back`` (it takes flow away from an edge).

    Parameters
    ----------
    graph : nx.DiGraph
        Nodes with ``layer`` and ``kind``, edges with ``capacity`` and ``flow``; as from
        ``vico_lens.attribution.lab.Flow.to_networkx``.

    Raises
    ------
    InputError
        If an edge has no capacity or flow, or carries more than its capacity.

    Examples
    --------
    >>> graph = nx.DiGraph([("a", "v", {"capacity": 0.5, "flow": 0.2})])
    >>> [(row["source"], row["target"], round(row["left"], 3), row["back"]) for row in residual_graph_numbers(graph)]
    [('a', 'v', 0.3, False), ('v', 'a', 0.2, True)]
    """
    rows = []
    for tail, head, data in graph.edges(data=True):
        capacity, flow = data.get("capacity"), data.get("flow")
        if capacity is None or flow is None or not -_ROUNDING <= flow <= capacity + _ROUNDING:
            raise InputError(f"expected a flow from 0 to its capacity on every edge, got {flow} of {capacity} on {tail}, {head}.")
        for source, target, left, back in ((tail, head, capacity - flow, False), (head, tail, flow, True)):
            if left > _ROUNDING:
                rows.append({"source": source, "target": target, "left": float(left), "back": back})
    return rows


def residual_graph(graph: nx.DiGraph, path: Sequence[Any] = (), *, theme: Theme = "light") -> Figure:
    """Draw what can still be sent: grey arcs lead on, dashed ones lead back, a chosen path is blue.

    Parameters
    ----------
    graph : see `residual_graph_numbers`
    path : sequence of nodes, optional
        An augmenting path to mark.
    theme : {"light", "dark"}

    Raises
    ------
    InputError
        If the path uses an arc that is not there.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph()
    >>> graph.add_node("a", kind="source", layer=0, label="circle", concept="circle")
    >>> graph.add_node("v", kind="sink", layer=1, label="video")
    >>> graph.add_edge("a", "v", capacity=0.5, flow=0.2)
    >>> type(residual_graph(graph, path=["a", "v"])).__name__
    'Figure'
    """
    rows = residual_graph_numbers(graph)
    steps = set(pairwise(path))
    missing = steps - {(row["source"], row["target"]) for row in rows}
    if missing:
        raise InputError(f"expected a path in the residual graph, got one with {sorted(missing)}, where nothing is left.")
    place = places_of(graph)
    most = max((data["capacity"] for *_, data in graph.edges(data=True)), default=1.0) or 1.0
    fig = new_figure(theme)
    for row in rows:
        chosen = (row["source"], row["target"]) in steps
        ends = place[row["source"]], place[row["target"]]
        xs, ys = _bent(*ends) if row["back"] else curve(*ends)
        colour = ACCENT if chosen else _BACK if row["back"] else GREY
        told = (
            f"{plain(row['source'])} to {plain(row['target'])}: {number(row['left'])} {'to take back' if row['back'] else 'left'}"
        )
        fig.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={
                "color": colour if chosen else rgba(colour, 0.75),
                "width": 1.2 + 7 * min(1.0, row["left"] / most),
                "dash": "4px,4px" if row["back"] else "solid",
            },
            showlegend=False,
            hoverinfo="text",
            text=told,
        )
        _point(fig, xs, ys, colour)
        if len(rows) <= 2 * LABELLED:
            label(fig, xs, ys, number(row["left"]))
    draw_nodes(fig, graph, place)
    back = sum(row["back"] for row in rows)
    note = "Grey: what an edge can still carry." + (" Dashed, leading back: flow that can be taken back." if back else "")
    note += " Blue: the chosen path." if path else ""
    return finish(fig, _finding(graph, rows, path), note, theme=theme, height=height_of(graph))


def _bent(start: tuple[float, float], end: tuple[float, float]) -> tuple[list[float], list[float]]:
    """An arc that leads back: outside of an edge that is an arc itself, below a straight one."""
    xs, ys = (values[::-1] for values in curve(end, start))
    up = 1 if ys[len(ys) // 2] - (ys[0] + ys[-1]) / 2 > 1e-9 else -1
    count = len(xs) - 1
    return xs, [y + up * 4 * _BEND * (i / count) * (1 - i / count) for i, y in enumerate(ys)]


def _point(fig: Figure, xs: list[float], ys: list[float], colour: str) -> None:
    """An arrow head past the middle of an arc: which way it leads is all that a residual graph is about."""
    i = 2 * len(xs) // 3
    fig.add_annotation(
        x=xs[i], y=ys[i], ax=xs[i - 1], ay=ys[i - 1], xref="x", yref="y", axref="x", ayref="y",
        text="", showarrow=True, arrowhead=2, arrowsize=1.1, arrowwidth=2, arrowcolor=colour,
    )  # fmt: skip


def _finding(graph: nx.DiGraph, rows: Sequence[dict[str, Any]], path: Sequence[Any]) -> str:
    if path:
        least = min(row["left"] for row in rows if (row["source"], row["target"]) in set(pairwise(path)))
        return f"The chosen path can carry {number(least)} more"
    arcs = nx.DiGraph([(row["source"], row["target"]) for row in rows])
    ends = {kind: [node for node, data in graph.nodes(data=True) if data.get("kind") == kind] for kind in ("source", "sink")}
    open_ = any(a in arcs and b in arcs and nx.has_path(arcs, a, b) for a in ends["source"] for b in ends["sink"])
    return "There is still a way to the video" if open_ else "No way to the video is left: the flow is a maximum flow"
