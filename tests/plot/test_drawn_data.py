"""What every figure draws, read back from the figure: values, places, order, axis titles and which way up.

The inputs are asymmetric in every axis: different sizes and different values, so that a figure that is turned, mirrored or
exchanged shows other data. What is expected is written out by hand or computed here, never taken from the ``*_numbers``.
"""

from __future__ import annotations

import base64
import io

import networkx as nx
import numpy as np
import pytest
import xarray as xr
from PIL import Image
from synthetic import NAMES

from vico_lens import plot
from vico_lens.plot.colours import rgb
from vico_lens.plot.composite import overlay
from vico_lens.report.outcome import Outcome
from vico_lens.report.story import Run, Story
from vico_lens.report.tables import shares_table
from vico_lens.testing.traces import fake_trace

RED, BLUE = (plot.concept_colours(NAMES)[name] for name in NAMES)
ROWS, COLUMNS, FRAMES, STEPS = 2, 3, 4, 2


def rising(scale: float = 1.0) -> xr.DataArray:
    """No two cells are equal: concept, step, frame, row and column each add something of their own."""
    parts = np.meshgrid(*[np.arange(n) for n in (2, STEPS, FRAMES, ROWS, COLUMNS)], indexing="ij")
    values = 1 + sum(size * part for size, part in zip((100, 1000, 10, 3, 0.5), parts, strict=True))
    coords = {"concept": list(NAMES), "step": [3, 7]}
    return xr.DataArray(scale * values, dims=("concept", "step", "frame", "y", "x"), coords=coords, attrs={"method": "rollout"})


def clip(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (FRAMES, 8 * ROWS, 8 * COLUMNS, 3), dtype=np.uint8)


def of_type(fig, kind: str) -> list[dict]:
    return [trace.to_plotly_json() for trace in fig.data if trace.type == kind]  # to_dict would pack the arrays


def axis(fig, trace: dict, letter: str) -> dict:
    """Return the axis that a trace is drawn on."""
    return fig.layout.to_plotly_json()[f"{letter}axis{trace.get(f'{letter}axis', letter)[1:]}"]


def upright(fig, trace: dict, rows: int) -> bool:
    """Row 0 is at the top: the axis runs downwards, and the trace names no rows of its own that say otherwise."""
    y = axis(fig, trace, "y")
    down = y.get("autorange") == "reversed" or list(y.get("range", ())) == [rows - 0.5, -0.5]
    return down and "y" not in trace and np.asarray(trace["z"]).shape[0] == rows


def lit(colour: str, share: float) -> str:
    return f"rgba({','.join(map(str, rgb(colour)))},{share:g})"


def test_influence_has_every_cell_in_its_place_and_row_0_at_the_top():
    data = rising()
    fig = plot.influence(data, clip(), step=7)
    for t, moment in enumerate(fig.to_dict()["frames"]):
        maps = [trace for trace in moment["data"] if trace["type"] == "heatmap"]
        for i, trace in enumerate(maps):
            np.testing.assert_allclose(trace["z"], data.values[i, 1, t], rtol=1e-4)
    first = of_type(fig, "heatmap")
    assert all(upright(fig, trace, ROWS) and tuple(axis(fig, trace, "x")["range"]) == (-0.5, COLUMNS - 0.5) for trace in first)
    assert [trace["colorscale"][-1][1] for trace in first] == [lit(RED, 0.9), lit(BLUE, 0.9)]
    titles = [note["text"] for note in fig.to_dict()["layout"]["annotations"][:3]]
    part = data.values[:, 1].sum((1, 2, 3))
    assert titles == ["video", *(f"<b>{n}</b>  {100 * s:.0f}\u00a0%" for n, s in zip(NAMES, part / part.sum(), strict=True))]


