"""The flow laboratory against networkx in exact arithmetic, and against the library's own kernels."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.attribution.lab import (
    VIDEO,
    Flow,
    Game,
    Network,
    Path,
    cut_in_words,
    leaders,
    presets,
    readings,
    rollout,
    widest_path,
)
from vico_lens.attribution.lab.network import exact
from vico_lens.errors import InputError
from vico_lens.kernels.bounds import widest_path as widest_kernel
from vico_lens.kernels.layered import Block, LayeredGraph, Link
from vico_lens.kernels.maxflow import max_flow
from vico_lens.kernels.rollout import rollout as rollout_kernel

TENTHS = st.integers(0, 10).map(lambda tenths: Fraction(tenths, 10))


@st.composite
def networks(draw) -> Network:
    """One or two concepts that inject anywhere, one to three layers of one to three tokens, capacities in tenths, zeros too."""
    concepts = ["c", "d"][: draw(st.integers(1, 2))]
    layers = [[f"{name}{depth}" for name in "xyz"[: draw(st.integers(1, 3))]] for depth in range(1, draw(st.integers(2, 4)))]
    capacities = {}
    for layer in layers:
        capacities |= {(concept, token): draw(TENTHS) for concept in concepts for token in layer if draw(st.booleans())}
    for below, above in pairwise(layers):
        capacities |= {(tail, head): draw(TENTHS) for tail in below for head in above}
    capacities |= {(token, VIDEO): draw(TENTHS) for token in layers[-1]}
    return Network.of(concepts, layers, capacities)


def blocks_of(network: Network) -> LayeredGraph:
    """The same network as the dense blocks that the library's own kernels take, in float64, without the edges to the video."""
    # The kernels let text in after a site, so an empty level stands before the first layer.
    levels = [tuple(f"_{token}" for token in network.layers[0]), *network.layers]
    links = []
    for number, (below, above) in enumerate(pairwise(levels), start=1):
        kept, injected = (
            torch.tensor(
                [[float(network.capacities.get((tail, head), 0)) for head in above] for tail in tails], dtype=torch.float64
            )
            for tails in (below, network.concepts)
        )
        links.append(Link("cross", f"layer {number}", (Block(kept[None]),), injected))
    return LayeredGraph(tuple(links), (1, 1, len(network.layers[-1])), len(network.concepts))


def by_networkx(network: Network, concept: str) -> Fraction:
    graph = nx.DiGraph()
    graph.add_nodes_from([concept, VIDEO])
    graph.add_weighted_edges_from(((*edge, capacity) for edge, capacity in network.edges_of(concept).items()), weight="capacity")
    return nx.maximum_flow_value(graph, concept, VIDEO, flow_func=nx.algorithms.flow.edmonds_karp)


@given(networks(), st.randoms(use_true_random=False))
def test_any_order_of_paths_ends_at_the_flow_of_networkx_with_a_cut_that_proves_it(network, order):
    for concept in network.concepts:
        flow, pushes = Flow(network, concept), 0
        while paths := flow.paths():
            flow = flow.push(order.choice(paths))
            pushes += 1
            assert pushes < 500
            assert all(0 < amount <= flow.edges[edge] for edge, amount in flow.amounts.items())
            for token in (token for layer in network.layers for token in layer):
                into = sum(amount for (_, head), amount in flow.amounts.items() if head == token)
                out = sum(amount for (tail, _), amount in flow.amounts.items() if tail == token)
                assert into == out
        cut = flow.cut()
        assert flow.value == by_networkx(network, concept) == Flow(network, concept).push_all().value
        assert cut.capacity == flow.value
        assert concept in cut.source_side and VIDEO not in cut.source_side
        cutting = {edge for edge in flow.edges if edge[0] in cut.source_side and edge[1] not in cut.source_side}
        assert cutting == set(cut.edges)


@given(networks())
def test_flow_rollout_widest_path_and_saturation_equal_the_librarys_kernels(network):
    sinks = torch.tensor([float(network.capacities.get((token, VIDEO), 0)) for token in network.layers[-1]], dtype=torch.float64)
    blocks = blocks_of(network)
    sources = [[place] for place in range(len(network.concepts))]
    rolled = rollout_kernel(blocks, sources) @ sinks
    widest = torch.minimum(widest_kernel(blocks, sources), sinks).amax(1)
    read = readings(network)
    for place, concept in enumerate(network.concepts):
        assert float(read["rollout"][concept]) == pytest.approx(rolled[place].item(), abs=1e-12)
        assert float(read["widest_path"][concept]) == pytest.approx(widest[place].item(), abs=1e-12)
    if not bool((sinks > 0).any()):
        return  # the kernels refuse a sink that nothing reaches
    solved = max_flow(blocks, sources, sinks)
    for place, concept in enumerate(network.concepts):
        flow = Flow(network, concept).push_all()
        assert float(flow.value) == pytest.approx(solved.value[place, 0].item(), abs=1e-12)
        assert flow.cut().saturated == solved.saturated_names()[place][0]


