"""Denoiser calls of the bundled model made for a measurement, and where the objects of its clips are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vico_lens.attribution.replay import DenoiserCall
from vico_lens.intervention.inversion import encode_video
from vico_lens.tinyworld import TinyPrompt
from vico_lens.tinyworld.vocabulary import BACKGROUND, COLOURS

__all__ = ["conditional_half", "masks_of_frames", "noised_call"]


def masks_of_frames(frames: np.ndarray[Any, Any], prompt: TinyPrompt) -> np.ndarray[Any, Any]:
    """Masks ``[object, frame, row, column]`` of a clip that shows all objects: the pixels nearest to each colour."""
    background = np.asarray(BACKGROUND)
    rays = np.array([COLOURS[item.colour] for item in prompt.objects]) - background
    pixels = frames - background
    cover = np.clip(pixels @ rays.T / (rays**2).sum(1), 0, 1)
    away = np.linalg.norm(pixels[..., None, :] - cover[..., None] * rays, axis=-1)
    nearest = away.argmin(-1)
    return np.stack([(nearest == index) & (cover[..., index] > 0.5) for index in range(len(rays))]).astype(float)


def conditional_half(call: DenoiserCall) -> DenoiserCall:
    """Keep the conditional rows of a call of the bundled model; the others are guidance, which no explanation looks at."""
    text = call.kwargs[call.state][call.text_rows]
    rows, text_rows = slice(0, call.rows.stop - call.rows.start), slice(0, len(text))
    args = (call.args[0][call.rows], *call.args[1:])
    return replace(call, args=args, kwargs={**call.kwargs, call.state: text}, rows=rows, text_rows=text_rows)


def noised_call(pipe: Any, call: DenoiserCall, frames: np.ndarray[Any, Any], seed: int) -> DenoiserCall:
    """Show a kept denoiser call another clip ``[frame, row, column, rgb]``, with the noise of the call's timestep."""
    with torch.no_grad():
        clean = encode_video(pipe, frames)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    timestep = torch.tensor([int(call.timestep)])
    noisy: Tensor = pipe.scheduler.scale_model_input(pipe.scheduler.add_noise(clean, noise, timestep), timestep[0])
    sample = call.args[0]
    if sample.shape[1:] != noisy.shape[1:]:
        raise ValueError(f"expected latents of shape {tuple(sample.shape[1:])}, got {tuple(noisy.shape[1:])}")
    return replace(call, args=(noisy.to(sample).expand(sample.shape).contiguous(), *call.args[1:]))
