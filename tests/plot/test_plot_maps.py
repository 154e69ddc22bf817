from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import NAMES, influence, uneven, video

from vico_lens import plot
from vico_lens.errors import InputError
from vico_lens.plot.colours import rgb
from vico_lens.plot.composite import as_frames, enlarge, grey, overlay, spans
from vico_lens.plot.reading import influence_maps


def picture(trace) -> np.ndarray:
    kind, content = trace["source"].split(",", 1)
    assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_numbers_are_the_known_shares():
    data = influence()
    data[1, :, 2, 3, 5] = 9.0
    numbers = plot.influence_numbers(data)
    assert numbers["maps"].dims == ("concept", "frame", "y", "x")
    assert [int(numbers[f"peak_{dim}"][1]) for dim in ("frame", "y", "x")] == [2, 3, 5]
    cells = 4 * 4 * 6
    assert np.allclose(numbers["share"], np.array([0.7 * cells, 0.3 * cells + 8.7]) / (cells + 8.7))


def test_one_step_can_be_chosen_and_a_missing_one_is_named():
    data = uneven()
    assert np.allclose(plot.influence_numbers(data, step=2)["maps"], data.sel(step=2))
    with pytest.raises(InputError, match=r"step 3 is not .* \[0, 2, 4\]"):
        plot.influence_numbers(data, step=3)
    with pytest.raises(InputError, match="summed up over steps"):
        plot.influence_numbers(data.mean("step"), step=0)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda d: d.isel(frame=0), "expected an influence with the dims"),
        (lambda d: d.expand_dims("method"), "select or reduce"),
        (lambda d: d.drop_vars("concept"), "named concepts"),
        (lambda d: d.isel(x=slice(0, 0)), "sizes"),
        (lambda d: d.where(d["step"] != 2), "finite"),
        (lambda d: d.values, "ndarray"),
    ],
)
def test_unusable_influence_is_refused(broken, message):
    with pytest.raises(InputError, match=message):
        influence_maps(broken(influence()))


