"""Figures of a flow under way: the flow so far, and the residual graph with a chosen path."""

from __future__ import annotations

import networkx as nx
import pytest

from vico_lens import plot
from vico_lens.attribution.lab import Flow, presets
from vico_lens.errors import InputError


def test_a_flow_under_way_is_not_called_a_maximum_and_a_finished_one_is():
    flow = Flow(presets["take_back"].network, "red circle")
    assert plot.layered_graph(flow.to_networkx()).layout.meta["finding"] == "Nothing has been sent yet"
    one = flow.push(flow.paths()[0])
    assert plot.layered_graph(one.to_networkx()).layout.meta["finding"] == "0.5 reaches the video so far"
    done = plot.layered_graph(one.push_all().to_networkx())
    assert done.layout.meta["finding"] == "The maximum flow is 0.9, held back by a cut of 2 edges with capacity 0.9"
    # Every edge is labelled, those that carry nothing too: a user plans by their capacities.
    assert {"0 / 0.4", "0.5 / 0.5"} <= {note.text for note in plot.layered_graph(one.to_networkx()).layout.annotations}


def test_residual_arcs_are_what_is_left_and_what_can_be_taken_back():
    flow = Flow(presets["take_back"].network, "red circle")
    one = flow.push(flow.paths()[0])
    arcs = {(row["source"], row["target"]): row["left"] for row in plot.residual_graph_numbers(one.to_networkx())}
    assert arcs == pytest.approx({edge: float(left) for edge, left in one.residual.items()})
    path = one.paths()[0]
    figure = plot.residual_graph(one.to_networkx(), path.nodes)
    assert figure.layout.meta["finding"] == "The chosen path can carry 0.4 more"
    dashed = [trace for trace in figure.data if trace.mode == "lines" and trace.line.dash != "solid"]
    assert len(dashed) == len(one.amounts)
    done = plot.residual_graph(one.push_all().to_networkx(), theme="dark")
    assert done.layout.meta["finding"].startswith("No way to the video is left")


def test_a_path_that_is_not_there_and_a_flow_that_is_none_are_refused():
    flow = Flow(presets["two_roads"].network, "red circle")
    with pytest.raises(InputError, match="nothing is left"):
        plot.residual_graph(flow.to_networkx(), ("red circle", "b1", "a2"))
    with pytest.raises(InputError, match="from 0 to its capacity"):
        plot.residual_graph(nx.DiGraph([("a", "b", {"capacity": 1.0, "flow": 2.0})]))
