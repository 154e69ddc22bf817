"""Whole pipeline calls: unchanged by tracing, recorded with the right labels, refused with a reason, and nothing remains."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from remains import remains
from torch.utils._python_dispatch import TorchDispatchMode

from vico_lens.errors import BudgetError, InputError, TracingError
from vico_lens.store.layout import attention_groups
from vico_lens.testing.pipelines import PROMPT, TinyPipeline, tiny_pipeline
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.recording import trace
from vico_lens.tracing.tracer import observe
from vico_lens.vocabulary.concepts import find_concepts
from vico_lens.vocabulary.schema import AttentionCall


@pytest.fixture(scope="module")
def tiny() -> TinyPipeline:
    return tiny_pipeline("animatediff-t2v")


@pytest.fixture(scope="module")
def wan() -> TinyPipeline:
    return tiny_pipeline("wan22-t2v")


@pytest.fixture(autouse=True)
def left_as_found(tiny: TinyPipeline) -> Iterator[None]:
    before = remains(tiny.pipe)
    yield
    assert remains(tiny.pipe) == before


def test_the_video_does_not_change_by_a_bit_and_is_kept(tiny: TinyPipeline) -> None:
    plain = tiny.run(seed=3)
    with trace(tiny.pipe, capture=Capture(steps=[0], kinds="cross")) as run:
        traced = tiny.run(seed=3)
    assert np.array_equal(plain, traced)
    kept = run.tree["video"].rgb.values
    assert kept.dtype == np.uint8
    assert np.array_equal(kept, (plain[0] * 255).round().astype(np.uint8))


def test_provenance(tiny: TinyPipeline) -> None:
    with trace(tiny.pipe, capture=Capture(steps=-1, kinds="temporal"), metadata={"note": "mine"}) as run:
        tiny.run(seed=3, negative_prompt="still")
    attrs = run.tree.attrs
    wanted = {
        "prompt": PROMPT,
        "negative_prompt": "still",
        "seed": 3,
        "guidance_scale": 5.0,
        "pipeline": "AnimateDiffPipeline",
        "scheduler": "DDIMScheduler",
        "dtype": "float32",
        "device": "cpu",
        "note": "mine",
    }
    assert {name: attrs[name] for name in wanted} == wanted
    assert attrs["weights_hash"].startswith("sha256:")
    assert json.loads(attrs["capture"])["steps"] == -1
    coverage = json.loads(attrs["coverage"])
    assert coverage["seen"] == 28 and coverage["recorded"] == 14
    assert set(coverage["left_out"].values()) == {"not selected by the capture"}
    assert run.tree.step.values.tolist() == [2]


def test_guidance_halves_and_their_label(tiny: TinyPipeline) -> None:
    capture = Capture(steps=[0], kinds="cross", branch="both")
    with trace(tiny.pipe, capture=capture) as run:
        tiny.run(seed=0, negative_prompt="blue star")
    with trace(tiny.pipe, capture=Capture(steps=[0], kinds="cross")) as alone:
        tiny.run(seed=0, prompt="blue star", guidance_scale=1.0)
    both = run.tree["cross/4x8x12"].weights.isel(layer=0)
    # the first step sees the same latents in both halves, so the unconditional half is the other prompt's conditional one
    other = alone.tree["cross/4x8x12"].weights.isel(layer=0)
    np.testing.assert_allclose(both.sel(branch="uncond").values, other.values, atol=1e-6)
    assert abs(both.sel(branch="cond").values - other.values).max() > 1e-3
    with trace(tiny.pipe, capture=Capture(steps=[0], kinds="cross", branch="uncond")) as run:
        tiny.run(seed=0, negative_prompt="blue star")
    assert run.tree.coords["branch"].item() == "uncond"


def test_two_passes_are_told_apart(wan: TinyPipeline) -> None:
    with trace(wan.pipe, capture=Capture(kinds="cross", branch="both")) as run:
        wan.run(seed=0)
    with trace(wan.pipe, capture=Capture(kinds="cross", steps=0)) as alone:
        wan.run(seed=0, prompt="still", guidance_scale=1.0)
    recorded = run.tree["cross/3x2x3"].weights.sel(step=0)
    np.testing.assert_allclose(recorded.sel(branch="uncond"), alone.tree["cross/3x2x3"].weights.sel(step=0), atol=1e-6)
    # two experts: the second denoises the last steps, under the names of the first
    experts = json.loads(run.tree.attrs["experts"])
    assert set(experts) == {"transformer", "transformer_2"} and sorted(chain.from_iterable(experts.values())) == [0, 1, 2]
    assert all(name.startswith("transformer.") for name in run.tree["cross/3x2x3"].module.values)


def test_a_batch_of_prompts_with_a_table_each(tiny: TinyPipeline) -> None:
    prompts = [PROMPT, "a blue star", "the yellow triangle"]
    with trace(tiny.pipe, capture=Capture(steps=0, kinds=("cross", "temporal"))) as run:
        tiny.call(0, prompt=prompts)
    weights = run.tree["cross/4x8x12"].weights
    assert weights.sizes["prompt"] == 3
    assert run.tree.attrs["prompt"] == prompts
    assert "".join(run.tree.token_text.sel(prompt=2).values[4:7]) == "triangle</w>"
    with trace(tiny.pipe, capture=Capture(steps=0, kinds="cross")) as one:
        tiny.call(0, prompt=prompts[1], latents=_latents(tiny, 3)[1:2])
    with trace(tiny.pipe, capture=Capture(steps=0, kinds="cross")) as three:
        tiny.call(0, prompt=prompts, latents=_latents(tiny, 3))
    np.testing.assert_allclose(
        three.tree["cross/4x8x12"].weights.sel(prompt=1).values, one.tree["cross/4x8x12"].weights.values, atol=1e-5
    )


def test_several_videos_a_prompt() -> None:
    cog = tiny_pipeline("latte-t2v")
    with trace(cog.pipe, capture=Capture(steps=0, kinds="cross")) as run:
        cog.call(0, num_images_per_prompt=2)
    weights = run.tree["cross/4x4x6"].weights
    assert weights.sizes["prompt"] == 2 and "prompt" not in run.tree.token_text.dims


def _latents(tiny: TinyPipeline, videos: int) -> torch.Tensor:
    return torch.randn(videos, 4, 4, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_after_a_fault_in_the_model_nothing_remains_and_the_finished_steps_stay(
    tiny: TinyPipeline, fault: type[BaseException]
) -> None:
    plain = tiny.run(seed=1)
    count = []

    def fail(module: Any, args: Any, output: Any) -> None:
        count.append(1)
        if len(count) == 2:
            raise fault("in the second step")

    handle = tiny.pipe.unet.mid_block.register_forward_hook(fail)
    before = remains(tiny.pipe)
    with pytest.raises(fault), trace(tiny.pipe, capture=Capture(kinds="cross")) as run:
        tiny.run(seed=1)
    assert remains(tiny.pipe) == before
    handle.remove()
    assert run.tree.step.values.tolist() == [0]
    assert run.tree.attrs["complete"] in (False, 0)
    assert np.array_equal(plain, tiny.run(seed=1))


@pytest.mark.parametrize(("branch", "finished"), [("both", [0]), ("uncond", [0]), ("cond", [0, 1])])
def test_a_step_interrupted_between_its_two_passes_is_finished_only_without_the_other_half(
    wan: TinyPipeline, branch: Any, finished: list[int]
) -> None:
    passes: list[int] = []

    def interrupt(*_: object) -> None:
        passes.append(1)
        if len(passes) == 4:  # the unconditional pass of the second step, before the trace hears of it
            raise KeyboardInterrupt

    handles = [module.register_forward_pre_hook(interrupt) for module in (wan.pipe.transformer, wan.pipe.transformer_2)]
    capture = Capture(kinds="cross", branch=branch)
    try:
        with pytest.raises(KeyboardInterrupt), trace(wan.pipe, capture=capture) as run:
            wan.run(seed=0)
    finally:
        for handle in handles:
            handle.remove()
    assert run.tree.step.values.tolist() == finished
    weights = run.tree["cross/3x2x3"].weights
    np.testing.assert_allclose(weights.sum("token").values, 1, atol=1e-5)


def test_a_second_call_a_missing_call_and_a_small_budget_are_refused(tiny: TinyPipeline) -> None:
    with pytest.raises(TracingError, match="second one"), trace(tiny.pipe, capture=Capture(kinds="cross")):
        tiny.run(seed=0)
        tiny.run(seed=0)
    with pytest.raises(TracingError, match="never ran"), trace(tiny.pipe):
        pass
    with pytest.raises(InputError, match="steps"), trace(tiny.pipe, capture=Capture(steps=[7])):
        tiny.run(seed=0)


@pytest.mark.parametrize("first", [0, 1])
def test_traces_of_one_pipeline_that_overlap_in_threads_each_keep_their_own(tiny: TinyPipeline, first: int) -> None:
    """Opened one after the other, called one after the other, and closed in either order: as two users of one model do."""
    turns = [[threading.Event() for _ in range(3)] for _ in range(2)]  # may call, has called, may close
    runs: list[Any] = [None, None]
    opened, faults = threading.Semaphore(0), []
    prompts = [PROMPT, "a blue star"]

    def work(user: int) -> None:
        call, called, close = turns[user]
        try:
            with trace(tiny.pipe, capture=Capture(steps=0, kinds="cross")) as runs[user]:
                opened.release()
                assert call.wait(20)
                tiny.run(seed=user, prompt=prompts[user])
                called.set()
                assert close.wait(20)
        except BaseException as fault:
            faults.append(fault)
            opened.release()
            called.set()

    threads = [threading.Thread(target=work, args=(user,)) for user in range(2)]
    for thread in threads:
        thread.start()
        assert opened.acquire(timeout=20)
    for user in (1 - first, first):
        turns[user][0].set()
        assert turns[user][1].wait(20)
    for user in (first, 1 - first):
        turns[user][2].set()
        threads[user].join(20)
    assert not faults, faults
    for user, run in enumerate(runs):
        expected = (tiny.run(seed=user, prompt=prompts[user])[0] * 255).round().astype(np.uint8)
        np.testing.assert_array_equal(run.tree["video"].rgb.values, expected)
        assert run.tree.attrs["prompt"] == prompts[user]
        assert [word for word in run.tree.word.values if word] and set(filter(None, run.tree.word.values)) <= set(
            prompts[user].split()
        )


def test_a_capture_over_its_budget_is_refused_with_what_would_fit() -> None:
    cog = tiny_pipeline("cogvideox-t2v")
    words = r"budget of 30 kB, but 3 steps need 64.5 kB. What would fit: .*steps=-1 \(21.5 kB\)"
    with pytest.raises(BudgetError, match=words), trace(cog.pipe, capture=Capture(budget="30kB")):
        cog.run(seed=0)
    plain = cog.run(seed=0)
    with trace(cog.pipe, capture=Capture(budget="65kB")) as run:
        assert np.array_equal(plain, cog.run(seed=0))
    assert run.coverage["recorded"] == 2


def test_attention_that_bypasses_torch_is_an_error_that_names_the_sites(tiny: TinyPipeline) -> None:
    class Bypass:
        def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Any:
            return hidden_states

    target = tiny.pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    target.processor = Bypass()
    try:
        path = r"unet\.mid_block\.attentions\.0\.transformer_blocks\.0\.attn2 \(1 sites\)"
        with pytest.raises(TracingError, match=path), trace(tiny.pipe):
            tiny.run(seed=0)
    finally:
        from diffusers.models.attention_processor import AttnProcessor2_0

        target.processor = AttnProcessor2_0()


@pytest.mark.parametrize("form", ["eager", "sliced"])
def test_eager_and_sliced_processors_give_the_same_maps(tiny: TinyPipeline, form: str) -> None:
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor

    with trace(tiny.pipe, capture=Capture(steps=0)) as fused:
        tiny.run(seed=0)
    try:
        tiny.pipe.unet.set_attn_processor(AttnProcessor() if form == "eager" else SlicedAttnProcessor(3))
        with trace(tiny.pipe, capture=Capture(steps=0)) as other:
            tiny.run(seed=0)
    finally:
        tiny.pipe.unet.set_attn_processor(AttnProcessor2_0())
    for name in ("cross/4x4x6", "spatial/4x8x12", "temporal/4x4x6"):
        np.testing.assert_allclose(other.tree[name].weights.values, fused.tree[name].weights.values, atol=1e-5)


def test_a_backend_set_to_something_else_is_native_while_traced_and_then_put_back(wan: TinyPipeline) -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    processor = wan.pipe.transformer.blocks[0].attn1.processor
    before = _AttentionBackendRegistry._active_backend
    try:
        processor._attention_backend = AttentionBackendName.FLEX
        _AttentionBackendRegistry._active_backend = AttentionBackendName.FLEX
        with trace(wan.pipe, capture=Capture(steps=0)) as run:
            wan.run(seed=0)
        assert run.coverage["recorded"] == 4
        assert run.tree.attrs["forced"] == ["attention backend flex -> native"]
        assert processor._attention_backend == AttentionBackendName.FLEX
        assert _AttentionBackendRegistry._active_backend == AttentionBackendName.FLEX
    finally:
        processor._attention_backend = None
        _AttentionBackendRegistry._active_backend = before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_no_nan_and_rows_sum_to_one(dtype: torch.dtype) -> None:
    tiny = tiny_pipeline("cogvideox-t2v")
    tiny.pipe.to(dtype)
    with trace(tiny.pipe, capture=Capture(steps=[0])) as run:
        tiny.run(seed=0)
    joint = run.tree["joint/3x2x3"]
    rows = joint.video_text.sum("token").values + joint.video_video.sum(["key_frame", "key_y", "key_x"]).values
    np.testing.assert_allclose(rows, 1, atol=2e-3)
    assert run.tree.attrs["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers under numpy 2
def test_a_second_order_scheduler_has_one_record_a_step(tiny: TinyPipeline) -> None:
    from diffusers import HeunDiscreteScheduler

    before = tiny.pipe.scheduler
    tiny.pipe.scheduler = HeunDiscreteScheduler()
    try:
        plain = tiny.run(seed=0)
        with trace(tiny.pipe, capture=Capture(kinds="cross")) as run:
            assert np.array_equal(plain, tiny.run(seed=0))
    finally:
        tiny.pipe.scheduler = before
    assert run.tree.step.values.tolist() == [0, 1, 2]
    assert run.tree.timestep.values.tolist() == sorted(set(run.tree.timestep.values.tolist()), reverse=True)


def test_prompt_embeddings_need_a_prompt_for_words(tiny: TinyPipeline) -> None:
    embeds, negative = tiny.pipe.encode_prompt(PROMPT, "cpu", 1, True)
    call = {"prompt": None, "prompt_embeds": embeds, "negative_prompt_embeds": negative}
    with trace(tiny.pipe, capture=Capture(steps=0, kinds="cross")) as run:
        tiny.run(seed=0, **call)
    assert set(run.tree.token_text.values) == {""} and set(run.tree.token_kind.values) == {"text"}
    for names in (None, ["circle"]):
        with pytest.raises(InputError, match=r"embeddings, .* metadata=\{'prompt'"):
            find_concepts(run.tree, names)
    with trace(tiny.pipe, capture=Capture(steps=0, kinds="cross"), metadata={"prompt": PROMPT}) as run:
        tiny.run(seed=0, **call)
    assert run.tree.word.values[3] == "circle" and run.tree.attrs["prompt"] == PROMPT


class Kernel(TorchDispatchMode):
    """Sees the operands of the fused kernel below autocast, and keeps the softmax of each call in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[torch.Tensor] = []
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "scaled_dot_product" in str(func):
            query, key = args[:2]
            mask, scale = ((kwargs or {}).get(name) for name in ("attn_mask", "scale"))
            logits = query.double() @ key.double().mT * (query.shape[-1] ** -0.5 if scale is None else scale)
            self.maps.append((logits if mask is None else logits + mask.double()).softmax(-1).nan_to_num(0))
            self.dtypes.add(query.dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")  # of torch, about its own speed
@pytest.mark.parametrize("name", ["cosmos-t2w", "ltx-t2v", "wan21-t2v"])
def test_under_autocast_the_video_is_the_same_and_the_maps_are_those_of_the_kernel(name: str) -> None:
    """Rotary embedding and normalisation leave float32 behind, and autocast rounds it on the way into the kernel."""
    pipeline = tiny_pipeline(name)
    with torch.autocast("cpu", torch.bfloat16):
        plain = pipeline.run(seed=0)
        with trace(pipeline.pipe, capture=Capture(steps=0, kinds="cross", branch="cond", dtype="float32")) as run:
            np.testing.assert_array_equal(pipeline.run(seed=0), plain)
        with Kernel() as kernel:
            pipeline.run(seed=0)
    assert kernel.dtypes == {torch.bfloat16} and not np.array_equal(plain, pipeline.run(seed=0))
    (group,) = (node for _, kind, _, node in attention_groups(run.tree) if kind == "cross")
    recorded = torch.from_numpy(group["weights"].isel(step=0).values).double()
    for layer in recorded:
        flat = layer.flatten(1, -2)
        near = [abs(flat - row).max() for maps in kernel.maps for row in maps if row.shape == flat.shape]
        assert near and min(near) < 1e-6


def test_observing_inside_a_trace_is_live_and_invisible(tiny: TinyPipeline) -> None:
    seen: list[AttentionCall] = []
    plain = tiny.run(seed=0)

    def watch(pipe: Any, i: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents = tensors["latents"].clone().requires_grad_(True)
        with torch.enable_grad(), observe(pipe, kinds=("cross",)) as calls:
            pipe.unet(latents, t, encoder_hidden_states=tensors["prompt_embeds"][-4:])
            assert calls[-1].query is not None
            assert torch.autograd.grad(calls[-1].query.square().sum(), latents)[0].abs().sum() > 0
        seen.extend(calls)
        return {}

    names = ["latents", "prompt_embeds"]
    with trace(tiny.pipe, capture=Capture(kinds="cross")) as run:
        traced = tiny.run(seed=0, callback_on_step_end=watch, callback_on_step_end_tensor_inputs=names)
    assert np.array_equal(plain, traced)
    assert run.coverage["recorded"] == 7 and run.tree.step.values.tolist() == [0, 1, 2]
    assert len(seen) == 21 and {call.branch for call in seen} == {"cond"} and [call.step for call in seen[::7]] == [0, 1, 2]


def test_an_unknown_pipeline_is_classified_by_what_is_seen_with_a_notice(tiny: TinyPipeline, monkeypatch: Any) -> None:
    from vico_lens.tracing import families

    with trace(tiny.pipe, capture=Capture(steps=0)) as known:
        tiny.run(seed=0)
    row = families.FAMILIES["animatediff"]
    families.FAMILIES.remove("animatediff")
    try:
        with pytest.warns(UserWarning, match="not in the table"), trace(tiny.pipe, capture=Capture(steps=0)) as run:
            tiny.run(seed=0)
    finally:
        families.FAMILIES.add("animatediff", row)
    assert run.tree.attrs["family"] == "unknown"
    for name in ("cross/4x4x6", "temporal/4x8x12", "spatial/4x8x12"):
        assert np.array_equal(run.tree[name].module, known.tree[name].module)
        np.testing.assert_array_equal(run.tree[name].weights.values, known.tree[name].weights.values)


def test_a_loop_of_ones_own_is_traced_with_a_notice(tiny: TinyPipeline) -> None:
    embeds, _ = tiny.pipe.encode_prompt(PROMPT, "cpu", 1, False)
    capture = Capture(steps=[1], kinds="cross")
    with pytest.warns(UserWarning, match="outside of the pipeline's own call"), trace(tiny.pipe, capture=capture) as run:
        for timestep in (900, 500, 100):
            with torch.no_grad():
                tiny.pipe.unet(_latents(tiny, 1), timestep, encoder_hidden_states=embeds.repeat_interleave(4, 0))
    assert run.tree.step.values.tolist() == [1] and run.tree.timestep.values.tolist() == [500]
    with pytest.raises(TracingError, match="count from the start"), trace(tiny.pipe, capture=Capture(steps=-1)):
        tiny.pipe.unet(_latents(tiny, 1), 1, encoder_hidden_states=embeds.repeat_interleave(4, 0))
