"""What a knock-out cuts, seen in traces of the cut run: exactly the columns, heads, steps and frames that were named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor

from vico_lens.errors import ConceptError, InputError, TracingError
from vico_lens.intervention.knockouts import knockout
from vico_lens.intervention.knockouts.cuts import Block, Cut
from vico_lens.store.layout import attention_groups
from vico_lens.testing.families import _state
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.recording import trace
from vico_lens.vocabulary.concepts import Concept, find_concepts

CAPTURE = Capture(store="weights", dtype="float32")


@pytest.fixture(scope="module")
def tiny() -> TinyPipeline:
    return tiny_pipeline("animatediff-t2v")


@pytest.fixture(scope="module")
def plain(tiny: TinyPipeline) -> np.ndarray:
    return tiny.run()


def traced(tiny: TinyPipeline, cut: Any = None, *, outside: bool = False) -> xr.DataTree:
    recording = trace(tiny.pipe, capture=CAPTURE)
    if cut is None:
        with recording:
            tiny.run()
        return recording.tree
    first, second = (recording, cut) if outside else (cut, recording)
    with first, second:
        tiny.run()
    return recording.tree


def text_weights(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Weights from video to text of every site that has them, by module."""
    found = {}
    for _, kind, _, node in attention_groups(tree):
        if kind in ("cross", "joint"):
            name = "weights" if kind == "cross" else "video_text"
            for layer in range(node.sizes["layer"]):
                found[str(node.module.values[layer])] = node[name].isel(layer=layer).load()
    return found


def tokens_of(tree: xr.DataTree, concept: str = "red circle") -> list[int]:
    return list(find_concepts(tree, [concept])[0].tokens)


@pytest.mark.parametrize("outside", [False, True], ids=["trace inside", "trace outside"])
@pytest.mark.parametrize(
    "name",
    ["animatediff-t2v", "wan21-t2v", "cogvideox-t2v", "mochi-t2v", "hunyuan15-t2v", "motif-t2v", "easyanimate-t2v", "latte-t2v"],
)
def test_a_trace_shows_the_cut_where_it_was_asked_for(name: str, outside: bool) -> None:
    tiny = tiny_pipeline(name)
    whole = traced(tiny)
    tokens = tokens_of(whole)
    weights = text_weights(whole)
    module, *others = weights
    seen = text_weights(traced(tiny, knockout(tiny.pipe, ["red circle"], layers=module, steps=[1]), outside=outside))
    cut, before = seen[module], weights[module]
    assert float(before.isel(token=tokens).max()) > 1e-4
    assert float(abs(cut.isel(step=1, token=tokens)).max()) == 0
    np.testing.assert_array_equal(cut.isel(step=0), before.isel(step=0))
    kept = [token for token in range(before.sizes["token"]) if token not in tokens]
    # What is left of the row shares the weight of what was cut, in proportion.
    ratio = (before.isel(step=1, token=kept) - cut.isel(step=1, token=kept)).where(lambda x: x > 1e-4)
    assert float(ratio.max(skipna=True).fillna(0)) < 1e-4
    for other in others:
        assert float(seen[other].isel(step=1, token=tokens).max()) > 1e-4
    np.testing.assert_array_equal(tiny.run(), tiny_pipeline(name).run())


def test_first_site_equals_a_softmax_without_the_columns(tiny: TinyPipeline) -> None:
    whole = traced(tiny)
    tokens = tokens_of(whole)
    module = min(text_weights(whole), key=lambda path: _order(whole, path))
    before = text_weights(whole)[module].isel(step=0).values
    cut = text_weights(traced(tiny, knockout(tiny.pipe, ["red circle"], layers=module)))[module].isel(step=0).values
    expected = before.copy()
    expected[..., tokens] = 0
    np.testing.assert_allclose(cut, expected / expected.sum(-1, keepdims=True), atol=1e-6)
    double = text_weights(traced(tiny, knockout(tiny.pipe, ["red circle"], layers=module, scale=3.0)))[module].isel(step=0).values
    expected = before.copy()
    expected[..., tokens] *= 3
    np.testing.assert_allclose(double, expected / expected.sum(-1, keepdims=True), atol=1e-6)


def _order(tree: xr.DataTree, path: str) -> int:
    for _, _, _, node in attention_groups(tree):
        modules = node.module.values.tolist()
        if path in modules:
            return int(node.order.values[modules.index(path)])
    raise AssertionError(path)