def test_figure_has_a_frame_for_every_video_frame_and_maps_the_latent_ones():
    data, film = uneven(frames=2), video(frames=8)
    figure = plot.influence(data, film, fps=4).to_dict()
    assert [frame["name"] for frame in figure["frames"]] == [str(t) for t in range(8)]
    kinds = [trace["type"] for trace in figure["data"]]
    assert kinds == ["image"] * 3 + ["heatmap"] * 2
    maps = data.mean("step")
    for t in (0, 3, 4, 7):
        cells = figure["frames"][t]["data"][3]
        assert np.allclose(cells["z"], maps[0, t // 4], rtol=1e-4)
    assert len(figure["layout"]["sliders"][0]["steps"]) == 8
    assert figure["layout"]["updatemenus"][0]["buttons"][0]["args"][1]["frame"]["duration"] == 250
    assert "takes" in figure["layout"]["title"]["text"]


def test_pictures_lie_exactly_under_the_cells():
    film = video()
    trace = plot.influence(uneven(), film).to_dict()["data"][0]
    shown = picture(trace)
    height, width = shown.shape[:2]
    assert np.isclose(trace["x0"] - trace["dx"] / 2, -0.5) and np.isclose(trace["x0"] + trace["dx"] * (width - 0.5), 5.5)
    assert np.isclose(trace["y0"] - trace["dy"] / 2, -0.5) and np.isclose(trace["y0"] + trace["dy"] * (height - 0.5), 3.5)
    factor = height // 32
    assert np.array_equal(shown[::factor, ::factor], film[0])


def test_large_videos_are_reduced_and_long_ones_thinned():
    figure = plot.influence(uneven(frames=4), video(frames=60, rows=244, columns=320)).to_dict()
    assert len(figure["frames"]) == 48
    assert figure["frames"][-1]["name"] == "59"
    assert picture(figure["data"][0]).shape == (240, 315, 3)


def test_one_colour_scale_or_each_its_own():
    data = influence()
    shared = plot.influence(data).to_dict()["data"]
    assert np.allclose([(trace["zmin"], trace["zmax"]) for trace in shared], [(0.3, 0.7)] * 2)
    each = spans(influence_maps(uneven()), "each")
    assert each[0, 1] > each[1, 1]
    with pytest.raises(InputError, match="'shared' or 'each'"):
        plot.influence(data, scale="log")


def test_colours_and_titles_are_the_same_in_every_figure():
    data = uneven()
    colours = plot.concept_colours(NAMES)
    for figure in (plot.influence(data), plot.method_maps({"a": data}), plot.side_by_side(data, data)):
        cells = [trace for trace in figure.to_dict()["data"] if trace["type"] == "heatmap"]
        for name, trace in zip(NAMES, cells, strict=False):
            assert f"rgba({','.join(map(str, rgb(colours[name])))},0.9)" == trace["colorscale"][-1][1]


def test_foreign_names_stay_text():
    evil = "<a href='javascript:x'>&</a>"
    figure = plot.influence(influence(names=(evil, "b"))).to_json()
    assert "<a href" not in figure and "\\u003ca href" not in figure


def test_method_maps_say_who_disagrees():
    methods = {"a": influence(), "b": influence(), "long_name": influence(weights=(0.2, 0.8))}
    numbers = plot.method_maps_numbers(methods)
    assert numbers["leader"].values.tolist() == ["red circle", "red circle", "blue square"]
    assert np.allclose(numbers["share"].sel({"method": "long_name"}), [0.2, 0.8])
    title = plot.method_maps(methods).layout.meta["finding"]
    assert title.startswith("2 of 3 methods") and title.endswith("long name does not")
    with pytest.raises(InputError, match="must have the concepts"):
        plot.method_maps({"a": influence(), "b": influence(names=("x", "y"))})
    with pytest.raises(InputError, match="at least one method"):
        plot.method_maps({})


def test_side_by_side_uses_one_scale_for_both_runs():
    before, after = influence(weights=(0.8, 0.2)), influence(weights=(0.5, 0.4))
    cells = [t for t in plot.side_by_side(before, after, (video(), video(seed=1))).to_dict()["data"] if t["type"] == "heatmap"]
    assert np.allclose([(trace["zmin"], trace["zmax"]) for trace in cells], [(0.2, 0.8)] * 4)


@pytest.mark.parametrize("form", ["uint8", "float", "torch", "pil"])
def test_every_form_of_video_is_the_same_video(form):
    film = video(rows=8, columns=6)
    given = {
        "uint8": film,
        "float": film / 255,
        "torch": torch.from_numpy(film / 255.0),
        "pil": [Image.fromarray(frame) for frame in film],
    }[form]
    assert np.array_equal(as_frames(given), film)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3)) + 2, np.zeros((1, 4, 4, 3), np.int64), np.full((1, 2, 2, 3), np.nan)],
)
def test_what_is_no_video_is_refused(bad):
    with pytest.raises(InputError, match="a video must"):
        as_frames(bad)


def test_overlay_is_grey_where_nothing_is_and_coloured_where_most_is():
    film = video(frames=2, rows=8, columns=8)
    values = np.zeros((2, 2, 2))
    values[0, 0, 1] = 2.0
    painted = overlay(film, values, "#0072B2", np.array([0.0, 2.0]), strength=1.0)
    assert np.array_equal(painted[1], grey(film)[1])
    assert (painted[0, :4, 4:] == rgb("#0072B2")).all()
    assert np.array_equal(painted[0, 4:], grey(film)[0, 4:])
    bare = overlay(None, values, "#0072B2", np.array([0.0, 2.0]))
    assert bare.shape == (2, 2, 2, 3) and (bare[1] == 255).all()


def test_composite_sets_video_and_maps_side_by_side():
    film = video(rows=32, columns=32)
    out = plot.composite(uneven(columns=4), film, size=64, gap=5)
    assert out.shape == (4, 64 + 4, 64 * 3 + 10, 3)
    assert np.array_equal(out[:, 4:, :64], enlarge(film, 2))
    assert (out[:, :4, 69:133] == rgb(plot.concept_colours(NAMES)["red circle"])).all()
