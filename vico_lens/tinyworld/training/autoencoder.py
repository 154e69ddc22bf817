"""The pipeline's autoencoder: a stock `AutoencoderKL` that agrees with the fixed patch code both ways.

The decoder learns to invert the code, from slightly noisy codes so that it also cleans what the denoiser leaves; the encoder
learns the code itself, so that editing a real clip (``vae.encode``) starts from latents that the denoiser knows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from vico_lens.tinyworld.codec import CHANNELS
from vico_lens.tinyworld.vocabulary import SIDE

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

__all__ = ["build_autoencoder", "train_autoencoder"]

_STEPS, _BATCH, _RATE = 4000, 32, 2e-3
_CODE_NOISE = 0.12  # standard deviation added to codes, of the order of what the sampler leaves
_LOG_VARIANCE = -12.0  # the encoder is as good as deterministic


def build_autoencoder() -> AutoencoderKL:
    """Return the untrained autoencoder: 32 x 32 frames, 8 x 8 cells of 16 channels, scaling factor one."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=CHANNELS,
        sample_size=SIDE,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def train_autoencoder(latents: Tensor, frames: Tensor, *, seed: int, log: Path | None = None) -> AutoencoderKL:
    """Train encoder and decoder against the code.

    Parameters
    ----------
    latents : Tensor
        Codes ``[frame, channel, y, x]`` of `frames`, the encoder's target and the decoder's input.
    frames : Tensor
        uint8 ``[frame, rgb, row, column]``.
    seed : int
        Start weights and order.
    log : Path, optional
        Takes one JSON line every hundred steps.
    """
    torch.manual_seed(seed)
    model = build_autoencoder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=_STEPS, pct_start=0.05)
    generator = torch.Generator().manual_seed(seed)
    for step in tqdm(range(1, _STEPS + 1), desc="autoencoder", unit="step", mininterval=10):
        index = torch.randint(len(frames), (_BATCH,), generator=generator)
        image = frames[index].float() / 127.5 - 1
        target = latents[index].float()
        noisy = target + _CODE_NOISE * torch.rand(_BATCH, 1, 1, 1, generator=generator) * torch.randn(
            target.shape, generator=generator
        )
        moments = model.encode(image).latent_dist
        decoded = model.decode(noisy, return_dict=False)[0]
        reconstruction = (decoded - image).abs().mean() + 4 * (decoded - image).square().mean()
        agreement = (moments.mean - target).square().mean() + 1e-3 * (moments.logvar - _LOG_VARIANCE).square().mean()
        optimiser.zero_grad()
        (reconstruction + agreement).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if log is not None and step % 100 == 0:
            error = (decoded - image).square().mean() / 4  # in units of the 0..1 range
            entry = {
                "step": step,
                "psnr": round(float(-10 * error.log10()), 2),
                "code_error": round(float((moments.mean - target).std()), 4),
            }
            with log.open("a") as file:
                file.write(json.dumps(entry) + "\n")
    return model.eval().requires_grad_(False)
