"""The palette, measured: contrast on both papers and distance as people with colour deficiencies see it.

Formulas and sources are in section 4 of tests/kernels/oracles.md.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from colour_vision import DEFICIENCIES, ciede2000, contrast, lab

from vico_lens.plot import concept_colours, template
from vico_lens.plot.colours import ACCENT, GREY, PALETTE
from vico_lens.plot.composite import grey

PAPERS = [template(theme)["layout"]["paper_bgcolor"] for theme in ("light", "dark")]


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ],
)
def test_distance_is_that_of_the_published_pairs(first, second, distance):
    assert ciede2000(np.array(first), np.array(second)) == pytest.approx(distance, abs=1e-4)


def test_greys_stay_grey_in_every_deficiency():
    for matrix in DEFICIENCIES.values():
        np.testing.assert_allclose(matrix.sum(1), 1, atol=2e-6)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_colour_stands_out_on_both_papers(paper):
    assert all(contrast(colour, paper) >= 3 for colour in (*PALETTE.values(), GREY))
    assert contrast(ACCENT, paper) >= 2.9


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_any_two_colours_can_be_told_apart(deficiency):
    seen = [lab(colour, deficiency) for colour in PALETTE.values()]
    pairs = {(i, j): ciede2000(seen[i], seen[j]) for i, j in itertools.combinations(range(len(seen)), 2)}
    assert min(pairs.values()) >= 8, min(pairs, key=pairs.__getitem__)
    assert min(distance for (_, j), distance in pairs.items() if j < 4) >= 16


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_a_map_stands_out_from_the_grey_video_under_it(deficiency):
    """The video is drawn in greys between these two; none of them is near a colour of the palette."""
    video = np.array([[[[0, 0, 0], [255, 255, 255]]]], dtype=np.uint8)
    low, high = (int(value) for value in grey(video)[0, 0, :, 0])
    greys = [lab(f"#{value:02x}{value:02x}{value:02x}", deficiency) for value in range(low, high + 1, 4)]
    for colour in PALETTE.values():
        assert min(ciede2000(lab(colour, deficiency), one) for one in greys) >= 6, colour


def test_colours_without_a_hue_are_not_drawn_in_grey():
    colours = concept_colours(["white circle", "grey square", "black cross"])
    assert set(colours.values()) <= set(PALETTE.values()) and len(set(colours.values())) == 3
