"""Each kind of bad input that attribution must refuse: the error says what was expected and what is there."""

from __future__ import annotations

import numpy as np
import pytest

import vico_lens as vl
from vico_lens.errors import AttributionError, ConceptError, InputError, VicoLensError
from vico_lens.testing.traces import fake_trace


def without_text():
    tree = fake_trace(grid=(2, 2, 2), coarse=None)
    return tree.filter(lambda node: not node.path.startswith("/cross/"))


def with_nan():
    tree = fake_trace(grid=(2, 2, 2), coarse=None)
    tree["temporal/2x2x2"]["weights"][{"layer": 0, "head": 0}] = np.nan
    return tree


CASES = {
    "unknown concept": (fake_trace, ("rollout", ["green cone"]), {}, ConceptError, r"'green cone' is not in the prompt .*red"),
    "unknown method": (fake_trace, ("max_flwo",), {}, InputError, r"unknown attribution method 'max_flwo'.*'max_flow'"),
    "a kind that the trace lacks": (
        without_text,
        ("rollout",),
        {},
        AttributionError,
        r"expected a trace with cross or joint attention; this one holds spatial, temporal",
    ),
    "a step that was not captured": (
        fake_trace,
        ("rollout",),
        {"steps": [1, 7]},
        InputError,
        r"steps: expected one or more of \[0, 1\].*got \[1, 7\]",
    ),
    "maps that are not a number": (
        with_nan,
        ("rollout",),
        {},
        AttributionError,
        r"expected finite attention weights; .*motion.attn1 at step 0 holds NaN",
    ),
    "a mask of the wrong shape": (
        fake_trace,
        ("max_flow",),
        {"sink": np.ones((4, 3, 3), bool)},
        InputError,
        r"sink: expected a mask of shape \(4, 4, 4\) .*got \(4, 3, 3\)",
    ),
    "a mask of a picture": (
        fake_trace,
        ("max_flow",),
        {"sink": np.full((4, 4, 4), 255, np.uint8)},
        InputError,
        r"sink: expected a mask of booleans or of capacities in 0\.\.1; got others",
    ),
    "an empty mask": (
        fake_trace,
        ("max_flow",),
        {"sink": np.zeros((4, 4, 4), bool)},
        InputError,
        r"sink: expected at least one video token in every mask; got an empty one",
    ),
    "no concept": (fake_trace, ("rollout", []), {}, ConceptError, r"at least one concept is needed, got an empty list"),
    "no token of a concept": (
        fake_trace,
        ("rollout", {"it": []}),
        {},
        InputError,
        r"concept 'it': expected one or more token indices in 0\.\.19; got \[\]",
    ),
    "one token twice": (fake_trace, ("cross_attention", {"it": [2, 2]}), {}, InputError, r"count twice; got \[\[2, 2\]\]"),
    "no step": (fake_trace, ("rollout",), {"steps": []}, InputError, r"steps: expected one or more of \[0, 1\].*got \[\]"),
    "one step twice": (
        fake_trace,
        ("rollout",),
        {"steps": [1, 1]},
        InputError,
        r"steps: expected .*got \[1, 1\], one of them twice",
    ),
    "heads of the whole model": (
        fake_trace,
        ("leave_one_out",),
        {"pipe": object(), "heads": 0},
        InputError,
        r"all heads, and explains its conditional branch; got heads=0",
    ),
    "no layer": (
        fake_trace,
        ("rollout",),
        {"layers": "*nothing*"},
        InputError,
        r"selects none of the \d+ usable sites. Present: ",
    ),
    "no head": (fake_trace, ("rollout",), {"heads": []}, InputError, r"heads: expected one or more of \[0, 1\]"),
}


@pytest.mark.parametrize("what", CASES)
def test_bad_input_is_told_what_was_expected_and_what_is_there(what):
    tree, arguments, options, kind, message = CASES[what]
    assert issubclass(kind, VicoLensError)
    with pytest.raises(kind, match=message):
        vl.attribute(tree(), *arguments, **options)
