"""Methods that go back to the model: leave one out and captum's, on tiny stock pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vico_lens as vl
from vico_lens.attribution import influence_of_stages, stages_from_trace
from vico_lens.attribution.judging.checks import explainer, live_stages, shuffled_weights, stability, weight_dependence
from vico_lens.attribution.replay import record_calls, sampling_of, text_of_prompt, with_text
from vico_lens.errors import AttributionError, InputError
from vico_lens.testing.eager import eager_tree
from vico_lens.testing.pipelines import tiny_pipeline
from vico_lens.tracing.tracer import Tracer

NAMES = ["red circle", "blue square"]


class Kept:
    """A sink that keeps the calls as they are."""

    def __init__(self):
        self.calls, self.attrs, self.tokens = [], {}, None

    def start(self, attrs, tokens, **_):
        self.attrs |= attrs
        self.tokens = tokens

    def write(self, call):
        self.calls.append(call)

    def annotate(self, attrs):
        self.attrs |= attrs

    def finish_step(self, step): ...
    def keep_video(self, rgb): ...
    def close(self, *, complete=True): ...


def traced(name):
    tiny, sink = tiny_pipeline(name), Kept()
    with Tracer(tiny.pipe, vl.Capture(), sink):
        frames = tiny.run(seed=3)
    return tiny, eager_tree(sink.calls, sink.tokens, {**sink.attrs, "seed": 3}), frames


@pytest.fixture(scope="module")
def animate():
    return traced("animatediff-t2v")


def test_replayed_call_is_the_call(animate):
    tiny, tree, _ = animate
    seen = []
    hook = tiny.pipe.unet.register_forward_hook(lambda module, args, output: seen.append(output[0].clone()))
    tiny.run(seed=3)
    hook.remove()
    call = record_calls(tiny.pipe, sampling_of(tree, None, None), [1])[1]
    with torch.no_grad():
        replayed = call.predict(call.text)
    torch.testing.assert_close(replayed, seen[1][1].permute(1, 2, 3, 0), rtol=0, atol=1e-6)
    assert call.timestep == pytest.approx(tree["timestep"].values[1])
    with pytest.raises(AttributionError, match=r"reach steps \[7\]"):
        record_calls(tiny.pipe, sampling_of(tree, None, None), [7])


def test_leave_one_out_by_hand(animate):
    tiny, tree, _ = animate
    influence = vl.attribute(tree, "leave_one_out", NAMES, pipe=tiny.pipe)
    assert influence.dims == ("concept", "step", "frame", "y", "x") and influence.shape == (2, 3, 4, 8, 12)
    assert (influence >= 0).all() and (influence.sum(("frame", "y", "x")) > 0).all()
    run = sampling_of(tree, None, None)
    call = record_calls(tiny.pipe, run, [2])[2]
    tokens = list(vl.find_concepts(tree, ["blue square"])[0].tokens)
    padding = tree["token_kind"].values.tolist().index("padding")
    states = call.kwargs["encoder_hidden_states"].contiguous().clone()
    states[4:, tokens] = states[4:5, padding : padding + 1].clone()
    with torch.no_grad():
        plain = tiny.pipe.unet(*call.args, **call.kwargs)[0][1]
        moved = tiny.pipe.unet(*call.args, **{**call.kwargs, "encoder_hidden_states": states})[0][1]
    expected = (moved - plain).square().mean(0).sqrt()
    np.testing.assert_allclose(influence.sel(concept="blue square", step=2).values, expected.numpy(), atol=1e-6)


def test_replacements_differ_and_a_region_restricts(animate):
    tiny, tree, _ = animate
    one = {
        how: vl.attribute(tree, "leave_one_out", NAMES, pipe=tiny.pipe, steps=0, replacement=how)
        for how in ("padding", "neutral", "null")
    }
    assert len({round(float(influence.sum()), 6) for influence in one.values()}) == 3
    region = np.zeros((4, 8, 12))
    region[1] = 1
    part = vl.attribute(tree, "leave_one_out", NAMES, pipe=tiny.pipe, steps=0, region=region)
    np.testing.assert_allclose(part.isel(frame=1), one["padding"].isel(frame=1))
    assert float(part.isel(frame=0).sum()) == 0
    with pytest.raises(InputError, match=r"region: expected a mask of shape \(4, 8, 12\)"):
        vl.attribute(tree, "leave_one_out", NAMES, pipe=tiny.pipe, region=np.ones((4, 4, 4)))
    with pytest.raises(InputError, match="replacement: expected 'padding', 'neutral' or 'null'"):
        vl.attribute(tree, "leave_one_out", NAMES, pipe=tiny.pipe, replacement="noise")


def test_change_of_the_final_video(animate):
    tiny, tree, frames = animate
    influence = vl.attribute(tree, "leave_one_out", NAMES, pipe=tiny.pipe, target="video")
    assert influence.dims == ("concept", "frame", "y", "x") and float(influence.max()) <= 1
    run = sampling_of(tree, None, None)
    with with_text(tiny.pipe, lambda text: text):
        same = tiny.run(seed=3)
    np.testing.assert_array_equal(same, frames)
    changed = record_calls(tiny.pipe, run, [0])[0].text
    tokens = list(vl.find_concepts(tree, ["red circle"])[0].tokens)
    changed[tokens] = changed[tree["token_kind"].values.tolist().index("padding")].clone()
    with with_text(tiny.pipe, lambda text: changed):
        moved = tiny.run(seed=3)
    expected = np.abs(moved - frames)[0].mean(-1).reshape(4, 8, 2, 12, 2).mean((2, 4))
    np.testing.assert_allclose(influence.sel(concept="red circle").values, expected, atol=1e-5)


def test_the_pipeline_is_left_as_it_was(animate):
    tiny, tree, frames = animate
    vl.attribute(tree, "leave_one_out", NAMES, pipe=tiny.pipe, steps=0)
    assert not any(module._forward_pre_hooks for module in tiny.pipe.unet.modules())
    np.testing.assert_array_equal(tiny.run(seed=3), frames)


def test_a_trace_around_attribution_records_nothing_of_it(animate):
    tiny, tree, _ = animate
    sink = Kept()
    with Tracer(tiny.pipe, vl.Capture(), sink):
        tiny.run(seed=3)
        count = len(sink.calls)
        vl.attribute(tree, "leave_one_out", NAMES, pipe=tiny.pipe, steps=0)
        assert len(sink.calls) == count


def test_completeness_of_captum_methods(animate):
    tiny, tree, _ = animate
    count = tree.sizes["token"]
    everything = {"all": range(count)}
    shapley = vl.attribute(tree, "shapley_values", everything, pipe=tiny.pipe, steps=1)
    assert shapley.dims == ("concept",) and float(shapley[0]) == pytest.approx(1, abs=1e-4)
    gradients = vl.attribute(tree, "integrated_gradients", everything, pipe=tiny.pipe, steps=1, n_steps=16)
    assert float(gradients[0]) == pytest.approx(1, abs=0.02)
    frames = vl.attribute(tree, "shapley_values", NAMES, pipe=tiny.pipe, steps=1, target="frame")
    video = vl.attribute(tree, "shapley_values", NAMES, pipe=tiny.pipe, steps=1)
    assert frames.dims == ("concept", "frame")
    np.testing.assert_allclose(frames.sum("frame"), video, atol=1e-5)


def test_ablation_and_gradient_by_hand(animate):
    tiny, tree, _ = animate
    run = sampling_of(tree, None, None)
    call = record_calls(tiny.pipe, run, [1])[1]
    null = text_of_prompt(tiny.pipe, run, "", len(call.text))
    with torch.no_grad():
        start, full = call.predict(null), call.predict(call.text)

    def score(text):
        return ((call.predict(text) - start) * (full - start)).sum() / (full - start).square().sum()

    ablation = vl.attribute(tree, "feature_ablation", NAMES, pipe=tiny.pipe, steps=1)
    gradient = vl.attribute(tree, "input_x_gradient", NAMES, pipe=tiny.pipe, steps=1)
    text = call.text.clone().requires_grad_()
    (slope,) = torch.autograd.grad(score(text), text)
    for concept in vl.find_concepts(tree, NAMES):
        tokens = list(concept.tokens)
        without = call.text.clone()
        without[tokens] = null[tokens]
        with torch.no_grad():
            assert float(ablation.sel(concept=concept.name)) == pytest.approx(1 - float(score(without)), abs=1e-5)
        assert float(gradient.sel(concept=concept.name)) == pytest.approx(float((slope * text)[tokens].sum().detach()), rel=1e-4)


@pytest.mark.parametrize("name", ["wan21-t2v", "cogvideox-t2v", "latte-t2v"])
def test_other_families_run_or_say_why_not(name):
    tiny, tree, _ = traced(name)
    concepts = {"one": [1], "two": [3]}
    for method in ("leave_one_out", "feature_ablation"):
        influence = vl.attribute(tree, method, concepts, pipe=tiny.pipe, steps=int(tree["step"][0]))
        assert np.isfinite(influence).all() and float(abs(influence).sum()) > 0


def test_the_pipeline_is_asked_for(animate):
    _, tree, _ = animate
    with pytest.raises(
        InputError, match=r"leave_one_out runs the model again and needs it: attribute\(\.\.\., 'leave_one_out', pipe="
    ):
        vl.attribute(tree, "leave_one_out", NAMES)


def test_comparison_with_the_model(animate):
    tiny, tree, _ = animate
    table = vl.compare(tree, ["cross_attention", "leave_one_out"], concepts=NAMES, pipe=tiny.pipe, steps=[0, 1], checks=True)
    assert table["method"].values.tolist() == ["cross_attention", "leave_one_out", "uniform", "position", "random"]
    causal = table.sel({"method": "leave_one_out"})
    assert causal["rank_correlation"] == 1 and causal["map_correlation"] == 1 and causal["weakest_found"] == 1
    assert table["rank_correlation"].sel({"method": "uniform"}) == 0 and table["weakest_found"].sel({"method": "uniform"}) == 0.5
    assert np.isfinite(table[["deletion", "insertion", "infidelity"]].to_array()).all()
    for score in ("shuffled_weights", "sensitivity"):
        assert np.isfinite(table[score][:2]).all() and np.isnan(table[score][2:]).all()
    assert (abs(table["shuffled_weights"][:2]) < 1).all() and (table["sensitivity"][:2] > 0).all()


def test_replayed_stages_are_the_traced_ones(animate):
    tiny, tree, _ = animate
    call = record_calls(tiny.pipe, sampling_of(tree, None, None), [1])[1]
    live, stored = live_stages(tiny.pipe, call), stages_from_trace(tree, 1, grid=None)
    assert [stage.module for stage in live] == [stage.module for stage in stored]
    for one, other in zip(live, stored, strict=True):
        torch.testing.assert_close(one.weights, other.weights, rtol=0, atol=1e-5)


def test_checks_tell_a_method_that_looks_from_one_that_does_not(animate):
    tiny, tree, _ = animate
    call = record_calls(tiny.pipe, sampling_of(tree, None, None), [1])[1]
    before = {name: value.clone() for name, value in tiny.pipe.unet.state_dict().items()}

    looks = explainer(tree, tiny.pipe, "cross_attention", {"one": (2,), "two": (9,)})

    def blind(call):
        return torch.arange(8.0).reshape(2, 4)

    expected = influence_of_stages(live_stages(tiny.pipe, call), [(2,), (9,)], "cross_attention")
    torch.testing.assert_close(looks(call), expected)
    trained, shuffled = weight_dependence(call, looks)
    assert torch.equal(trained, looks(call)) and not torch.allclose(trained, shuffled)
    assert torch.equal(*weight_dependence(call, blind))
    assert 0 < stability(call, looks, samples=2) < 0.5 and stability(call, blind, samples=2) == 0
    with pytest.raises(RuntimeError, match="stop"), shuffled_weights(tiny.pipe.unet):
        assert any(not torch.equal(value, before[name]) for name, value in tiny.pipe.unet.state_dict().items())
        raise RuntimeError("stop")
    assert all(torch.equal(value, before[name]) for name, value in tiny.pipe.unet.state_dict().items())


def test_a_method_of_the_model_is_asked_again_about_the_same_call(animate):
    """An explainer repeats the call it is given, with the text it is given: no new sampling, no memory of the traced one."""
    tiny, tree, _ = animate
    concepts = {"one": (2,), "two": (9,)}
    call = record_calls(tiny.pipe, sampling_of(tree, None, None), [1])[1]
    explain = explainer(tree, tiny.pipe, "leave_one_out", concepts)
    traced_answer = vl.attribute(tree, "leave_one_out", concepts, pipe=tiny.pipe, steps=1)
    np.testing.assert_allclose(explain(call).numpy(), traced_answer.values, atol=1e-6)
    text = call.text
    text[2] = text[tree["token_kind"].values.tolist().index("padding")]
    silent = explain(call.told(text))
    assert float(silent[0].abs().max()) < 1e-6 < float(silent[1].abs().max())


def test_the_clip_is_never_guessed(animate):
    _, tree, _ = animate
    unknown = tree.copy()
    del unknown.attrs["seed"]
    with pytest.raises(InputError, match="seed of each of its 1 clips, to sample it again; it knows 0"):
        sampling_of(unknown, None, None)
    assert sampling_of(unknown, 5, None).seed == 5 and sampling_of(unknown, None, {"seed": 6}).seed == 6
    batch = tree.copy()
    batch.attrs |= {"prompt": ["one", "two"], "seed": [7, 8], "negative_prompt": ["a", "b"]}
    chosen = sampling_of(batch, None, {"guidance_scale": 1.5}, prompt=1)
    assert (chosen.prompt, chosen.seed) == ("two", 8)
    assert chosen.arguments["negative_prompt"] == "b" and chosen.arguments["guidance_scale"] == 1.5
    with pytest.raises(InputError, match="or prompt= to choose one; the trace holds 2 prompts"):
        sampling_of(batch, None, None)
    batch.attrs["seed"] = 7
    with pytest.raises(InputError, match="seed of each of its 2 clips"):
        sampling_of(batch, None, None, prompt=0)