def test_influence_lies_on_the_frame_of_its_own_moment():
    film = clip()
    fig = plot.influence(rising(), film)
    for t, moment in enumerate(fig.to_dict()["frames"]):
        source = moment["data"][0]["source"].split(",", 1)[1]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
        np.testing.assert_array_equal(shown[:: shown.shape[0] // film.shape[1], :: shown.shape[0] // film.shape[1]], film[t])


def test_overlay_paints_the_cell_that_is_strong():
    values = np.zeros((1, ROWS, COLUMNS))
    values[0, 0, 2] = 1
    painted = overlay(clip()[:1], values, RED, np.array([0.0, 1.0]), strength=1.0)[0]
    here = (painted == rgb(RED)).all(-1)
    assert here[:8, 16:].all() and here.sum() == 64


def test_composite_has_the_concepts_from_left_to_right():
    strip = plot.composite(rising(), clip(), size=16, gap=0)
    width = strip.shape[2] // 3
    bars = [strip[0, 0, place * width + 1].tolist() for place in range(3)]
    assert bars == [[255, 255, 255], list(rgb(RED)), list(rgb(BLUE))]


def test_method_maps_have_a_row_a_method():
    fig = plot.method_maps({"first": rising(), "second": rising(-2.0)})
    drawn = of_type(fig, "heatmap")
    means = rising().mean("step").values[:, 0]
    for trace, expected in zip(drawn, [means[0], means[1], 2 * means[0], 2 * means[1]], strict=True):
        np.testing.assert_allclose(trace["z"], expected, rtol=1e-4)
        assert upright(fig, trace, ROWS)
    tops = [axis(fig, trace, "y")["domain"][1] for trace in drawn]
    lefts = [axis(fig, trace, "x")["domain"][0] for trace in drawn]
    assert tops[0] == tops[1] > tops[2] == tops[3] and lefts[0] == lefts[2] < lefts[1] == lefts[3]
    labels = [note for note in fig.layout.annotations if note.textangle == -90]
    assert [note.text for note in sorted(labels, key=lambda note: -note.y)] == ["first", "second"]


def test_side_by_side_has_the_plain_run_above_the_balanced_one():
    fig = plot.side_by_side(rising(), rising(3.0))
    drawn, means = of_type(fig, "heatmap"), rising().mean("step").values[:, 0]
    for trace, expected in zip(drawn, [means[0], means[1], 3 * means[0], 3 * means[1]], strict=True):
        np.testing.assert_allclose(trace["z"], expected, rtol=1e-4)
    assert axis(fig, drawn[0], "y")["domain"][0] > axis(fig, drawn[2], "y")["domain"][1]
    labels = [note for note in fig.layout.annotations if note.textangle == -90]
    assert [note.text for note in sorted(labels, key=lambda note: -note.y)] == ["plain", "balanced"]


def two(red: float, blue: float) -> xr.DataArray:
    values = np.full((2, 1, 2, 2, 2), 1.0) * np.array([red, blue])[:, None, None, None, None]
    return xr.DataArray(values, dims=("concept", "step", "frame", "y", "x"), coords={"concept": list(NAMES), "step": [0]})


def test_before_after_draws_a_ring_before_a_disc_after_and_an_arrow_that_way():
    fig = plot.before_after(two(0.8, 0.2), two(0.55, 0.45))
    rings = [trace for trace in fig.data if trace.marker.symbol == "circle-open"]
    discs = [trace for trace in fig.data if trace.marker.symbol is None]
    assert [(round(r.x[0], 9), r.y[0]) for r in rings] == [(0.8, 0), (0.2, 1)]
    assert [(round(d.x[0], 9), d.y[0]) for d in discs] == [(0.55, 0), (0.45, 1)]
    arrows = [note for note in fig.layout.annotations if note.showarrow is True]
    assert [(round(a.ax, 9), round(a.x, 9), a.y) for a in arrows] == [(0.8, 0.55, 0), (0.2, 0.45, 1)]
    assert list(fig.layout.yaxis.ticktext) == list(NAMES) and list(fig.layout.yaxis.range) == [1.5, -0.5]
    assert fig.layout.xaxis.title.text == "share of the influence"
    texts = [note.text for note in fig.layout.annotations if note.showarrow is False][:4]
    assert texts == ["80\u00a0%", "<b>55\u00a0%</b>", "20\u00a0%", "<b>45\u00a0%</b>"]


def test_the_change_in_points_is_after_minus_before():
    story = Story("p", *(Run.of(Outcome(clip(), two(*pair))) for pair in ((0.8, 0.2), (0.55, 0.45))), None)
    cells = shares_table(story)
    assert cells.index("−25.0") < cells.index("blue square") < cells.index("+25.0")
    assert cells.index("80.0\u00a0%") < cells.index("55.0\u00a0%") < cells.index("−25.0")


def test_shares_have_the_bar_of_each_concept():
    fig = plot.shares(two(1.0, 3.0))
    (bar,) = fig.data
    assert dict(zip(bar.y, bar.x, strict=True)) == pytest.approx({NAMES[0]: 0.25, NAMES[1]: 0.75})
    assert list(bar.marker.color) == [RED, BLUE] and bar.orientation == "h"
    assert fig.layout.yaxis.autorange == "reversed"  # the first concept of the prompt on top
    texts = {note.y: note.text for note in fig.layout.annotations if note.y in NAMES}
    assert texts == {NAMES[0]: "<b>25\u00a0%</b>", NAMES[1]: "<b>75\u00a0%</b>"}


@pytest.mark.parametrize(("draw", "dim", "title"), [("share_by_frame", "frame", "frame"), ("share_by_step", "step", "step")])
def test_shares_over_time_have_every_value_at_its_time(draw, dim, title):
    data = rising()
    fig = getattr(plot, draw)(data)
    kept = 2 if dim == "frame" else 1
    mass = data.values.sum(tuple(a for a in (1, 2, 3, 4) if a != kept))
    lines = [trace for trace in fig.data if trace.name in NAMES]
    for i, trace in enumerate(lines):
        np.testing.assert_allclose(trace.y, mass[i] / mass.sum(0))
        assert trace.name == NAMES[i] and trace.line.color == (RED, BLUE)[i]
        np.testing.assert_array_equal(trace.x, np.arange(FRAMES) if dim == "frame" else [3, 7])
    assert title in fig.layout.xaxis.title.text and fig.layout.yaxis.title.text == "share of the influence"


def test_balancing_has_loss_shares_and_change_on_their_axes():
    log = xr.Dataset(
        {
            "loss": ("update", [0.9, 0.7, 0.4]),
            "influence": (("update", "concept"), [[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]),
            "latent_change": ("update", [0.01, 0.02, 0.05]),
        },
        coords={"step": ("update", [2, 2, 5]), "concept": list(NAMES)},
    )
    fig = plot.balancing(log)
    drawn = {axis(fig, trace, "y")["title"]["text"]: trace for trace in (*of_type(fig, "bar"), *of_type(fig, "scatter")[::-1])}
    np.testing.assert_allclose(drawn["loss"]["y"], [0.9, 0.7, 0.4])
    np.testing.assert_allclose(drawn["latent change"]["y"], [0.01, 0.02, 0.05])
    lines = {trace.name: list(trace.y) for trace in fig.data if trace.name}
    assert lines == {NAMES[0]: [0.75, 0.5, 0.25], NAMES[1]: [0.25, 0.5, 0.75]}
    assert [shape.x0 for shape in fig.layout.shapes] == [2.5]  # step 5 begins after the second update


def test_temporal_matrix_has_queries_in_rows_and_keys_in_columns():
    weights = np.array([[0.5, 0.3, 0.2], [0.1, 0.9, 0.0], [0.25, 0.35, 0.4]])
    fig = plot.temporal_matrix(xr.DataArray(weights, dims=("frame", "key_frame")))
    (drawn,) = of_type(fig, "heatmap")
    np.testing.assert_allclose(drawn["z"], weights)
    assert upright(fig, drawn, 3) and "x" not in drawn
    assert "key" in fig.layout.xaxis.title.text and "query" in fig.layout.yaxis.title.text
    assert "frame %{y} looks at frame %{x}" in drawn["hovertemplate"]
    assert fig.layout.meta["finding"].startswith("A frame gives 60\u00a0%")


def attentive(tree: xr.DataTree, group: str, **index: int) -> xr.DataTree:
    """Copy a trace and let the head mean at one place be all there is."""
    changed = tree[group].to_dataset().load().copy(deep=True)
    changed["weights"][:] = 0
    changed["weights"][index] = 1
    return xr.DataTree.from_dict({"/": tree.to_dataset(), group: changed})


def test_attention_of_a_place_is_read_at_its_own_row_and_column():
    tree = attentive(fake_trace(grid=(4, 2, 3), coarse=None), "spatial/4x2x3", y=0, x=2, key_y=1, key_x=0, frame=3)
    fig = plot.attention(tree, "spatial/4x2x3", query=(3, 0, 2))
    (drawn,) = of_type(fig, "heatmap")
    np.testing.assert_allclose(drawn["z"], [[0, 0, 0], [1, 0, 0]])
    assert upright(fig, drawn, 2)
    assert "Frame 3, row 0, column 2 looks most at row 1, column 0 (weight 1)" in fig.layout.meta["finding"]


def test_attention_to_a_word_has_a_panel_a_frame():
    tree = attentive(fake_trace(grid=(4, 2, 3), coarse=None), "cross/4x2x3", frame=1, y=1, x=2, token=3)
    fig = plot.attention(tree, "cross/4x2x3", token=3)
    planes = of_type(fig, "heatmap")
    expected = np.zeros((4, 2, 3))
    expected[1, 1, 2] = 1
    np.testing.assert_allclose([trace["z"] for trace in planes], expected)
    assert all(upright(fig, trace, 2) for trace in planes)
    assert [note.text for note in fig.layout.annotations][:4] == [f"frame {t}" for t in range(4)]
    lefts = [axis(fig, trace, "x")["domain"][0] for trace in planes]
    assert lefts == sorted(lefts)
    assert "in frame 1, row 1, column 2" in fig.layout.meta["finding"]


def test_attention_over_time_has_a_bar_a_key_frame():
    tree = attentive(fake_trace(grid=(4, 2, 3), coarse=None), "temporal/4x2x3", y=1, x=0, frame=2, key_frame=3)
    fig = plot.attention(tree, "temporal/4x2x3", query=(2, 1, 0))
    assert list(fig.data[0].y) == [0, 0, 0, 1] and list(fig.data[0].x) == [0, 1, 2, 3]
    assert fig.layout.xaxis.title.text == "frame looked at" and fig.layout.yaxis.title.text == "attention weight"


METHODS = ["rollout", "max_flow", "cross_attention"]


def test_agreement_has_every_pair_in_its_cell():
    table = np.array([[1, 0.9, 0.2], [0.9, 1, 0.4], [0.2, 0.4, 1]])
    fig = plot.agreement(xr.DataArray(table, dims=("method", "other_method"), coords={"method": METHODS}))
    (drawn,) = of_type(fig, "heatmap")
    np.testing.assert_allclose(drawn["z"], table)
    assert list(drawn["x"]) == list(drawn["y"]) == ["rollout", "max flow", "cross attention"]
    assert fig.layout.yaxis.autorange == "reversed"
    assert list(drawn["text"][0]) == ["1.00", "0.90", "0.20"]


def test_faithfulness_has_methods_in_rows_and_scores_in_columns():
    scores = xr.Dataset(
        {"insertion": ("method", [0.9, 0.5, 0.1]), "deletion": ("method", [0.3, 0.2, 0.6])}, coords={"method": METHODS}
    )
    fig = plot.faithfulness(scores)
    (drawn,) = of_type(fig, "heatmap")
    assert list(drawn["y"]) == ["rollout", "max flow", "cross attention"]
    assert [head.split("<br>") for head in drawn["x"]] == [["insertion", "higher is better"], ["deletion", "lower is better"]]
    assert [list(line) for line in drawn["text"]] == [["0.9", "0.3"], ["0.5", "0.2"], ["0.1", "0.6"]]
    np.testing.assert_allclose(drawn["z"], [[1, 0.75], [0.5, 1], [0, 0]])


def test_sweep_has_the_rate_of_each_group_on_the_line_of_its_label():
    rows = [
        {"label": label, "group": group, "successes": good, "trials": 10}
        for label, group, good in (("one", "plain", 2), ("one", "balanced", 6), ("two", "plain", 1), ("two", "balanced", 9))
    ]
    fig = plot.sweep(rows, quantity="all correct")
    drawn = {trace.name: {round(y): x for x, y in zip(trace.x, trace.y, strict=True)} for trace in fig.data}
    assert drawn == {"plain": {0: 0.2, 1: 0.1}, "balanced": {0: 0.6, 1: 0.9}}
    assert list(fig.layout.yaxis.ticktext) == ["one", "two"] and fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1]
    assert fig.layout.xaxis.title.text == "all correct"
    low, high = plot.wilson(6, 10)
    balanced = fig.data[1]
    assert (balanced.x[0] - balanced.error_x.arrayminus[0], balanced.x[0] + balanced.error_x.array[0]) == pytest.approx(
        (low, high)
    )


def diamond() -> nx.DiGraph:
    """Two ways of unequal width from a text token to the video; 0.2 and 0.5 pass, and the narrow edges are the cut."""
    graph = nx.DiGraph()
    graph.add_node("s", kind="source", layer=0, concept="cat")
    for f, (into, out) in enumerate([(0.2, 0.9), (0.8, 0.5)]):
        graph.add_node(("v", f), kind="video", layer=1, frame=f, y=0, x=0)
        graph.add_edge("s", ("v", f), capacity=into)
        graph.add_edge(("v", f), "t", capacity=out)
    graph.add_node("t", kind="sink", layer=2)
    return graph


def test_sankey_has_each_link_between_its_own_ends():
    fig = plot.sankey(diamond())
    (drawn,) = of_type(fig, "sankey")
    label = drawn["node"]["label"]
    links = {
        (label[s], label[t]): v
        for s, t, v in zip(drawn["link"]["source"], drawn["link"]["target"], drawn["link"]["value"], strict=True)
    }
    expected = {("cat", "frame 0"): 0.2, ("cat", "frame 1"): 0.5, ("frame 0", "video"): 0.2, ("frame 1", "video"): 0.5}
    assert links == pytest.approx(expected)
    places = dict(zip(label, zip(drawn["node"]["x"], drawn["node"]["y"], strict=True), strict=True))
    assert places["cat"][0] < places["frame 0"][0] < places["video"][0]
    assert places["frame 0"][1] < places["frame 1"][1]  # plotly counts y of a Sankey from the top


def test_layered_graph_writes_flow_over_capacity_beside_its_edge():
    fig = plot.layered_graph(diamond())
    edges = {}
    for trace in fig.data:
        if trace.mode == "lines":
            edges[(trace.x[0], trace.y[0], trace.x[-1], trace.y[-1])] = trace.text
    assert edges == {
        (0, 0, 1, 0.5): "capacity 0.2, flow 0.2, in the min cut",
        (0, 0, 1, -0.5): "capacity 0.8, flow 0.5",
        (1, 0.5, 2, 0): "capacity 0.9, flow 0.2",
        (1, -0.5, 2, 0): "capacity 0.5, flow 0.5, in the min cut",
    }
    nodes = fig.data[-1]
    assert dict(zip(nodes.text, zip(nodes.x, nodes.y, strict=True), strict=True)) == {
        "cat": (0, 0), "frame 0": (1, 0.5), "frame 1": (1, -0.5), "video": (2, 0),
    }  # fmt: skip


def test_residual_graph_has_what_is_left_on_each_arc():
    graph = diamond()
    for u, v, flow in (("s", ("v", 0), 0.2), (("v", 0), "t", 0.2), ("s", ("v", 1), 0.1), (("v", 1), "t", 0.1)):
        graph.edges[u, v]["flow"] = flow
    fig = plot.residual_graph(graph)
    arcs = {(t.x[0], t.y[0], t.x[-1], t.y[-1]): t.text.rpartition(": ")[2] for t in fig.data if t.mode == "lines"}
    assert arcs == {
        (1, 0.5, 0, 0): "0.2 to take back",
        (1, 0.5, 2, 0): "0.7 left", (2, 0, 1, 0.5): "0.2 to take back",
        (0, 0, 1, -0.5): "0.7 left", (1, -0.5, 0, 0): "0.1 to take back",
        (1, -0.5, 2, 0): "0.4 left", (2, 0, 1, -0.5): "0.1 to take back",
    }  # fmt: skip


def test_filmstrip_has_the_frames_from_left_to_right():
    film = clip()
    strip = plot.filmstrip(film, gap=2)
    width = film.shape[2]
    for t in range(FRAMES):
        np.testing.assert_array_equal(strip[:, t * (width + 2) : t * (width + 2) + width], film[t])
