"""Everything that meets a model's tensors computes where they lie: tracing, attribution and balancing on the pretended device.

An operation between devices and `.numpy()` of a device tensor fail on a GPU; a copy to the CPU and a number that is read make it
wait. The tests below allow none of the first two, and name every place that may wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vico_lens as vl
from vico_lens.attribution import influence_of_stages
from vico_lens.attribution.base import methods
from vico_lens.kernels.stages import stages_from_calls
from vico_lens.testing.pipelines import tiny_pipeline, tiny_pipelines
from vico_lens.testing.pretend_device import (
    DeviceLog,
    PretendTensor,
    move_to_pretend_device,
    pretend_device,
    to_pretend_device,
)
from vico_lens.testing.traces import fake_calls, fake_sites
from vico_lens.vocabulary.schema import AttentionCall

SOURCES = [[1, 2], [3]]
STAGE_METHODS = sorted(name for name, method in methods().items() if not method.needs_pipe)
# An exact solver is a search: it asks after each sweep whether it is done, and its certificate is a report in Python numbers.
SEARCHES = {"max_flow"}


def calls_of(family: str, move: Callable[[torch.Tensor], torch.Tensor], *, gradient: bool) -> list[AttentionCall]:
    calls = fake_calls(fake_sites(family, grid=(2, 4, 4)))
    return [replace(call, query=move(call.query).requires_grad_(gradient), key=move(call.key)) for call in calls]


def told(log: DeviceLog, *kinds: Any) -> list[str]:
    return [f"{event.kind} {event.line} {event.operation} x{event.times}" for event in log.in_package(*kinds)]


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
@pytest.mark.parametrize("name", STAGE_METHODS)
def test_a_method_computes_where_the_attention_is(name: str, family: str) -> None:
    gradient = methods()[name].differentiable
    expected_calls = calls_of(family, torch.clone, gradient=gradient)
    expected = influence_of_stages(stages_from_calls(expected_calls), SOURCES, name)
    with pretend_device() as log:
        moved = calls_of(family, to_pretend_device, gradient=gradient)
        influence = influence_of_stages(stages_from_calls(moved), SOURCES, name)
        if gradient:
            influence.square().sum().backward()
    assert isinstance(influence, PretendTensor)
    torch.testing.assert_close(influence.wrapped, expected.detach())
    if gradient:
        expected.square().sum().backward()
        for call, there in zip(expected_calls, moved, strict=True):
            assert (call.query.grad is None) == (there.query.grad is None)
            if call.query.grad is not None:
                torch.testing.assert_close(there.query.grad.wrapped, call.query.grad)
    assert told(log, "mixed", "numpy") == []
    if name not in SEARCHES:
        assert told(log, "down") == []
        # One number a stage may be read (whether its rows are sums of one, whether a graph is empty); never one a token.
        stages = len(expected_calls)
        assert [event for event in log.in_package("sync") if event.times > 4 * stages] == []


def test_a_planted_copy_to_the_cpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import vico_lens.kernels.stages as module

    original = module.resample
    monkeypatch.setattr(module, "resample", lambda stage, grid: original(stage.having(stage.weights.cpu()), grid))
    with pretend_device() as log:
        calls = calls_of("unet", to_pretend_device, gradient=False)
        stages_from_calls(calls, grid=(2, 2, 2))
    assert any("kernels/stages.py" in line for line in told(log, "down"))


def test_a_planted_operation_between_devices_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import vico_lens.kernels.stages as module

    original = module.resample
    monkeypatch.setattr(module, "resample", lambda stage, grid: original(stage.having(stage.weights * torch.ones(1)), grid))
    with pretend_device() as log, pytest.raises(RuntimeError, match="expected all tensors to be on one device"):
        stages_from_calls(calls_of("unet", to_pretend_device, gradient=False), grid=(2, 2, 2))
    assert any("kernels/stages.py" in line for line in told(log, "mixed"))


PROMPT = "a red circle moving right and a blue square moving up"


def pipeline_on_device(name: str) -> tuple[Any, Callable[[], Any]]:
    """A pipeline whose weights are on the pretended device, and its call of a few steps."""
    if name == "bundled":
        pipe = vl.load_pipeline()

        def call() -> Any:
            generator = torch.Generator().manual_seed(0)
            return pipe(PROMPT, num_inference_steps=2, output_type="latent", generator=generator).frames
    else:
        tiny = tiny_pipeline(name)
        pipe = tiny.pipe

        def call() -> Any:
            return tiny.call(0, num_inference_steps=4, output_type="latent")

    return move_to_pretend_device(pipe), call


# These ask `len()` of literals, which the pretended device gives as tensors without dimensions: they stop untraced as well.
UNABLE = {"easyanimate-t2v", "helios-t2v", "mochi-t2v"}
NAMES = ["bundled", *(name for name in tiny_pipelines() if name not in UNABLE)]


@pytest.mark.parametrize("name", NAMES)
def test_tracing_never_mixes_devices_and_copies_down_what_it_stores(name: str, tmp_path: Path) -> None:
    pipe, call = pipeline_on_device(name)
    with pretend_device() as log, vl.trace(pipe, to=tmp_path / "run.zarr") as run:
        call()
    assert told(log, "mixed", "numpy") == []
    copied = sum(event.bytes for event in log.in_package("down"))
    assert copied > 0
    rooms = {event.line.split("/")[0] for event in log.in_package("down")}
    assert rooms - {"testing"} <= {"store", "tracing"}  # the stand-in of a guard in the test kit copies down too
    assert run.tree.attrs["complete"]


@pytest.mark.parametrize("name", NAMES)
def test_balancing_never_mixes_devices(name: str) -> None:
    pipe, call = pipeline_on_device(name)
    with pretend_device() as log, vl.balance(pipe) as balance:
        call()
    assert told(log, "mixed", "numpy") == []
    assert balance.log.sizes["update"] > 0


@pytest.mark.parametrize("name", sorted(name for name, method in methods().items() if method.needs_pipe))
def test_a_method_that_runs_the_model_again_never_mixes_devices(name: str, tmp_path: Path) -> None:
    pipe = vl.load_pipeline()
    with vl.trace(pipe, to=tmp_path / "run.zarr", capture=vl.Capture(steps=[0])) as run:
        pipe(PROMPT, num_inference_steps=2, output_type="latent", generator=torch.Generator().manual_seed(0))
    options = {"n_steps": 2} if name == "integrated_gradients" else {}
    expected = vl.attribute(run.tree, name, pipe=pipe, steps=0, **options)
    move_to_pretend_device(pipe)
    with pretend_device() as log:
        influence = vl.attribute(run.tree, name, pipe=pipe, steps=0, **options)
    assert told(log, "mixed", "numpy") == []
    np.testing.assert_allclose(influence, expected, rtol=1e-4, atol=1e-6)
