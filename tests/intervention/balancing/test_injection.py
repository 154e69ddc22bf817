"""Changing the latents of stock pipelines from outside, and leaving no trace of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vico_lens.errors import BalanceError
from vico_lens.intervention.balancing.injection import StepState, inject
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline


def push(moment: StepState) -> torch.Tensor:
    """A constant push, so that what arrives can be told."""
    return moment.latents + 0.25


def run_with(tiny: TinyPipeline, update: Callable[[StepState], torch.Tensor | None], **call: Any) -> np.ndarray:
    with inject(tiny.pipe, tiny.denoisers, update):
        return tiny.run(**call)


@pytest.fixture(scope="module")
def animatediff() -> TinyPipeline:
    return tiny_pipeline("animatediff-t2v")


def test_every_step_is_seen_once_and_nothing_remains(animatediff: TinyPipeline) -> None:
    plain = animatediff.run()
    before = dict(animatediff.pipe.__dict__), len(animatediff.pipe.unet._forward_pre_hooks)
    seen: list[StepState] = []

    def update(moment: StepState) -> torch.Tensor:
        seen.append(moment)
        return push(moment)

    moved = run_with(animatediff, update)
    assert [(moment.run, moment.step, moment.steps) for moment in seen] == [(0, 0, 3), (0, 1, 3), (0, 2, 3)]
    assert all(moment.latents.dtype == torch.float32 and moment.branches == moment.repeat == 2 for moment in seen)
    assert seen[0].prompts == [animatediff.prompt]
    assert not np.array_equal(moved, plain)
    assert (animatediff.pipe.__dict__, len(animatediff.pipe.unet._forward_pre_hooks)) == before
    np.testing.assert_array_equal(animatediff.run(), plain)


def test_denoiser_and_scheduler_get_the_moved_latents(animatediff: TinyPipeline) -> None:
    """The same noise handed in, pushed once from inside and once by hand, gives the same video."""
    noise = torch.randn(1, 4, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    inside = run_with(animatediff, lambda moment: push(moment) if moment.step == 0 else None, latents=noise.clone())
    np.testing.assert_array_equal(inside, animatediff.run(latents=noise + 0.25))


def test_an_update_that_returns_none_changes_nothing(animatediff: TinyPipeline) -> None:
    np.testing.assert_array_equal(run_with(animatediff, lambda moment: None), animatediff.run())


@pytest.mark.parametrize("name", ["animatediff-t2v", "wan21-t2v", "ltx-t2v"])
def test_own_latents_are_never_changed(name: str) -> None:
    tiny = tiny_pipeline(name)
    shapes: list[torch.Size] = []
    run_with(tiny, lambda moment: shapes.append(moment.latents.shape))
    noise = torch.randn(shapes[0], generator=torch.Generator().manual_seed(1))
    given = noise.clone()
    moved = run_with(tiny, push, latents=given)
    assert torch.equal(given, noise)
    assert not np.array_equal(moved, tiny.run(latents=given))


@pytest.mark.parametrize("name", ["wan21-t2v", "skyreels-v2-t2v"])
def test_second_guidance_pass_gets_the_moved_latents(name: str) -> None:
    tiny = tiny_pipeline(name)
    inputs: list[torch.Tensor] = []
    count: list[int] = []
    with inject(tiny.pipe, tiny.denoisers, lambda moment: count.append(moment.branches) or push(moment)):  # type: ignore[func-returns-value]
        keep = lambda module, args, kwargs: inputs.append(kwargs["hidden_states"].clone())  # noqa: E731
        handle = tiny.pipe.transformer.register_forward_pre_hook(keep, with_kwargs=True)
        tiny.run()
        handle.remove()
    assert count == [2] * (len(inputs) // 2)
    for conditional, unconditional in zip(inputs[::2], inputs[1::2], strict=True):
        assert torch.equal(conditional, unconditional)


def final_latents(tiny: TinyPipeline, update: Callable[[StepState], torch.Tensor | None], **call: Any) -> torch.Tensor:
    with inject(tiny.pipe, tiny.denoisers, update):
        return tiny.call(output_type="latent", **call).frames


def test_unipc_corrector_does_not_undo_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the guard taken out, the corrector recomputes the latents from those before the update."""
    from vico_lens.intervention.balancing import injection

    tiny = tiny_pipeline("wan21-t2v")
    assert type(tiny.pipe.scheduler).__name__ == "UniPCMultistepScheduler"

    def late(moment: StepState) -> torch.Tensor | None:
        return push(moment) if moment.step in (3, 4) else None

    plain = final_latents(tiny, lambda moment: None, num_inference_steps=6)
    guarded = (final_latents(tiny, late, num_inference_steps=6) - plain).square().mean().sqrt()
    monkeypatch.setattr(injection, "_drop_corrector", lambda scheduler: None)
    unguarded = (final_latents(tiny, late, num_inference_steps=6) - plain).square().mean().sqrt()
    assert guarded > 1.5 * unguarded


