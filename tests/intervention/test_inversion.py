"""Inversion against the exact fixed point of deterministic sampling, on stock pipelines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vico_lens.errors import InputError, ModelError
from vico_lens.intervention.inversion import _scaled, encode_video, invert
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline

STEPS = 4


def arguments(tiny: TinyPipeline) -> dict[str, Any]:
    ours = ("num_inference_steps", "guidance_scale", "output_type", "latents")
    return {name: value for name, value in tiny.kwargs.items() if name not in ours}


def generate(tiny: TinyPipeline, latents: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    call = arguments(tiny) | {"num_inference_steps": steps, "guidance_scale": 1.0, "output_type": "latent"}
    return tiny.pipe(**call, latents=latents.clone()).frames


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", ["animatediff-t2v", "cogvideox-t2v", "ltx-t2v", "latte-t2v"])
def test_more_iterations_converge_to_the_latents_it_started_from(name: str) -> None:
    """Covers predictions of noise, of velocity and of flow; channels and frames first, and packed latents."""
    tiny = tiny_pipeline(name)
    start = torch.randn(tiny.call(output_type="latent").frames.shape, generator=torch.Generator().manual_seed(0))
    clean = generate(tiny, start)
    scheduler = tiny.pipe.scheduler
    errors = [
        error(invert(tiny.pipe, latents=clean, num_inference_steps=STEPS, iterations=count, **arguments(tiny)), start)
        for count in (1, 2, 15)
    ]
    assert errors[0] > errors[1] > errors[2] < 1e-2
    assert tiny.pipe.scheduler is scheduler and "prepare_latents" not in vars(tiny.pipe)
    torch.testing.assert_close(generate(tiny, start), clean)


@pytest.mark.parametrize(
    ("scheduler", "spacing"),
    [
        ("DDIMScheduler", "trailing"),
        ("DDIMScheduler", "linspace"),
        ("DDIMScheduler", "leading"),
        ("CogVideoXDDIMScheduler", "linspace"),
    ],
)
def test_levels_are_those_of_the_scheduler_where_steps_do_not_divide_its_training(scheduler: str, spacing: str) -> None:
    """DDIM steps down by 1000 // 7 = 142; its next timestep is up to 1 lower in trailing and 25 lower in linspace spacing."""
    import diffusers

    tiny = tiny_pipeline("animatediff-t2v")
    settings = {"timestep_spacing": spacing, "clip_sample": False, "rescale_betas_zero_snr": False}
    tiny.pipe.scheduler = getattr(diffusers, scheduler).from_config(tiny.pipe.scheduler.config, **settings)
    start = torch.randn(1, 4, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    clean = generate(tiny, start, steps=7)
    found = invert(tiny.pipe, latents=clean, num_inference_steps=7, iterations=20, **arguments(tiny))
    assert error(found, start) < 1e-3 and error(generate(tiny, found, steps=7), clean) < 1e-3


@pytest.mark.parametrize(
    "config",
    [
        {"scaling_factor": 0.7, "shift_factor": 0.3},
        {"latents_mean": [0.5, -1.0], "latents_std": [2.0, 0.25]},
        {"latents_mean": [0.5, -1.0], "latents_std": [2.0, 0.25], "scaling_factor": 0.7},
    ],
)
def test_the_scale_of_latents_undoes_what_pipelines_do_before_they_decode(config: dict[str, Any]) -> None:
    encoded = torch.randn(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    scaled = _scaled(SimpleNamespace(config=SimpleNamespace(**config)), encoded)
    mean, deviation = (
        torch.tensor(config.get(name, [other] * 2)) for name, other in (("latents_mean", 0.0), ("latents_std", 1.0))
    )
    decoded = scaled.movedim(1, -1) / config.get("scaling_factor", 1.0) * deviation + mean + config.get("shift_factor", 0.0)
    torch.testing.assert_close(decoded.movedim(-1, 1), encoded)
    assert not torch.allclose(scaled, encoded)


def test_multistep_solver_in_flow_form() -> None:
    """The bundled model's scheduler: its second-order sampling is inverted to first order, and still comes back."""
    from diffusers import DPMSolverMultistepScheduler

    tiny = tiny_pipeline("animatediff-t2v")
    settings = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    tiny.pipe.scheduler = DPMSolverMultistepScheduler.from_config(tiny.pipe.scheduler.config, **settings)
    start = torch.randn(1, 4, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    clean = generate(tiny, start)
    found = invert(tiny.pipe, latents=clean, num_inference_steps=STEPS, **arguments(tiny))
    assert error(generate(tiny, found), clean) < 0.02


def test_a_video_is_encoded_and_inverted() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    video = (np.random.default_rng(0).random((4, 16, 24, 3)) * 255).astype(np.uint8)
    clean = encode_video(tiny.pipe, video)
    assert clean.shape == (1, 4, 4, 8, 12)
    frames = torch.from_numpy(video / 127.5 - 1).float().permute(0, 3, 1, 2)
    expected = tiny.pipe.vae.encode(frames).latent_dist.mode() * tiny.pipe.vae.config.scaling_factor
    torch.testing.assert_close(clean[0].transpose(0, 1), expected.detach())
    found = invert(tiny.pipe, video, tiny.prompt, num_inference_steps=STEPS)
    size = {"num_frames": 4, "height": 16, "width": 24}
    torch.testing.assert_close(found, invert(tiny.pipe, latents=clean, prompt=tiny.prompt, num_inference_steps=STEPS, **size))


@pytest.mark.parametrize("name", ["cogvideox-t2v", "wan21-t2v"])
def test_video_autoencoders_are_the_inverse_of_the_pipelines_decoding(name: str) -> None:
    tiny = tiny_pipeline(name)
    latents = tiny.call(output_type="latent").frames
    assert encode_video(tiny.pipe, tiny.run()[0]).shape == latents.shape


def test_what_cannot_be_inverted_is_an_error() -> None:
    import diffusers

    tiny = tiny_pipeline("animatediff-t2v")
    latents = torch.zeros(1, 4, 4, 8, 12)
    with pytest.raises(InputError, match="got neither"):
        invert(tiny.pipe)
    with pytest.raises(InputError, match="got both"):
        invert(tiny.pipe, np.zeros((4, 16, 24, 3)), latents=latents)
    with pytest.raises(InputError, match="at least one denoiser evaluation"):
        invert(tiny.pipe, latents=latents, iterations=0)
    with pytest.raises(ModelError, match="layout"):
        encode_video(tiny_pipeline("ltx-t2v").pipe, np.zeros((9, 32, 32, 3)))
    tiny.pipe.scheduler = diffusers.DDIMScheduler.from_config(tiny.pipe.scheduler.config, prediction_type="sample")
    with pytest.raises(ModelError, match="prediction_type='sample'"):
        invert(tiny.pipe, latents=latents)
