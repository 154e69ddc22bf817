"""Attention that arrives in an unusual way: by heads, for two texts, per frame, in torch's own module, in segments, with gaps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vico_lens as vl
from vico_lens.errors import TracingError
from vico_lens.testing import TinyPipeline, tiny_pipeline
from vico_lens.tracing.interception import intercept
from vico_lens.tracing.raw_calls import Attended

CROSS = vl.Capture(kinds="cross", steps=0)


@pytest.fixture(scope="module")
def animatediff() -> TinyPipeline:
    return tiny_pipeline("animatediff-t2v")


class ByHead:
    """Attends head by head, as processors do that save memory; `twice` attends to a second text as well, as NAG does."""

    def __init__(self, twice: bool = False, heads: int | None = None) -> None:
        self.twice, self.heads = twice, heads

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        key, value = (layer(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for layer in (attn.to_k, attn.to_v))
        sdpa = nn.functional.scaled_dot_product_attention
        if self.twice:
            out = 2 * sdpa(query, key, value) - sdpa(query, key.flip(0), value.flip(0))
        else:
            heads = self.heads or attn.heads
            parts = [sdpa(query[:, h : h + 1], key[:, h : h + 1], value[:, h : h + 1]) for h in range(heads)]
            out = torch.cat(parts + [torch.zeros_like(parts[0])] * (attn.heads - heads), 1)
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))


@contextmanager
def processors(tiny: TinyPipeline, processor: Any) -> Iterator[None]:
    from diffusers.models.attention_processor import AttnProcessor2_0

    tiny.pipe.unet.set_attn_processor(processor)
    try:
        yield
    finally:
        tiny.pipe.unet.set_attn_processor(AttnProcessor2_0())


def test_a_loop_over_heads_is_recorded_whole(animatediff: TinyPipeline) -> None:
    with vl.trace(animatediff.pipe, capture=vl.Capture(steps=0)) as fused:
        animatediff.run(seed=0)
    with processors(animatediff, ByHead()), vl.trace(animatediff.pipe, capture=vl.Capture(steps=0)) as looped:
        animatediff.run(seed=0)
    for name in ("cross/4x4x6", "spatial/4x8x12", "temporal/4x4x6"):
        assert looped.tree[name].weights.sizes["head"] == 2
        np.testing.assert_allclose(looped.tree[name].weights.values, fused.tree[name].weights.values, atol=1e-5)


@pytest.mark.parametrize(
    ("processor", "words"),
    [
        (ByHead(heads=1), r"all 2 heads of the module, got 1 calls of 1 heads"),
        (ByHead(twice=True), r"got 2 of the same size from ByHead"),
    ],
)
def test_a_part_of_the_heads_and_two_texts_are_refused(animatediff: TinyPipeline, processor: Any, words: str) -> None:
    with processors(animatediff, processor), pytest.raises(TracingError, match=words), vl.trace(animatediff.pipe, capture=CROSS):
        animatediff.run(seed=0)


def test_a_prompt_that_travels_through_the_frames_is_refused(animatediff: TinyPipeline) -> None:
    travel = {"prompt": {0: "a red circle", 3: "a blue square"}}
    animatediff.pipe.enable_free_noise(context_length=4, context_stride=4)
    try:
        with (
            pytest.raises(TracingError, match="texts that differ from frame to frame"),
            vl.trace(animatediff.pipe, capture=CROSS),
        ):
            animatediff.run(seed=0, **travel)
        capture = vl.Capture(kinds=("spatial", "temporal"), steps=0)
        with vl.trace(animatediff.pipe, capture=capture) as run:
            animatediff.run(seed=0, **travel)
        assert run.tree["spatial/4x8x12"].weights.notnull().all()
        with vl.trace(animatediff.pipe, capture=CROSS) as run:
            animatediff.run(seed=0)
        assert run.tree["cross/4x8x12"].weights.notnull().all()
    finally:
        animatediff.pipe.disable_free_noise()


def test_of_freeinit_the_iteration_that_is_kept_is_recorded(animatediff: TinyPipeline) -> None:
    animatediff.pipe.enable_free_init(num_iters=2)
    try:
        forwards: list[Any] = []
        handle = animatediff.pipe.unet.register_forward_pre_hook(lambda module, args: forwards.append(args[0].clone()))
        with vl.trace(animatediff.pipe, capture=vl.Capture(kinds="spatial")) as run:
            animatediff.run(seed=0)
        handle.remove()
    finally:
        animatediff.pipe.disable_free_init()
    assert len(forwards) == 6 and not torch.equal(forwards[0], forwards[3])
    assert run.tree.step.values.tolist() == [0, 1, 2] and run.tree.attrs["complete"]
    assert run.tree.attrs["steps_finished"] == run.tree.attrs["steps_planned"] == 3
    # the first self-attention sees what the convolution makes of the latents: those of the last iteration
    weights = run.tree["spatial/4x8x12"].weights.isel(step=0, layer=0).values
    for inputs, same in ((forwards[3], True), (forwards[0], False)):
        with torch.no_grad(), vl.trace(animatediff.pipe, passes=[("uncond", "cond")], capture=vl.Capture(kinds="spatial")) as one:
            states = torch.cat([animatediff.pipe.encode_prompt(animatediff.prompt, "cpu", 1, True)[1 - row] for row in (0, 1)])
            animatediff.pipe.unet(inputs, run.tree.timestep.values[0], states.repeat_interleave(4, 0))
        close = np.allclose(one.tree["spatial/4x8x12"].weights.isel(step=0, layer=0).values, weights, atol=1e-6)
        assert close == same


@pytest.mark.parametrize(("name", "segments"), [("helios-t2v", [0, 0, 0, 1, 1, 1]), ("skyreels-v2-df", None)])
def test_segments_are_a_coordinate_and_no_step_is_more_than_planned(name: str, segments: list[int] | None) -> None:
    tiny = tiny_pipeline(name)
    with vl.trace(tiny.pipe, capture=vl.Capture(kinds="cross")) as run:
        tiny.run(seed=0)
    tree = run.tree
    assert tree.attrs["steps_finished"] == tree.attrs["steps_planned"] == tree.sizes["step"] and tree.attrs["complete"]
    assert (tree["segment"].values.tolist() if "segment" in tree.coords else None) == segments
    with vl.trace(tiny.pipe, capture=vl.Capture(kinds="cross", steps=-1)) as last:
        tiny.run(seed=0)
    assert last.tree.step.values.tolist() == ([2, 5] if segments else [tree.sizes["step"] - 1])
    assert last.tree.attrs["complete"]


def test_an_interrupted_run_is_not_complete(animatediff: TinyPipeline) -> None:
    def stop(pipe: Any, i: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = True
        return {}

    with vl.trace(animatediff.pipe, capture=vl.Capture(kinds="cross")) as run:
        animatediff.run(seed=0, callback_on_step_end=stop)
    assert run.tree.attrs["complete"] in (False, 0) and run.tree.attrs["steps_finished"] == 1


def test_a_grid_that_changes_within_a_run_leaves_holes_that_are_named() -> None:
    """ChronoEdit drops the frames that it thought with; here the loop of a pipeline drops one."""
    tiny = tiny_pipeline("wan21-t2v")
    with torch.no_grad(), vl.trace(tiny.pipe, capture=vl.Capture(kinds="cross")) as run:
        text, _ = tiny.pipe.encode_prompt("a red circle", None, False, max_sequence_length=24, device="cpu")
        for time, frames in ((900.0, 3), (500.0, 2)):
            tiny.pipe.transformer(torch.zeros(1, 16, frames, 4, 6), torch.tensor([time]), text)
    assert run.tree.attrs["complete"] in (False, 0)
    assert json.loads(run.tree.attrs["missing"]) == {"cross/3x2x3, cond": [1], "cross/2x2x3, cond": [0]}


class Notes:
    def __init__(self) -> None:
        self.runs: list[Attended] = []

    def enter(self, denoiser: str, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pass

    def attended(self, run: Attended) -> None:
        run.join()
        self.runs.append(run)

    def leave(self, denoiser: str, *, failed: bool) -> None:
        pass


class Torch(nn.Module):
    """A denoiser made of torch's own modules."""

    def __init__(self, batch_first: bool = True, **options: Any) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=batch_first, **options)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, norm_first=True)
        self.batch_first = batch_first

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None = None, need_weights: bool = False) -> Any:
        if not self.batch_first:
            x, text = x.transpose(0, 1), text.transpose(0, 1)
        out, self.weights = self.attn(x, text, text, attn_mask=mask, need_weights=need_weights, average_attn_weights=False)
        return self.layer(x + out)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"batch_first": False}, {"add_zero_attn": True}, {"add_bias_kv": True}, {"kdim": 8, "vdim": 8, "bias": False}]
)
def test_the_attention_module_of_torch_is_seen(options: dict[str, Any], grad: bool, need_weights: bool) -> None:
    torch.manual_seed(0)
    root, notes, x, text = Torch(**options).eval(), Notes(), torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[1, 2] = True
    with torch.set_grad_enabled(grad):
        plain = root(x, text, mask, need_weights)
        with intercept({"unet": root}, notes):
            traced = root(x, text, mask, need_weights)
        root(x, text, mask, need_weights=True)
    assert torch.equal(plain, traced), "the fast path of torch was left"
    assert [run.module for run in notes.runs] == ["attn", "layer.self_attn"]
    call = notes.runs[0].calls[0]
    assert call.query is not None and call.key is not None and call.mask is not None
    weights = (call.query @ call.key.mT * call.scale + call.mask).softmax(-1)
    torch.testing.assert_close(weights, root.weights, atol=1e-6, rtol=0)
    assert weights[:, :, 1, 2].abs().max() == 0
    assert torch._C._is_torch_function_enabled() and torch._C._len_torch_function_stack() == 0


def test_torch_functions_are_on_again_after_a_fault_in_the_attention_module_of_torch() -> None:
    root = Torch().eval()
    with pytest.raises((RuntimeError, AssertionError)), intercept({"unet": root}, Notes()):
        root(torch.randn(3, 5, 8), torch.randn(3, 4, 7))
    assert torch._C._is_torch_function_enabled() and torch._C._len_torch_function_stack() == 0