NUMPY_2 = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers' own, in its sigma tables


@NUMPY_2
@pytest.mark.parametrize("scheduler", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler"])
def test_schedulers_with_inner_stages_are_updated_once_a_step(scheduler: str) -> None:
    import diffusers

    tiny = tiny_pipeline("animatediff-t2v")
    tiny.pipe.scheduler = getattr(diffusers, scheduler).from_config(tiny.pipe.scheduler.config)
    evaluations: list[int] = []
    handle = tiny.pipe.unet.register_forward_hook(lambda *ignored: evaluations.append(1))
    seen: list[tuple[int, int, float]] = []

    def update(moment: StepState) -> torch.Tensor:
        seen.append((moment.step, moment.steps, moment.timestep))
        return push(moment)

    with inject(tiny.pipe, tiny.denoisers, update):
        tiny.run(num_inference_steps=5)
    handle.remove()
    assert len(evaluations) > len(seen)
    assert [step for step, *_ in seen] == list(range(len(seen)))
    times = [timestep for *_, timestep in seen]
    assert times == sorted(set(times), reverse=True)


@NUMPY_2
def test_scaled_inputs_are_understood() -> None:
    import diffusers

    tiny = tiny_pipeline("animatediff-t2v")
    tiny.pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(tiny.pipe.scheduler.config)
    scales: list[float] = []

    def update(moment: StepState) -> torch.Tensor:
        scales.append(moment.scale)
        return push(moment)

    run_with(tiny, update)
    sigmas = tiny.pipe.scheduler.sigmas[:3]
    torch.testing.assert_close(torch.tensor(scales), (1 / (sigmas**2 + 1).sqrt()).cpu(), rtol=1e-4, atol=0)


def test_batches_and_several_videos_a_prompt() -> None:
    tiny = tiny_pipeline("ltx-t2v")
    seen: list[StepState] = []

    def update(moment: StepState) -> torch.Tensor:
        seen.append(moment)
        with torch.enable_grad():
            variable = moment.latents.clone().requires_grad_()
            output = moment.forward(variable)
            rows = (output[0] if isinstance(output, tuple) else output.sample)[0].sum()
            (gradient,) = torch.autograd.grad(rows, variable)
        assert bool(gradient[0].any()) and not bool(gradient[1:].any())
        return push(moment)

    prompts = ["a red circle", "a blue square"]
    run_with(tiny, update, prompt=prompts, num_videos_per_prompt=2, num_inference_steps=2)
    assert seen[0].latents.shape[0] == 4
    assert seen[0].prompts == ["a red circle", "a red circle", "a blue square", "a blue square"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_pipelines(dtype: torch.dtype) -> None:
    tiny = tiny_pipeline("wan21-t2v")
    tiny.pipe.transformer.to(dtype)
    tiny.pipe.text_encoder.to(dtype)
    seen: list[StepState] = []

    def update(moment: StepState) -> torch.Tensor:
        seen.append(moment)
        return push(moment)

    moved = run_with(tiny, update)
    assert all(moment.latents.dtype == torch.float32 for moment in seen)
    assert np.isfinite(moved).all()


def test_calls_inside_one_with_are_numbered(animatediff: TinyPipeline) -> None:
    seen: list[tuple[int, int]] = []
    with inject(animatediff.pipe, animatediff.denoisers, lambda moment: seen.append((moment.run, moment.step))):
        first = animatediff.run(num_inference_steps=2)
        second = animatediff.run(num_inference_steps=2)
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1)]
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_is_an_error_and_all_is_undone(animatediff: TinyPipeline, value: float) -> None:
    plain = animatediff.run()
    with pytest.raises(BalanceError, match="not finite at denoising step 0"):
        run_with(animatediff, lambda moment: moment.latents * value)
    np.testing.assert_array_equal(animatediff.run(), plain)


def test_an_update_of_another_shape_is_an_error(animatediff: TinyPipeline) -> None:
    with pytest.raises(BalanceError, match="to return finite latents of shape"):
        run_with(animatediff, lambda moment: moment.latents[:, :2])


def test_inference_mode_is_an_error(animatediff: TinyPipeline) -> None:
    with torch.inference_mode(), pytest.raises(BalanceError, match="inference_mode"):
        run_with(animatediff, push)


def test_only_pipelines_are_taken() -> None:
    with pytest.raises(BalanceError, match="prepare_latents"), inject(object(), {}, push):
        raise AssertionError


def test_injections_nest(animatediff: TinyPipeline) -> None:
    noise = torch.randn(1, 4, 4, 8, 12, generator=torch.Generator().manual_seed(1))

    def first_step(moment: StepState) -> torch.Tensor | None:
        return push(moment) if moment.step == 0 else None

    with inject(animatediff.pipe, animatediff.denoisers, first_step):
        twice = run_with(animatediff, first_step, latents=noise)
    np.testing.assert_allclose(twice, animatediff.run(latents=noise + 0.5), atol=1e-6)
