from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from synthetic import NAMES, balance_log, influence, uneven

from vico_lens import plot
from vico_lens.attribution.dominance import dominance
from vico_lens.errors import InputError


def test_shares_agree_with_dominance():
    data = uneven()
    found = dominance(data)
    for given in (data, found):
        assert np.allclose(plot.shares_numbers(given)["share"], found["share"])
    assert np.allclose(plot.share_by_frame_numbers(data), plot.share_by_frame_numbers(found))
    assert np.allclose(plot.share_by_step_numbers(data), plot.share_by_step_numbers(found))


def test_interval_over_steps_holds_the_share_and_says_what_it_is():
    numbers = plot.shares_numbers(uneven(steps=12))
    assert (numbers["low"] < numbers["share"]).all() and (numbers["share"] < numbers["high"]).all()
    assert numbers.attrs["interval"] == "95 % bootstrap interval over 12 denoising steps"
    assert "4 frames" in plot.shares_numbers(uneven().isel(step=0, drop=True)).attrs["interval"]
    lone = plot.shares_numbers(uneven(steps=1, frames=1))
    assert np.isnan(lone["low"]).all() and lone.attrs["interval"] == ""


def test_interval_over_runs_is_taken_from_dominance():
    found = dominance([uneven(seed=s) for s in range(5)])
    numbers = plot.shares_numbers(found)
    assert np.allclose(numbers["low"], found["share_low"]) and np.allclose(numbers["high"], found["share_high"])
    assert "5 runs" in numbers.attrs["interval"] and "5 runs" in plot.shares(found).layout.meta["note"]


def test_shares_figure_states_the_finding_and_draws_the_interval():
    drawn = plot.shares(uneven(steps=12))
    figure = drawn.to_dict()
    bar = figure["data"][0]
    numbers = plot.shares_numbers(uneven(steps=12))
    assert np.allclose(drawn.data[0].x, numbers["share"])
    assert np.allclose(drawn.data[0].x - drawn.data[0].error_x.arrayminus, numbers["low"])
    assert bar["marker"]["color"] == list(plot.concept_colours(NAMES).values())
    assert "“\u2068red circle\u2069” takes 71" in figure["layout"]["meta"]["finding"]


def test_no_dominance_is_not_called_dominance():
    steps = influence(weights=(0.5, 0.5), steps=8) * xr.DataArray(np.tile([[1.5, 1.0], [1.0, 1.5]], 4), dims=("concept", "step"))
    assert "No concept dominates: “\u2068red circle\u2069” and" in plot.shares(steps).layout.meta["finding"]
    near = steps * xr.DataArray([1.05, 1.0], dims="concept")
    assert plot.shares(near).layout.meta["finding"].startswith("No concept clearly dominates: “\u2068red circle\u2069” leads")
    assert "only concept" in plot.shares(influence(names=("a",), weights=(1,))).layout.meta["finding"]
    assert "No influence" in plot.shares(influence() * 0).layout.meta["finding"]


def test_signed_influence_counts_by_size():
    assert np.allclose(plot.shares_numbers(influence(weights=(-0.7, 0.3)))["share"], [0.7, 0.3])


def test_ribbon_adds_up_to_one_and_counts_the_leading_frames():
    data = influence(frames=4)
    data[1, :, 3] = 2.0
    numbers = plot.share_by_frame_numbers(data)
    assert np.allclose(numbers.sum("concept"), 1)
    figure = plot.share_by_frame(data)
    assert figure.layout.meta["finding"] == "“\u2068red circle\u2069” leads in 3 of 4 frames"
    assert all(trace.stackgroup == "share" for trace in figure.data)


def test_frames_without_influence_have_no_share():
    data = influence()
    data[:, :, 1] = 0
    numbers = plot.share_by_frame_numbers(data)
    assert np.isnan(numbers.sel(frame=1) if "frame" in numbers.coords else numbers.isel(frame=1)).all()
    assert "3 of 4" in plot.share_by_frame(data).layout.meta["finding"]


def test_steps_are_labelled_as_recorded_and_needed():
    figure = plot.share_by_step(influence())
    assert list(figure.data[0].x) == [0, 2, 4]
    with pytest.raises(InputError, match="summed over steps"):
        plot.share_by_step(influence().mean("step"))
    with pytest.raises(InputError, match="share_by_step"):
        plot.share_by_step(dominance(influence().mean("step")))
    with pytest.raises(InputError, match=r"share\(concept\)"):
        plot.shares(xr.Dataset({"other": ("concept", [1.0])}))


def test_before_after_reports_the_change():
    numbers = plot.before_after_numbers(influence(weights=(0.8, 0.2)), influence(weights=(0.6, 0.4)))
    assert np.allclose(numbers["change"], [-0.2, 0.2])
    figure = plot.before_after(influence(weights=(0.8, 0.2)), influence(weights=(0.6, 0.4)))
    assert figure.layout.meta["finding"] == "Balancing narrows the gap between the concepts from 60 to 20 points"
    assert sum(note.showarrow is True for note in figure.layout.annotations) == 2
    same = plot.before_after(influence(), influence())
    assert "leaves the gap" in same.layout.meta["finding"] and not any(n.showarrow is True for n in same.layout.annotations)
    with pytest.raises(InputError, match="same concepts"):
        plot.before_after(influence(), influence(names=("a", "b")))


def test_balancing_draws_loss_shares_and_change():
    log = balance_log()
    numbers = plot.balancing_numbers(log)
    assert np.allclose(numbers["share"].sum("concept"), 1) and np.allclose(numbers["share"][0], [0.7, 0.3])
    figure = plot.balancing(log)
    assert [trace.type for trace in figure.data] == ["scatter", "scatter", "scatter", "bar"]
    assert {trace.yaxis or "y" for trace in figure.data} == {"y", "y2", "y3"}
    assert "30\u00a0% of the influence at the first of 6 updates, 40\u00a0% at the last" in figure.layout.meta["finding"]
    with pytest.raises(InputError, match="no update"):
        plot.balancing(log.isel(update=slice(0, 0)))
    with pytest.raises(InputError, match=r"missing.*latent_change"):
        plot.balancing(log.drop_vars("latent_change"))