def test_frames_that_lie_in_the_batch_are_cut_one_by_one(tiny: TinyPipeline) -> None:
    with knockout(tiny.pipe, ["red circle"]):
        whole = tiny.run()
    with ExitStack() as cuts:
        for frame in range(4):
            cuts.enter_context(knockout(tiny.pipe, ["red circle"], frames=frame))
        np.testing.assert_allclose(tiny.run(), whole, atol=1e-6)
    with knockout(tiny.pipe, ["red circle"], frames=[0, 1, 2]):
        assert not np.allclose(tiny.run(), whole, atol=1e-4)


@pytest.mark.parametrize("name", ["wan21-t2v", "cogvideox-t2v", "mochi-t2v"])
def test_heads_and_frames(name: str) -> None:
    tiny = tiny_pipeline(name)
    whole = traced(tiny)
    tokens = tokens_of(whole)
    weights = text_weights(whole)
    module = min(weights, key=lambda path: _order(whole, path))
    before = weights[module].isel(step=0)
    seen = text_weights(traced(tiny, knockout(tiny.pipe, ["red circle"], layers=module, heads=1, frames=[0, -1])))
    cut = seen[module].isel(step=0)
    last = before.sizes["frame"] - 1
    assert float(cut.isel(head=1, frame=[0, last], token=tokens).max()) == 0
    np.testing.assert_allclose(cut.isel(head=0), before.isel(head=0), atol=1e-6)
    np.testing.assert_allclose(cut.isel(head=1, frame=slice(1, last)), before.isel(head=1, frame=slice(1, last)), atol=1e-6)


@pytest.mark.parametrize("processor", [AttnProcessor, lambda: SlicedAttnProcessor(1)], ids=["eager", "sliced"])
def test_models_that_compute_their_softmax_themselves(processor: Callable[[], Any]) -> None:
    fused, own = tiny_pipeline("animatediff-t2v"), tiny_pipeline("animatediff-t2v")
    own.pipe.unet.set_attn_processor(processor())
    videos = []
    for tiny in (fused, own):
        with knockout(tiny.pipe, ["red circle"], heads=[0], steps=[0, 2]):
            videos.append(tiny.run())
    np.testing.assert_allclose(videos[0], videos[1], atol=2e-5)
    assert not np.allclose(videos[1], own.run(), atol=1e-4)
    with pytest.raises(InputError, match="computes its softmax itself"), knockout(own.pipe, ["red circle"], to="padding"):
        own.run()


@pytest.mark.parametrize("to", ["padding", "uncond"])
def test_other_replacements_give_the_columns_the_weight_of_what_replaces_them(tiny: TinyPipeline, to: Any) -> None:
    whole = traced(tiny)
    tokens = tokens_of(whole)
    module = min(text_weights(whole), key=lambda path: _order(whole, path))
    seen = text_weights(traced(tiny, knockout(tiny.pipe, ["red circle"], layers=module, to=to)))[module].isel(step=0)
    before = text_weights(whole)[module].isel(step=0)
    assert not np.allclose(seen, before)
    if to == "padding":
        kinds = whole.token_kind.values.tolist()
        padding = kinds.index("padding") if "padding" in kinds else max(i for i, kind in enumerate(kinds) if kind == "special")
        for token in tokens:
            np.testing.assert_allclose(seen.isel(token=token), seen.isel(token=padding), atol=1e-6)


def test_uncond_needs_both_branches_in_one_batch() -> None:
    tiny = tiny_pipeline("wan21-t2v")
    with pytest.raises(InputError, match="both guidance branches in one batch"), knockout(tiny.pipe, ["red circle"], to="uncond"):
        tiny.run()


def test_only_the_conditional_branch_is_cut(tiny: TinyPipeline) -> None:
    recording = trace(tiny.pipe, capture=Capture(kinds="cross", branch="both", store="weights", dtype="float32", steps=0))
    with knockout(tiny.pipe, ["red circle"]), recording:
        tiny.run()
    tokens = tokens_of(recording.tree)
    for weights in text_weights(recording.tree).values():
        assert float(weights.sel(branch="cond").isel(token=tokens).max()) == 0
        assert float(weights.sel(branch="uncond").isel(token=tokens).max()) > 1e-4


