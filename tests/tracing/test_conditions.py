"""Pipelines as people run them: offloaded, cast layer by layer, checkpointed, compiled. Traced alike, and left as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from remains import remains
from torch._dynamo.testing import CompileCounter

from vico_lens.testing import TinyPipeline, assert_traces_close, tiny_pipeline
from vico_lens.testing.pipelines.releases import older_than
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.recording import trace
from vico_lens.tracing.tracer import observe

FIRST = Capture(steps=[0])


@contextmanager
def offloaded(denoiser: Any) -> Iterator[None]:
    """Weights lie in a state dict, and are brought in by hooks of accelerate, module by module."""
    import accelerate
    from accelerate.hooks import remove_hook_from_module

    accelerate.cpu_offload(denoiser, execution_device=torch.device("cpu"), offload_buffers=True)
    assert next(denoiser.parameters()).device.type == "meta"
    try:
        yield
    finally:
        remove_hook_from_module(denoiser, recurse=True)


@contextmanager
def offloaded_in_groups(denoiser: Any) -> Iterator[None]:
    if older_than("0.36"):
        pytest.skip("group offloading of diffusers 0.35 asks for an accelerator")
    from diffusers.hooks import apply_group_offloading

    cpu = torch.device("cpu")
    apply_group_offloading(denoiser, onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    yield


@contextmanager
def cast_by_layer(denoiser: Any) -> Iterator[None]:
    """Weights are kept in eight bits and cast before each layer."""
    denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    yield


@pytest.mark.parametrize("condition", [offloaded, offloaded_in_groups, cast_by_layer])
@pytest.mark.parametrize("name", ["animatediff-t2v", "cogvideox-t2v", "wan21-t2v"])
def test_a_pipeline_with_hooks_of_its_own(name: str, condition: Callable[[Any], Any]) -> None:
    tiny = tiny_pipeline(name)
    (denoiser,) = tiny.denoisers.values()
    with condition(denoiser):
        before = remains(tiny.pipe)
        plain = tiny.run()
        with trace(tiny.pipe, capture=FIRST) as run:
            np.testing.assert_array_equal(tiny.run(), plain)
        assert remains(tiny.pipe) == before
        np.testing.assert_array_equal(tiny.run(), plain)
    assert run.coverage["recorded"] and not run.coverage["left_out"]


def test_offloading_does_not_change_the_maps() -> None:
    maps = []
    for place in (None, offloaded):
        tiny = tiny_pipeline("wan21-t2v")
        (denoiser,) = tiny.denoisers.values()
        with place(denoiser) if place else nullcontext(), trace(tiny.pipe, capture=FIRST) as run:
            tiny.run()
        maps.append(run.tree)
    assert_traces_close(*maps, atol=0)


@pytest.mark.parametrize("name", ["animatediff-t2v", "cogvideox-t2v", "wan21-t2v"])
def test_a_checkpointed_denoiser_is_seen_once_and_its_gradients_are_the_same(name: str) -> None:
    """Backward runs every block again; the calls are those of the forward, and so are the gradients through query and key."""
    gradients, counts = [], []
    for checkpointed in (False, True):
        tiny = tiny_pipeline(name)
        (denoiser,) = tiny.denoisers.values()
        if checkpointed:
            denoiser.enable_gradient_checkpointing()
        weight = next(p for path, p in denoiser.named_parameters() if "to_q.weight" in path).requires_grad_()
        gradients.append(gradient(tiny, weight, counts))
    assert counts[0] == counts[1] > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


class Enough(Exception):
    """Leaves the pipeline call once a gradient was taken."""


def gradient(tiny: TinyPipeline, weight: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Gradient of the last query with respect to the first projection, taken inside the stock call."""
    (denoiser,) = tiny.denoisers.values()
    found: list[torch.Tensor] = []

    def once(module: Any, args: Any, kwargs: Any) -> None:
        handle.remove()
        with torch.enable_grad(), observe(tiny.pipe) as calls:
            module(*args, **kwargs)
            last = calls[-1].query
            assert last is not None
            found.append(torch.autograd.grad(last.square().sum(), weight)[0])
        counts.append(len(calls))
        raise Enough

    handle = denoiser.register_forward_pre_hook(once, with_kwargs=True)
    with pytest.raises(Enough):
        tiny.run()
    return found[0]


def compiled_around(tiny: TinyPipeline, counter: CompileCounter) -> None:
    tiny.pipe.transformer = torch.compile(tiny.pipe.transformer, backend=counter, dynamic=False)


def compiled_in_place(tiny: TinyPipeline, counter: CompileCounter) -> None:
    tiny.pipe.transformer.compile(backend=counter, dynamic=False)


def compiled_by_block(tiny: TinyPipeline, counter: CompileCounter) -> None:
    for block in tiny.pipe.transformer.blocks:
        block.compile(backend=counter, dynamic=False)


@pytest.mark.parametrize("compiled", [compiled_around, compiled_in_place, compiled_by_block])
def test_a_compiled_denoiser_runs_eagerly_while_traced_and_compiled_afterwards(compiled: Callable[..., None]) -> None:
    tiny = tiny_pipeline("wan21-t2v")
    eager = tiny.run()
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled(tiny, counter)
    with trace(tiny.pipe, capture=FIRST) as run:
        np.testing.assert_array_equal(tiny.run(), eager)
    assert counter.frame_count == 0
    assert run.tree.attrs["forced"] == ["torch.compile -> eager"]
    assert run.coverage["recorded"] == 4
    assert all(name.startswith("transformer.blocks") for name in run.tree["cross/3x2x3"].module.values)
    tiny.run()
    assert counter.frame_count > 0
    torch._dynamo.reset()


LENGTHS = ["animatediff-t2v", "easyanimate-t2v", "kandinsky5-t2v", "latte-t2v", "ltx-t2v", "mochi-t2v", "motif-t2v", "sana-t2v"]


@pytest.mark.parametrize("negative", ["", "blurred, a green triangle and a yellow star moving left"])
@pytest.mark.parametrize("name", LENGTHS)
def test_both_halves_with_a_negative_prompt_of_another_length(name: str, negative: str) -> None:
    """Masks and text lengths of the halves differ; each half must be what it is when it is recorded alone."""
    tiny = tiny_pipeline(name)
    trees = {}
    for branch in ("cond", "uncond", "both"):
        with tiny.context(), trace(tiny.pipe, capture=Capture(steps=[0], branch=branch)) as run:  # type: ignore[arg-type]
            tiny.run(negative_prompt=negative)
        trees[branch] = run.tree
    for group in trees["both"].groups[1:]:
        for variable, both in trees["both"][group].data_vars.items():
            for branch in ("cond", "uncond"):
                if "branch" not in both.dims:
                    continue
                got, alone = both.sel(branch=branch), trees[branch][group][variable]
                sizes = {dim: slice(0, alone.sizes[dim]) for dim in ("token", "key_token") if dim in alone.dims}
                assert np.isfinite(got.values).all()
                np.testing.assert_allclose(got.isel(sizes).values, alone.values, atol=1e-6)
