"""Causal maps: every entry is the change that this one cut makes, and cutting everything is leaving the word out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import vico_lens as vl
from vico_lens.errors import InputError
from vico_lens.intervention.knockouts import CausalPlan, causal_map, knockout
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline
from vico_lens.tinyworld import sample_prompts

NAMES = ["red circle", "blue square"]


def call_of(tiny: TinyPipeline) -> dict[str, Any]:
    return {name: value for name, value in tiny.kwargs.items() if name != "prompt"}


@pytest.mark.parametrize("name", ["animatediff-t2v", "wan21-t2v", "cogvideox-t2v"])
def test_first_step_is_the_change_that_a_knockout_makes(name: str) -> None:
    """The prediction of the first step, taken by hooks from a plain and from a cut run."""
    tiny = tiny_pipeline(name)
    plain = tiny.run()
    effects = causal_map(tiny.pipe, tiny.prompt, NAMES, seed=0, **call_of(tiny)).effect
    assert effects.dims == ("concept", "layer", "step") and effects.concept.values.tolist() == NAMES
    assert bool((effects > 0).all()) and effects.sizes["step"] == tiny.kwargs["num_inference_steps"]
    np.testing.assert_array_equal(tiny.run(), plain)

    predictions: list[torch.Tensor] = []
    denoiser = next(iter(tiny.denoisers.values()))

    def keep(module: Any, args: Any, output: Any) -> None:
        predictions.append(output[0] if isinstance(output, tuple) else output.sample)

    handle = denoiser.register_forward_hook(keep)
    tiny.run()
    whole = predictions[0][-1:].clone()
    for layer in (0, effects.sizes["layer"] - 1):
        predictions.clear()
        with knockout(tiny.pipe, ["blue square"], layers=str(effects.module.values[layer])):
            tiny.run()
        change = (predictions[0][-1:] - whole).square().mean().sqrt() / whole.square().mean().sqrt()
        assert float(effects.sel(concept="blue square", step=0, layer=layer)) == pytest.approx(float(change), rel=1e-4)
    handle.remove()


def test_axes_and_means() -> None:
    tiny = tiny_pipeline("wan21-t2v")
    call = call_of(tiny)
    whole = causal_map(tiny.pipe, tiny.prompt, NAMES, **call).effect
    by_layer = causal_map(tiny.pipe, tiny.prompt, NAMES, over="layer", **call).effect
    np.testing.assert_allclose(by_layer, whole.mean("step"), rtol=1e-6)
    finer = causal_map(tiny.pipe, tiny.prompt, NAMES, over=("head", "frame"), steps=-1, **call).effect
    assert finer.dims == ("concept", "head", "frame") and finer.shape == (2, 2, 3) and bool((finer > 0).all())
    one = causal_map(tiny.pipe, tiny.prompt, NAMES, over=("step",), layers=str(whole.module.values[1]), **call).effect
    np.testing.assert_allclose(one, whole.isel(layer=1), rtol=1e-6)


def test_the_plan_comes_first_and_can_be_all(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_pipeline("wan21-t2v")
    plans: list[CausalPlan] = []
    done: list[tuple[int, int]] = []
    count: list[int] = []
    handle = tiny.pipe.transformer.register_forward_hook(lambda *ignored: count.append(1))
    effects = causal_map(
        tiny.pipe, tiny.prompt, NAMES, plan=plans.append, progress=lambda *state: done.append(state), **call_of(tiny)
    )
    forwards = effects.effect.size
    assert plans[0].forwards == forwards == len(done) and done[-1] == (forwards, forwards)
    assert len(count) == forwards + 2 * tiny.kwargs["num_inference_steps"]  # guidance in two passes
    count.clear()
    only = causal_map(tiny.pipe, tiny.prompt, NAMES, plan="only", video=True, **call_of(tiny))
    assert len(count) == 1 and only.attrs["forwards"] == only.attrs["runs"] == forwards and only.attrs["seconds"] > 0
    handle.remove()

    def refuse(plan: CausalPlan) -> None:
        raise InputError("too long")

    with pytest.raises(InputError, match="too long"):
        causal_map(tiny.pipe, tiny.prompt, NAMES, plan=refuse, **call_of(tiny))


def test_effect_on_the_video() -> None:
    tiny = tiny_pipeline("wan21-t2v")
    call = call_of(tiny) | {"num_inference_steps": 2}
    found = causal_map(tiny.pipe, tiny.prompt, NAMES, video=True, judge=lambda frames: str(frames.shape), **call)
    assert found.video_effect.dims == ("concept", "layer", "step") and bool((found.video_effect >= 0).all())
    plain = tiny.run(num_inference_steps=2)
    with knockout(tiny.pipe, ["red circle"], layers=str(found.module.values[0]), steps=0):
        pass_by = tiny.run(num_inference_steps=2)
    rgb = [np.round(np.clip(frames[0], 0, 1) * 255) for frames in (plain, pass_by)]
    expected = np.sqrt(np.square((rgb[0] - rgb[1]) / 255).mean())
    assert float(found.video_effect.sel(concept="red circle", step=0, layer=0)) == pytest.approx(expected, abs=1e-6)
    assert found.attrs["plain_verdict"] == found.verdict.values.flatten()[0] == str((9, *plain.shape[2:]))


def test_wrong_use() -> None:
    tiny = tiny_pipeline("wan21-t2v")
    with pytest.raises(InputError, match="at most once"):
        causal_map(tiny.pipe, tiny.prompt, over=("layer", "token"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="layers that read text"):
        causal_map(tiny.pipe, tiny.prompt, NAMES, layers="*attn1*", **call_of(tiny))


@pytest.mark.slow
def test_cutting_all_sites_of_the_bundled_model_is_leaving_the_words_out() -> None:
    """Leave-one-out puts padding in the place of the words; over prompts and steps its shares are those of the mask."""
    pipe = vl.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 4}
    cut, left = [], []
    for prompt in sample_prompts(4, objects=2, seed=31):
        effects = causal_map(pipe, str(prompt), list(prompt.concepts), over=("step",), steps=[0, 2], seed=1, **call).effect
        with vl.trace(pipe, capture=vl.Capture(kinds="cross", steps=[0, 2])) as run:
            pipe(str(prompt), generator=torch.Generator().manual_seed(1), **call)
        maps = vl.attribute(run.tree, "leave_one_out", concepts=list(prompt.concepts), pipe=pipe, sampling=call)
        size = np.sqrt(np.square(maps).mean(("frame", "y", "x")))
        cut += (effects / effects.sum("concept")).isel(concept=0).values.tolist()
        left += (size / size.sum("concept")).isel(concept=0).values.tolist()
    assert spearmanr(cut, left)[0] > 0.9 and np.corrcoef(cut, left)[0, 1] > 0.97, (cut, left)
