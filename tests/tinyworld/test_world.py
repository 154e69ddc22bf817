"""Grammar and renderer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vico_lens import tinyworld
from vico_lens.errors import InputError
from vico_lens.tinyworld.render import coverage
from vico_lens.tinyworld.vocabulary import COLOURS, MOTIONS, SHAPES, SIDE, SIZES


@given(seed=st.integers(0, 10**6), objects=st.integers(1, 3))
def test_every_prompt_reads_back(seed, objects):
    (prompt,) = tinyworld.sample_prompts(1, objects=objects, seed=seed)
    assert tinyworld.parse_prompt(str(prompt)) == prompt


@given(seed=st.integers(0, 10**6))
def test_relations_read_back(seed):
    (prompt,) = tinyworld.sample_prompts(1, relation=True, seed=seed)
    assert prompt.relation in ("left of", "above")
    assert tinyworld.parse_prompt(str(prompt)) == prompt


def test_sampling_is_seeded_distinct_and_respects_held_out_pairs():
    first, again = (tinyworld.sample_prompts(80, seed=4) for _ in range(2))
    assert first == again != tinyworld.sample_prompts(80, seed=5)
    assert len(set(first)) == 80
    assert all(tinyworld.is_held_out(*p.objects) for p in tinyworld.sample_prompts(20, held_out=True))
    assert not any(tinyworld.is_held_out(*p.objects) for p in tinyworld.sample_prompts(20, held_out=False))


def test_a_fifth_of_the_pairs_is_held_out():
    objects = [tinyworld.TinyObject(shape, colour) for shape in SHAPES for colour in COLOURS]
    pairs = list(itertools.combinations(objects, 2))
    share = sum(tinyworld.is_held_out(*pair) for pair in pairs) / len(pairs)
    assert 0.15 < share < 0.25
    assert all(tinyworld.is_held_out(a, b) == tinyworld.is_held_out(b, a) for a, b in pairs)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a pink elephant moving up", "'pink', 'elephant'"),
        ("a red circle", "not a sentence"),
        ("a red circle moving up a blue square moving down", "not a sentence"),
        ("a red circle moving up and a red square moving down", "different colours"),
    ],
)
def test_bad_prompts_say_what_is_wrong(text, says):
    with pytest.raises(InputError, match=says):
        tinyworld.parse_prompt(text)


def test_impossible_requests_are_refused():
    with pytest.raises(InputError):
        tinyworld.sample_prompts(3, objects=4)
    with pytest.raises(InputError):
        tinyworld.sample_prompts(3, objects=1, held_out=True)
    with pytest.raises(InputError, match="no 100000"):
        tinyworld.sample_prompts(100000, objects=1, sizes=False)


def test_masks_are_what_is_painted():
    prompt = tinyworld.parse_prompt("a small red circle moving right and a white cross moving up")
    clip = tinyworld.render(prompt, seed=3)
    assert clip.frames.shape == (8, SIDE, SIDE, 3)
    assert clip.frames.dtype == np.uint8
    for item, mask in zip(prompt.objects, clip.masks, strict=True):
        inside = clip.frames[mask == 1] / 255
        np.testing.assert_allclose(inside, np.broadcast_to(COLOURS[item.colour], inside.shape), atol=1 / 255)
    assert (clip.masks.sum(0) <= 1 + 1e-6).all()
    again = tinyworld.render(prompt, seed=3)
    assert (again.frames == clip.frames).all()


@pytest.mark.parametrize("motion", list(MOTIONS))
def test_objects_move_as_told(motion):
    how = "staying still" if motion == "still" else f"moving {motion}"
    centres = tinyworld.render(f"a green triangle {how}", seed=1).layout.centres[0]
    steps = np.diff(centres, axis=0)
    speed = steps @ np.array(MOTIONS[motion]) if motion != "still" else np.abs(steps).sum(1)
    assert np.all((speed > 1.0) & (speed < 1.5)) if motion != "still" else np.all(speed == 0)


def test_sizes_and_places_stay_inside():
    for seed, prompt in enumerate(tinyworld.sample_prompts(60, objects=1, seed=8)):
        layout = tinyworld.render(prompt, seed=seed).layout
        radius = layout.radii[0]
        assert (layout.centres - radius > 0).all() and (layout.centres + radius < SIDE).all()
        if prompt.objects[0].size in SIZES:
            assert (radius < 4.3) == (prompt.objects[0].size == "small")


def test_coverage_is_anti_aliased_area():
    centre = np.array(16.3, np.float32)
    disc = coverage("circle", centre, centre, np.array(5.0, np.float32))
    assert disc.sum() == pytest.approx(np.pi * 25, rel=0.01)
    square = coverage("square", centre, centre, np.array(5.0, np.float32))
    assert square.sum() == pytest.approx((2 * 0.92 * 5) ** 2, rel=0.01)
    with pytest.raises(InputError, match="unknown shape"):
        coverage("blob", centre, centre, centre)
