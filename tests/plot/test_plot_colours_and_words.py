from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.errors import InputError
from vico_lens.kernels.intervals import bootstrap_mean
from vico_lens.plot import concept_colours, template, wilson
from vico_lens.plot.colours import PALETTE, alpha_scale, rgb
from vico_lens.plot.wording import number, percent, plain, quoted, wrapped


def test_hue_words_get_their_hue_and_others_never_take_it():
    colours = concept_colours(["a cat", "blue square", "red circle", "green cross"])
    assert colours["blue square"] == PALETTE["blue"]
    assert colours["red circle"] == PALETTE["vermillion"]
    assert colours["green cross"] == PALETTE["green"]
    assert colours["a cat"] not in {PALETTE["blue"], PALETTE["vermillion"], PALETTE["green"]}


def test_given_colours_are_kept_and_not_given_away():
    colours = concept_colours(["blue square", "cat"], {"cat": PALETTE["blue"]})
    assert colours["cat"] == PALETTE["blue"] != colours["blue square"]


@given(st.lists(st.text(max_size=12), max_size=17))
def test_every_name_has_a_colour_of_its_own(names):
    colours = concept_colours(names)
    assert list(colours) == list(dict.fromkeys(names))
    assert len(set(colours.values())) == len(colours)
    assert concept_colours(names) == colours


@pytest.mark.parametrize("bad", ["red", "#12", "#12345g", "url(x)", "#123456;"])
def test_only_hex_colours_reach_the_page(bad):
    with pytest.raises(InputError, match="#0072B2"):
        rgb(bad)


def test_alpha_scale_starts_clear():
    assert alpha_scale("#0072B2", 0.9)[0][1] == "rgba(0,114,178,0)"
    assert alpha_scale("#0072B2", 0.9)[-1][1] == "rgba(0,114,178,0.9)"


def test_unknown_theme_is_refused():
    with pytest.raises(InputError, match="'light' or 'dark'"):
        template("neon")


def test_foreign_names_are_escaped_and_isolated():
    assert plain("<b>x</b>\n&") == "&lt;b&gt;x&lt;/b&gt; &amp;"
    assert quoted("שלום") == "“\u2068שלום\u2069”"


def test_numbers_read_well():
    assert percent(float("nan")) == "n/a" == number(float("inf"))
    assert percent(0.0) == "0\u00a0%"
    assert wrapped("", 10) == [""]
    assert all(len(line) <= 10 for line in wrapped("w" * 25, 10))


def test_wilson_agrees_with_published_values():
    # Newcombe 1998, Statistics in Medicine 17: 81 of 263, 0 of 20, 1 of 29 by the score method.
    assert np.allclose(wilson(81, 263), (0.2553, 0.3662), atol=5e-5)
    assert np.allclose(wilson(0, 20), (0.0, 0.1611), atol=5e-5)
    assert np.allclose(wilson(1, 29), (0.0061, 0.1718), atol=5e-5)
    for bad in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(InputError):
            wilson(*bad)


def test_bootstrap_covers_the_mean_and_needs_two_values():
    sample = np.random.default_rng(1).normal(3.0, 1.0, 200)
    low, high = bootstrap_mean(sample)
    assert low < sample.mean() < high
    assert np.isclose(high - low, 2 * 1.96 * sample.std() / np.sqrt(200), rtol=0.15)
    assert np.isnan(bootstrap_mean([1.0])).all()