def test_two_nested_knockouts_are_one_of_both(tiny: TinyPipeline) -> None:
    with knockout(tiny.pipe, ["red circle", "blue square"]):
        both = tiny.run()
    with knockout(tiny.pipe, ["red circle"]), knockout(tiny.pipe, ["blue square"]):
        nested = tiny.run()
    np.testing.assert_allclose(nested, both, atol=1e-6)
    with knockout(tiny.pipe, ["red circle"]), knockout(tiny.pipe, ["red circle"]):
        twice = tiny.run()
    with knockout(tiny.pipe, ["red circle"]):
        once = tiny.run()
    np.testing.assert_array_equal(twice, once)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_remains_after_an_error(tiny: TinyPipeline, plain: np.ndarray, error: type[BaseException]) -> None:
    before = _state(tiny.pipe)

    def fail(*ignored: Any) -> None:
        raise error

    handle = tiny.pipe.unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(error), knockout(tiny.pipe, ["red circle"]):
        tiny.run()
    handle.remove()
    assert _state(tiny.pipe) == before
    np.testing.assert_array_equal(tiny.run(), plain)


def test_a_batch_of_prompts_is_cut_row_by_row(tiny: TinyPipeline) -> None:
    prompts = ["a red circle moving right", "a blue square and a red circle"]
    alone = []
    for row, prompt in enumerate(prompts):
        noise = torch.randn(2, 4, 4, 8, 12, generator=torch.Generator().manual_seed(0))[row : row + 1]
        with knockout(tiny.pipe, ["red circle"]):
            alone.append(tiny.run(prompt=prompt, latents=noise)[0])
    noise = torch.randn(2, 4, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with knockout(tiny.pipe, ["red circle"]):
        together = tiny.run(prompt=prompts, latents=noise)
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, at the first import of its compiler
def test_compiled_and_fused_denoisers_run_eagerly_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = import_module("diffusers.models.attention_dispatch")._AttentionBackendRegistry
    monkeypatch.setattr(registry, "_active_backend", registry._active_backend)  # diffusers sets it for the whole process
    tiny = tiny_pipeline("wan21-t2v")
    tiny.pipe.transformer.compile()
    tiny.pipe.transformer.set_attention_backend("_native_math")
    with knockout(tiny.pipe, ["red circle"]) as cut:
        tiny.run(num_inference_steps=1)
    assert "torch.compile -> eager" in cut.forced and any("_native_math" in entry for entry in cut.forced)


def test_wrong_use(tiny: TinyPipeline) -> None:
    with pytest.raises(InputError, match="to='mask', 'padding' or 'uncond'"):
        knockout(tiny.pipe, ["red circle"], to="noise")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="scale of 0 or more"):
        knockout(tiny.pipe, ["red circle"], scale=-1)
    with pytest.raises(ConceptError), knockout(tiny.pipe, ["crab"]):
        tiny.run()
    with pytest.raises(InputError, match="nothing was cut"), knockout(tiny.pipe, ["red circle"], layers="*nowhere*"):
        tiny.run()
    with pytest.raises(InputError, match="heads from 0 to 1"), knockout(tiny.pipe, ["red circle"], heads=7):
        tiny.run()
    with pytest.raises(InputError, match="expected frames of a grid of 4"), knockout(tiny.pipe, ["red circle"], frames=9):
        tiny.run()
    with pytest.raises(TracingError, match="never ran"), knockout(tiny.pipe, ["red circle"]):
        pass
    everything = Concept("all", tuple(range(77)), (0, 1))
    with pytest.raises(InputError, match="cut takes all of them"), knockout(tiny.pipe, [everything]):
        tiny.run(prompt=None, **_embeddings(tiny))


def _embeddings(tiny: TinyPipeline) -> dict[str, Any]:
    positive, negative = tiny.pipe.encode_prompt(tiny.prompt, "cpu", 1, True)
    return {"prompt_embeds": positive, "negative_prompt_embeds": negative}


def test_causal_and_additive_masks_keep_their_meaning() -> None:
    query, key, value = (torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    block = Block(torch.tensor([0]), None, torch.tensor([1]))
    attend = torch.nn.functional.scaled_dot_product_attention
    logits = query @ key.transpose(-1, -2) / 8**0.5
    lower = torch.ones(4, 4, dtype=torch.bool).tril()
    for scale in (None, 2.0):
        bias = torch.zeros(4)
        bias[1] = -torch.inf if scale is None else np.log(scale)
        for mask, causal in ((None, True), (lower, False), (torch.zeros(4, 4).masked_fill(~lower, -torch.inf), False)):
            operands = {"query": query, "key": key, "value": value, "attn_mask": mask, "is_causal": causal}
            got = attend(**Cut(scale=scale).fused(operands, [block]))
            expected = (logits + bias).masked_fill(~lower, -torch.inf).softmax(-1) @ value
            torch.testing.assert_close(got, expected)
