"""The judge against rendered truth: clean, degraded, crowded and wrong-on-purpose clips."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter

import numpy as np
import pytest
from scipy import ndimage

from vico_lens import tinyworld
from vico_lens.errors import InputError
from vico_lens.tinyworld.render import Layout, draw, sample_layout
from vico_lens.tinyworld.vocabulary import BACKGROUND, COLOURS, MOTIONS, SHAPES

# `make check-all` raises this to 2,000 clips of every kind.
CLIPS = int(os.environ.get("VICO_LENS_JUDGE_CLIPS", "240"))


def _prompts(count: int, **kind: int) -> list[tinyworld.TinyPrompt]:
    """Many prompts: there are only 360 different ones of one object, so large counts repeat some, with other layouts."""
    seeds = range(21, 21 + count // 100 + 1)
    return [p for seed in seeds for p in tinyworld.sample_prompts(min(100, count - 100 * (seed - 21)), seed=seed, **kind)]


@pytest.fixture(scope="module")
def truth() -> list[tuple[tinyworld.TinyPrompt, tinyworld.Clip]]:
    rng = np.random.default_rng(20)
    clips = []
    for objects, relation, share in ((1, False, 0.3), (2, False, 0.4), (3, False, 0.15), (2, True, 0.15)):
        for prompt in _prompts(int(CLIPS * share), objects=objects, relation=relation):
            while (layout := sample_layout(prompt, rng)) is None:
                prompt = dataclasses.replace(prompt, objects=tuple(dataclasses.replace(o, size="small") for o in prompt.objects))
            frames, masks = draw(prompt.objects, layout)
            clips.append((prompt, tinyworld.Clip((frames * 255).round().astype(np.uint8), masks, layout)))
    return clips


def _blur(frames: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(frames / 255, (0, sigma, sigma, 0)).astype(np.float32)


def _noise(frames: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    unit = frames / 255 if frames.dtype == np.uint8 else frames
    return np.clip(unit + rng.normal(0, sigma, frames.shape), 0, 1)


@pytest.mark.parametrize("damage", ["none", "noise", "blur", "noise and blur"])
def test_right_clips_are_right(truth, damage):
    rng = np.random.default_rng(4)
    change = {
        "none": lambda frames: frames,
        "noise": lambda frames: _noise(frames, 0.06, rng),
        "blur": lambda frames: _blur(frames, 0.6),
        "noise and blur": lambda frames: _noise(_blur(frames, 0.5), 0.04, rng),
    }[damage]
    failures = Counter(tinyworld.judge(change(clip.frames), prompt).failure for prompt, clip in truth)
    assert failures[None] >= 0.99 * len(truth), failures


def test_objects_at_the_legal_limit_are_told_apart():
    rng = np.random.default_rng(9)
    failures: Counter[str | None] = Counter()
    for prompt in _prompts(CLIPS // 2, objects=2):
        radii = np.array(
            [rng.uniform(3.3, 3.7) if o.size == "small" else rng.uniform(4.9, 5.3) for o in prompt.objects], np.float32
        )
        gap = 1.05 * radii.sum() + 0.5
        still = tinyworld.TinyPrompt(tuple(dataclasses.replace(o, motion="still", size=None) for o in prompt.objects))
        first = np.array([16 - gap / 2, 16 + rng.uniform(-4, 4)], np.float32)
        centres = np.tile(np.stack([first, first + np.array([gap, rng.uniform(-3, 3)])])[:, None], (1, 8, 1)).astype(np.float32)
        frames, _ = draw(still.objects, Layout(centres, radii))
        failures[tinyworld.judge(frames, still).failure] += 1
    assert failures[None] >= 0.99 * failures.total(), failures


def _replace(prompt: tinyworld.TinyPrompt, index: int, **changes: str) -> tinyworld.TinyPrompt:
    items = list(prompt.objects)
    items[index] = dataclasses.replace(items[index], **changes)
    return tinyworld.TinyPrompt(tuple(items), prompt.relation)


def _wrong_prompts(prompt: tinyworld.TinyPrompt, rng: np.random.Generator):
    """Prompts that the clip of `prompt` does not show, each with the failures that say so."""
    items = prompt.objects
    free = [colour for colour in COLOURS if colour not in {o.colour for o in items}]
    index = int(rng.integers(len(items)))
    yield _replace(prompt, index, colour=str(rng.choice(free))), {"wrong_attribute"}
    other = str(rng.choice([shape for shape in SHAPES if shape != items[index].shape]))
    yield _replace(prompt, index, shape=other), {"wrong_attribute", "attribute_leak"}
    if prompt.relation:
        yield tinyworld.TinyPrompt((items[1], items[0]), prompt.relation), {"wrong_relation"}
        return
    motion = str(rng.choice([word for word in MOTIONS if word != items[index].motion]))
    yield _replace(prompt, index, motion=motion), {"wrong_motion", "motion_mixing"}
    if items[index].size:
        yield _replace(prompt, index, size="small" if items[index].size == "large" else "large"), {"wrong_size"}
    if len(items) > 1:
        yield tinyworld.TinyPrompt(items[:-1]), {"extra_object"}
    if len(items) < 3:
        yield tinyworld.TinyPrompt((*items, tinyworld.TinyObject("circle", free[0], "up"))), {"missing_subject"}
    if len(items) == 2:
        first, second = items
        if first.motion != second.motion:
            swapped = (dataclasses.replace(first, motion=second.motion), dataclasses.replace(second, motion=first.motion))
            yield tinyworld.TinyPrompt(swapped), {"motion_mixing"}
        if first.shape != second.shape:
            swapped = (dataclasses.replace(first, shape=second.shape), dataclasses.replace(second, shape=first.shape))
            yield tinyworld.TinyPrompt(swapped), {"attribute_swap"}


def test_wrong_clips_are_wrong_for_the_right_reason(truth):
    rng = np.random.default_rng(5)
    right = wrong = 0
    for prompt, clip in truth:
        for other, expected in _wrong_prompts(prompt, rng):
            if tinyworld.judge(clip.frames, other).failure in expected:
                right += 1
            else:
                wrong += 1
    assert right + wrong > 3 * CLIPS
    assert right >= 0.99 * (right + wrong), (right, wrong)


def test_unreadable_blobs_and_empty_clips():
    prompt = tinyworld.parse_prompt("a red circle staying still")
    empty = np.broadcast_to(np.asarray(BACKGROUND, np.float32), (8, 32, 32, 3)).copy()
    assert tinyworld.judge(empty, prompt).failure == "missing_subject"
    bar = empty.copy()
    bar[:, 15:18, 6:26] = COLOURS["red"]
    verdict = tinyworld.judge(bar, prompt)
    assert verdict.failure == "unreadable"
    assert verdict.present == (True,)


def test_two_objects_of_one_colour_are_a_leak():
    asked = tinyworld.parse_prompt("a red circle staying still and a blue square staying still")
    painted = (tinyworld.TinyObject("circle", "red"), tinyworld.TinyObject("square", "red"))
    centres = np.tile(np.array([[[9, 9]], [[22, 22]]], np.float32), (1, 8, 1))
    frames, _ = draw(painted, Layout(centres, np.array([5, 5], np.float32)))
    verdict = tinyworld.judge(frames, asked)
    assert verdict.failure == "attribute_leak"
    assert verdict.attributes[0]["colour"] and not verdict.attributes[1]["colour"]


def test_the_subjects_are_not_right_beside_another_object():
    both = tinyworld.render("a red circle staying still and a blue square staying still", seed=0)
    verdict = tinyworld.judge(both.frames, "a red circle staying still")
    assert verdict.failure == "extra_object" and verdict.present == (True,)
    assert verdict.attributes[0]["colour"] and verdict.attributes[0]["shape"] and not verdict.subjects_correct


@pytest.mark.parametrize(("lead", "failure"), [(-6.0, "wrong_relation"), (0.5, "wrong_relation"), (4.0, None)])
def test_a_relation_needs_a_lead(lead, failure):
    asked = tinyworld.parse_prompt("a red circle left of a blue square")
    centres = np.tile(np.array([[[14, 8]], [[14 + lead, 23]]], np.float32), (1, 8, 1))
    frames, _ = draw(asked.objects, Layout(centres, np.array([5, 5], np.float32)))
    assert tinyworld.judge(frames, asked).failure == failure


@pytest.mark.parametrize("bad", [np.zeros((8, 16, 16, 3)), np.zeros((4, 32, 32, 3)), np.full((8, 32, 32, 3), np.nan)])
def test_unusable_clips_are_refused(bad):
    with pytest.raises(InputError, match="clip"):
        tinyworld.judge(bad, "a red circle staying still")


def test_verdicts_agree_over_input_types(truth):
    import torch
    from PIL import Image

    prompt, clip = truth[0]
    reference = tinyworld.judge(clip.frames, prompt)
    assert tinyworld.judge(torch.from_numpy(clip.frames) / 255, prompt).failure == reference.failure
    assert tinyworld.judge([Image.fromarray(frame) for frame in clip.frames], prompt).failure == reference.failure