def test_every_preset_shows_what_its_lesson_says():
    where = {
        name: {concept: Flow(preset.network, concept).push_all().cut().saturated for concept in preset.network.concepts}
        for name, preset in presets.items()
    }
    lead = {name: leaders(readings(preset.network)) for name, preset in presets.items()}
    assert where["two_roads"] == {"red circle": "no"}
    assert where["inside"]["red circle"] == "no"
    assert set(where["full_at_source"].values()) == {"source"} and set(where["full_at_sink"].values()) == {"sink"}
    circle, square, tie = ("red circle",), ("blue square",), ("red circle", "blue square")
    assert lead["many_or_wide"] == {"max_flow": square, "rollout": circle, "widest_path": circle}
    assert lead["depth"] == {"max_flow": circle, "rollout": square, "widest_path": circle}
    assert lead["full_at_source"]["max_flow"] == square and lead["full_at_source"]["rollout"] == circle
    assert lead["full_at_sink"]["max_flow"] == tie and lead["full_at_sink"]["rollout"] == circle
    values = readings(presets["full_at_sink"].network)["max_flow"]
    assert set(values.values()) == {Fraction(1)}


def test_the_widest_path_first_needs_a_step_back():
    flow = Flow(presets["take_back"].network, "red circle")
    first = flow.paths()[0]
    assert first.undone == () and first.amount == widest_path(flow.network, "red circle").amount
    (second,) = flow.push(first).paths()
    assert second.undone == (("a1", "b2"),)
    assert flow.push(first).push(second).value == Fraction(9, 10)


def test_presets_could_come_from_a_softmax():
    for preset in presets.values():
        for token in (token for layer in preset.network.layers for token in layer):
            assert sum(amount for (_, head), amount in preset.network.capacities.items() if head == token) <= 1


def test_capacities_are_read_as_typed_and_edited():
    network = Network.of(["c"], [["x1"]], {("c", "x1"): 0.3})
    assert rollout(network.with_capacities({("c", "x1"): 0.1, ("x1", VIDEO): "1/3"}), "c") == Fraction(1, 30)
    assert widest_path(network.with_capacities({("c", "x1"): 0}), "c") is None
    for wrong in (-0.1, "much", float("nan"), float("inf"), None):
        with pytest.raises(InputError, match="expected a capacity"):
            exact(wrong)
    with pytest.raises(InputError, match="edges of this network"):
        network.with_capacities({("x1", "c"): 1})


@pytest.mark.parametrize(
    ("concepts", "layers", "edge"),
    [
        (["c"], [["x1"], ["x2"], ["x3"]], ("x1", "x3")),
        (["c"], [["x1"], ["x2"]], ("x2", "x1")),
        (["c"], [["x1"]], ("c", VIDEO)),
        (["c"], [["c"]], ("c", "c")),
        ([], [["x1"]], ("x1", VIDEO)),
    ],
)
def test_graphs_that_are_not_layered_are_refused(concepts, layers, edge):
    with pytest.raises(InputError, match=r"expected|leads"):
        Network.of(concepts, layers, {edge: 1})


def test_wrong_moves_are_refused_in_words():
    flow = Flow(presets["two_roads"].network, "red circle")
    path = flow.paths()[0]
    with pytest.raises(InputError, match="no maximum flow yet"):
        flow.cut()
    with pytest.raises(InputError, match="nothing is left from a1 to a2"):
        flow.push(path).push(path)
    with pytest.raises(InputError, match="residual graph"):
        flow.push(Path(("a1", "a2", VIDEO), Fraction(1)))
    with pytest.raises(InputError, match="one of the concepts"):
        Flow(flow.network, "cat").paths()


def test_a_game_wants_a_prediction_first_and_says_how_it_ended():
    game = Game.start(presets["take_back"].network, "red circle")
    with pytest.raises(InputError, match="prediction first"):
        game.push(game.flow.paths()[0])
    game = game.predict(0.5)
    game = game.push(game.flow.paths()[0])
    with pytest.raises(InputError, match="before the first push"):
        game.predict(0.9)
    assert not game.solved and game.verdict() == ""
    assert game.back().pushes == 0 and game.back().prediction == Fraction(1, 2) and game.back().back().pushes == 0
    game = game.push(game.flow.paths()[0])
    assert game.solved and not game.right
    assert game.verdict() == "Solved with 2 paths: the maximum flow is 0.9, you predicted 0.5."
    told = cut_in_words(game.flow.cut(), game.flow)
    assert "a1 → a2 (0.4), b2 → b3 (0.5), 0.9 in all" in told and "lies inside" in told


def test_a_game_can_be_shown_and_one_without_any_way_is_solved_at_once():
    game = Game.start(presets["full_at_source"].network, "blue square").predict("0.4").finish()
    assert game.right and game.verdict() == "Shown: the maximum flow is 0.4, as you predicted."
    assert "summed cross-attention" in cut_in_words(game.flow.cut(), game.flow)
    nothing = Game.start(Network.of(["c"], [["x1"]], {("c", "x1"): 0}), "c").predict(0)
    assert nothing.right and nothing.verdict() == "Solved: the maximum flow is 0, as you predicted."
    assert "nothing leads" in cut_in_words(nothing.flow.cut(), nothing.flow)
