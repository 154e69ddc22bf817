"""The policy itself: what it selects, what it refuses, and that JSON says it all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.errors import InputError
from vico_lens.tracing.capture import Capture, parse_bytes
from vico_lens.vocabulary.schema import AttentionSite

SITE = AttentionSite("unet.up_blocks.0.attentions.1.transformer_blocks.0.attn2", "cross", (8, 4, 4), 4, 8, 32, 7)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("512 MiB", 512 * 2**20), ("2e6", 2_000_000), (17, 17), ("1k", 1000), ("0.5 GB", 5 * 10**8)],
)
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-3GB", 0, "4 XB", True])
def test_what_is_no_size_is_refused(text: Any) -> None:
    with pytest.raises(InputError, match="number of bytes"):
        parse_bytes(text)


@given(st.integers(1, 60), st.slices(60))
def test_steps_by_slice_are_those_of_a_list(count: int, steps: slice) -> None:
    expected = sorted(list(range(count))[steps])
    if expected:
        assert Capture(steps=steps).chosen_steps(count) == expected
    else:
        with pytest.raises(InputError, match="name some of the"):
            Capture(steps=steps).chosen_steps(count)


def test_steps_by_number_count_from_either_end() -> None:
    assert Capture(steps=[-1, 0, 3, 99]).chosen_steps(10) == [0, 3, 9]
    assert Capture(steps=-2).chosen_steps(10) == [8]
    assert Capture().chosen_steps(3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("capture", "wanted"),
    [
        (Capture(), True),
        (Capture(kinds="cross"), True),
        (Capture(kinds=("temporal", "spatial")), False),
        (Capture(layers="*up_blocks*"), True),
        (Capture(layers=["cross/8x8x8", "cross/8x4x4"]), True),
        (Capture(layers="*down_blocks*", kinds="cross"), False),
    ],
)
def test_sites_by_kind_and_pattern(capture: Capture, wanted: bool) -> None:
    assert capture.wants(SITE) is wanted


def test_heads() -> None:
    assert Capture().chosen_heads(SITE) is None
    assert Capture(heads=[3, 0, 9]).chosen_heads(SITE) == [0, 3]
    with pytest.raises(InputError, match="has 0 to 3"):
        Capture(heads=9).chosen_heads(SITE)


@pytest.mark.parametrize(
    "options",
    [
        {"store": "zip"},
        {"dtype": "int8"},
        {"branch": "left"},
        {"kinds": ["crossing"]},
        {"heads": [-1]},
        {"heads": []},
        {"steps": ["first"]},
        {"budget": "lots"},
    ],
)
def test_values_that_are_not_choices_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options)) if "budget" not in options else "bytes"):
        Capture(**options)


def test_json_keeps_every_setting() -> None:
    stored = json.loads(Capture(steps=slice(0, None, 5), kinds="cross", heads=(0, 1), branch="both", budget="4GB").to_json())
    assert stored == {
        "steps": {"slice": [0, None, 5]},
        "layers": None,
        "kinds": "cross",
        "heads": [0, 1],
        "store": "auto",
        "dtype": "model",
        "branch": "both",
        "budget": "4GB",
        "tokens": None,
    }
