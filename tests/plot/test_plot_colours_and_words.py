from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.errors import InputError
from vico_lens.kernels.intervals import bootstrap_mean
from vico_lens.plot import concept_colours, template, wilson
from vico_lens.plot.colours import GREY, PALETTE, alpha_scale, rgb
from vico_lens.plot.wording import number, percent, plain, quoted, wrapped


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb(colour))]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(first: str, second: str) -> float:
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def seen_by(colour: str, kind: str) -> np.ndarray:
    """Brettel-like projection (Viénot 1999) for protan and deutan vision, in linear light."""
    matrix = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }[kind]
    linear = np.array([(v / 255) ** 2.2 for v in rgb(colour)])
    return np.clip(np.array(matrix) @ linear, 0, 1) ** (1 / 2.2)


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


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_first_six_colours_stay_apart_in_colour_blind_eyes(kind):
    for first, second in itertools.combinations(list(PALETTE.values())[:6], 2):
        assert np.linalg.norm(seen_by(first, kind) - seen_by(second, kind)) > 0.1, (first, second)


def test_marks_can_be_seen_on_both_papers():
    for theme in ("light", "dark"):
        paper = template(theme)["layout"]["paper_bgcolor"]
        assert contrast(GREY, paper) >= 3
        assert contrast(template(theme)["layout"]["font"]["color"], paper) >= 7
        assert all(contrast(colour, paper) >= 1.9 for colour in PALETTE.values())


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
