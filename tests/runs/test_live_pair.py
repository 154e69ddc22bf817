"""A plain and a balanced run of the bundled model, as a page asks for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import vico_lens as vl
from vico_lens.errors import InputError
from vico_lens.intervention.balancing import presets
from vico_lens.runs.background_job import Cancelled, Job, Progress
from vico_lens.runs.pair import LONGEST, PairSettings, check_settings, found_concepts, run_pair

PROMPT = "a red circle moving right and a blue square moving up"
SETTINGS = PairSettings(PROMPT, ("red circle", "blue square"), steps=5, seed=3)


@pytest.fixture(scope="module")
def pipe():
    loaded = vl.load_pipeline()
    loaded.set_progress_bar_config(disable=True)
    return loaded


def frames(pipe, settings):
    generator = torch.Generator().manual_seed(settings.seed)
    images = pipe(settings.prompt, generator=generator, num_inference_steps=settings.steps).frames[0]
    return np.stack([np.asarray(image) for image in images])


def test_both_runs_are_those_of_the_library(pipe):
    job = Job(lambda progress: None)
    seen = []

    class Watched(Progress):
        def report(self, what, done, total):
            seen.append((what, done, total))
            super().report(what, done, total)

    pair = run_pair(pipe, SETTINGS, Watched(job))
    assert np.array_equal(pair.plain.video, frames(pipe, SETTINGS))  # watching changes nothing
    with vl.balance(pipe, list(SETTINGS.concepts)) as balance:
        expected = frames(pipe, SETTINGS)
    assert np.array_equal(pair.balanced.video, expected)
    assert not np.array_equal(pair.plain.video, pair.balanced.video)
    np.testing.assert_allclose(pair.log.loss, balance.log.loss, rtol=1e-5)
    assert pair.plain.influence.keys() == pair.balanced.influence.keys() and len(pair.plain.influence) >= 2
    assert all(list(values["concept"].values) == list(SETTINGS.concepts) for values in pair.plain.influence.values())
    assert np.isfinite(pair.report.share).all() and float(pair.report.distance) > 0
    done = [step for _, step, _ in seen]
    assert done == sorted(done) and done[-1] == seen[-1][2] == 2 * SETTINGS.steps + 2
    assert sum("balanced run: step" in what for what, _, _ in seen) == SETTINGS.steps
    assert pair.plain.verdict is not None and pair.balanced.verdict is not None


def test_a_run_that_is_cancelled_leaves_the_pipeline_as_it_was(pipe):
    job = Job(lambda progress: None)

    class Impatient(Progress):
        def report(self, what, done, total):
            if what.startswith("balanced run: step 2"):
                job.cancel()
            super().report(what, done, total)

    before = frames(pipe, SETTINGS)
    with pytest.raises(Cancelled):
        run_pair(pipe, SETTINGS, Impatient(job))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in pipe.unet.modules())
    assert np.array_equal(frames(pipe, SETTINGS), before)


def test_strength_scales_the_update(pipe):
    settings = replace(SETTINGS, preset="random", steps=4)  # a rule that holds another rule
    one, three = (
        run_pair(pipe, replace(settings, strength=strength), Progress(Job(lambda progress: None))).log for strength in (1.0, 3.0)
    )
    moved = one.latent_change[0].item()
    assert moved > 0 and three.latent_change[0].item() == pytest.approx(3 * moved, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "a red dragon moving right and a blue square moving up"}, "has never seen 'dragon'"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a " * LONGEST}, f"at most {LONGEST} characters"),
        ({"concepts": ("red circle",)}, "two concepts or more"),
        ({"concepts": ("red circle", "green cross")}, "'green cross' is not in the prompt"),
        ({"steps": 1000}, "denoising steps"),
        ({"strength": 0.0}, "strength"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_loaded(change, message):
    check_settings(SETTINGS)
    with pytest.raises(InputError, match=message):
        check_settings(replace(SETTINGS, **change))


def test_concepts_of_a_prompt_are_found_without_a_model():
    assert found_concepts(PROMPT) == ["red circle", "blue square"]
    assert found_concepts("") == [] and found_concepts("and of the") == []


def test_every_preset_can_be_asked_for_by_name():
    assert {"default", "vico", "random", "observe"} <= set(presets)
