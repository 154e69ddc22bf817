from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import chain

import vico_lens as vl
from vico_lens import plot
from vico_lens.errors import InputError
from vico_lens.plot.routes import solved
from vico_lens.testing.traces import fake_trace


def test_solved_flow_is_conserved_and_equals_the_cut():
    graph = solved(chain())
    for node in [(1, 0), (1, 1), (2, 0), (2, 1)]:
        into = sum(data["flow"] for *_, data in graph.in_edges(node, data=True))
        assert np.isclose(into, sum(data["flow"] for *_, data in graph.out_edges(node, data=True)))
    assert [(u, v) for u, v, data in graph.edges(data=True) if data["cut"]] == [("s", (1, 0)), ("s", (1, 1))]


@given(st.integers(0, 10_000))
def test_solved_agrees_with_networkx_on_random_layers(seed):
    rng = np.random.default_rng(seed)
    graph = nx.DiGraph()
    graph.add_node("s", kind="source", layer=0)
    graph.add_node("t", kind="sink", layer=4)
    layers = [["s"], *[[(k, i) for i in range(3)] for k in (1, 2, 3)], ["t"]]
    for first, second in itertools.pairwise(layers):
        for u, v in itertools.product(first, second):
            if rng.random() < 0.8:
                graph.add_edge(u, v, capacity=float(rng.integers(1, 10)))
    if graph.number_of_edges() == 0:
        return
    result = solved(graph)
    value = nx.maximum_flow_value(graph, "s", "t")
    assert np.isclose(sum(d["flow"] for *_, d in result.out_edges("s", data=True)), value)
    cut = [(u, v, d["capacity"]) for u, v, d in result.edges(data=True) if d["cut"]]
    assert np.isclose(sum(capacity for *_, capacity in cut), value)
    rest = graph.copy()
    rest.remove_edges_from([(u, v) for u, v, _ in cut])
    assert not nx.has_path(rest, "s", "t")


def test_graphs_that_cannot_be_solved_say_why():
    with pytest.raises(InputError, match="with edges"):
        solved(nx.DiGraph())
    bare = nx.DiGraph([("a", "b", {"capacity": 1.0})])
    with pytest.raises(InputError, match="'source' and 'sink'"):
        solved(bare)


def test_sankey_adds_up():
    links = plot.sankey_numbers(chain())
    assert {(k["source"], k["target"]): round(k["flow"], 9) for k in links} == {
        ("cat", "layer 1"): 0.6,
        ("layer 1", "frame 0"): 0.3,
        ("layer 1", "frame 1"): 0.3,
        ("frame 0", "video"): 0.3,
        ("frame 1", "video"): 0.3,
    }
    assert [k["cut"] for k in links if k["source"] == "cat"] == pytest.approx([0.6])


def test_sankey_marks_the_cut_and_names_its_place():
    figure = plot.sankey({"red": chain(), "blue": chain()}).to_dict()
    link = figure["data"][0]["link"]
    at_cut = [colour.endswith("0.85)") for colour in link["color"]]
    assert sum(at_cut) == 2 and np.isclose(sum(v for v, cut in zip(link["value"], at_cut, strict=True) if cut), 1.2)
    assert "at the text" in figure["layout"]["meta"]["note"]
    labels = figure["data"][0]["node"]["label"]
    assert labels[:2] == ["red", "blue"] and labels[-1] == "video"
    wide = chain()
    nx.set_edge_attributes(wide, {(u, v): {"capacity": 5.0} for u, v in wide.edges if u == "s"})
    assert "inside the network" in plot.sankey(wide).layout.meta["note"]
    nx.set_edge_attributes(wide, {(u, v): {"capacity": 0.1} for u, v in wide.edges if v == "t"})
    assert "at the video" in plot.sankey(wide).layout.meta["note"]


def test_sankey_without_flow_is_refused():
    dry = chain()
    nx.set_edge_attributes(dry, 0.0, "capacity")
    with pytest.raises(InputError, match="no flow"):
        plot.sankey(dry)


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
def test_concept_graphs_agree_with_exact_flow_and_rollout(family):
    tree = fake_trace(family)
    names = ["red circle", "blue square"]
    graph = vl.AttentionGraph.from_trace(tree, step=1)
    coarse = graph.subgraph(grid=(4, 1, 1))
    flows = plot.concept_graphs(coarse, names, sink="video")
    exact = coarse.max_flow(names, sink="video")["value"]
    for name in names:
        sent = sum(d["flow"] for *_, d in flows[name].out_edges(("source", name), data=True))
        assert np.isclose(sent, float(exact.sel(concept=name)), rtol=1e-6)
    rolled = plot.concept_graphs(coarse, names, carry="rollout")
    for one in rolled.values():
        inner = [node for node, data in one.nodes(data=True) if data["kind"] == "video"]
        into = np.array([sum(d["flow"] for *_, d in one.in_edges(n, data=True)) for n in inner])
        out = np.array([sum(d["flow"] for *_, d in one.out_edges(n, data=True)) for n in inner])
        assert np.allclose(into, out)  # products over paths are conserved, node by node
    assert plot.sankey(rolled).layout.meta["note"].startswith("Width: rollout")


def test_layered_graph_draws_every_edge_with_its_numbers():
    numbers = plot.layered_graph_numbers(chain())
    assert len(numbers) == 6 and all(np.isclose(row["used"], row["flow"] / row["capacity"]) for row in numbers)
    figure = plot.layered_graph(chain())
    assert figure.layout.meta["finding"] == "The maximum flow is 0.6, held back by a cut of 2 edges with capacity 0.6"
    dashed = [trace for trace in figure.data if trace.line.dash == "5px,3px"]
    assert len(dashed) == 2
    assert list(figure.data[-1].text)[:2] == ["cat", "video"]


def test_too_large_or_unlayered_graphs_are_refused():
    with pytest.raises(InputError, match="400 edges"):
        plot.layered_graph(nx.complete_graph(30, create_using=nx.DiGraph))
    with pytest.raises(InputError, match="needs a layer"):
        plot.layered_graph(nx.DiGraph([("a", "b", {"capacity": 1.0})]))
