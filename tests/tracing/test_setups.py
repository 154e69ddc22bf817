"""Set-ups around a pipeline: modular, cached, compiled by hand, kernels replaced. Traced alike, or refused with what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import vico_lens as vl
from vico_lens.errors import TracingError
from vico_lens.testing import TinyPipeline, assert_traces_close, tiny_pipeline


@pytest.fixture(scope="module")
def wan() -> TinyPipeline:
    return tiny_pipeline("wan21-t2v")


def test_a_modular_pipeline_is_traced_like_the_stock_one(wan: TinyPipeline) -> None:
    from diffusers.modular_pipelines.wan.modular_blocks_wan import WanBlocks

    pipe = WanBlocks().init_pipeline()
    parts = {name: part for name, part in wan.pipe.components.items() if part is not None and name in pipe._component_specs}
    pipe.update_components(**parts)
    pipe.set_progress_bar_config(disable=True)
    call = {name: value for name, value in wan.kwargs.items() if name != "guidance_scale"}

    def run() -> Any:
        return pipe(generator=torch.Generator().manual_seed(3), output="videos", **call)

    plain = run()
    capture = vl.Capture(branch="both", steps=[0, -1], kinds="cross", dtype="float32")
    with vl.trace(pipe, capture=capture) as modular:
        np.testing.assert_array_equal(np.asarray(run()), np.asarray(plain))
    with vl.trace(wan.pipe, capture=capture) as stock:
        wan.run(seed=3)
    assert_traces_close(modular.tree, stock.tree, atol=1e-6)
    for name in ("prompt", "negative_prompt", "seed", "steps", "guidance_scale", "family", "height", "num_frames"):
        assert modular.tree.attrs[name] == stock.tree.attrs[name], name
    assert modular.tree.step.values.tolist() == [0, 2] and modular.tree.attrs["complete"]


def test_a_cache_is_refused_by_the_method_that_switches_it_off(wan: TinyPipeline) -> None:
    from diffusers import FirstBlockCacheConfig

    wan.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=10.0))
    try:
        with pytest.raises(TracingError, match=r"pipe\.transformer\.disable_cache\(\)"), vl.trace(wan.pipe):
            wan.run(seed=0)
    finally:
        wan.pipe.transformer.disable_cache()


def test_a_forward_compiled_by_hand_runs_eagerly_while_traced() -> None:
    from torch._dynamo.testing import CompileCounter

    tiny = tiny_pipeline("wan21-t2v")
    with vl.trace(tiny.pipe, capture=vl.Capture(steps=0)) as eager:
        plain = tiny.run(seed=0)
    torch._dynamo.reset()
    counter = CompileCounter()
    for block in tiny.pipe.transformer.blocks:
        block.forward = torch.compile(block.forward, backend=counter, dynamic=False)
    with vl.trace(tiny.pipe, capture=vl.Capture(steps=0)) as run:
        np.testing.assert_array_equal(tiny.run(seed=0), plain)
    assert counter.frame_count == 0 and run.tree.attrs["forced"] == ["torch.compile -> eager"]
    assert_traces_close(run.tree, eager.tree, atol=0)
    torch._dynamo.reset()


def test_names_of_a_compiled_denoiser_are_those_of_the_model(wan: TinyPipeline) -> None:
    """Sites that did not run were listed once more under their compiled names."""
    tiny = tiny_pipeline("wan21-t2v")
    tiny.pipe.transformer = torch.compile(tiny.pipe.transformer, backend="eager")
    with vl.trace(tiny.pipe, capture=vl.Capture(steps=0, kinds="cross")) as run:
        tiny.run(seed=0)
    left_out = json.loads(run.tree.attrs["coverage"])["left_out"]
    assert set(left_out.values()) == {"not selected by the capture"} and not any("_orig_mod" in name for name in left_out)
    torch._dynamo.reset()


WRAPPED = """
import torch
from torch.nn import functional
stock = functional.scaled_dot_product_attention
functional.scaled_dot_product_attention = lambda *args, **kwargs: stock(*args, **kwargs)
import vico_lens as vl
from vico_lens.testing import tiny_pipeline
tiny = tiny_pipeline("wan21-t2v")
with vl.trace(tiny.pipe, capture=vl.Capture(steps=0)) as run:
    tiny.run(seed=0)
print("recorded", run.coverage["recorded"])
"""


def test_a_kernel_that_someone_wrapped_before_the_first_import_is_seen() -> None:
    told = subprocess.run([sys.executable, "-c", WRAPPED], check=True, capture_output=True, text=True).stdout
    assert "recorded 4" in told


def test_a_processor_without_a_backend_of_its_own_has_none_afterwards() -> None:
    """The setting is its class's: put on the instance it would outlive a change of the class."""
    tiny = tiny_pipeline("wan21-t2v")
    processor = tiny.pipe.transformer.blocks[0].attn1.processor
    type(processor)._attention_backend, before = "flex", type(processor)._attention_backend
    try:
        with vl.trace(tiny.pipe, capture=vl.Capture(steps=0)) as run:
            tiny.run(seed=0)
        assert run.tree.attrs["forced"] == ["attention backend flex -> native"]
        assert "_attention_backend" not in vars(processor)
    finally:
        type(processor)._attention_backend = before
