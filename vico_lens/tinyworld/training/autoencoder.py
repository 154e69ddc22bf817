"""A pipeline's autoencoder: a stock class, trained to agree with the fixed patch code both ways.

The decoder learns to invert the code, from slightly noisy codes so that it also cleans what the denoiser leaves; the encoder
learns the code itself, so that editing a real clip (``vae.encode``) starts from latents that the denoiser knows.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vico_lens.tinyworld.codec import CHANNELS, PATCH, PatchCode
from vico_lens.tinyworld.pipeline import MODEL_FOLDER
from vico_lens.tinyworld.vocabulary import FRAMES, SIDE

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderKLCogVideoX, AutoencoderKLCosmos

__all__ = ["build_causal_autoencoder", "build_cosmos_autoencoder", "build_frame_autoencoder", "train_autoencoder"]

_BATCH = 32  # frames an update
_FRESH = (4000, 2e-3)  # updates and largest learning rate of an autoencoder that starts from nothing
_LIFTED = (300, 5e-4)  # of one that starts from another
_LOG_EVERY = 100
_CODE_NOISE = 0.12  # standard deviation added to codes, of the order of what the sampler leaves
_LOG_VARIANCE = -12.0  # the encoder is as good as deterministic


def build_frame_autoencoder() -> AutoencoderKL:
    """Return an untrained autoencoder of single frames: 32 x 32 pixels, 8 x 8 cells of 16 channels, scaling factor one."""
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


def build_causal_autoencoder() -> AutoencoderKLCogVideoX:
    """Return a causal video autoencoder that keeps every frame: eight in, eight codes of 8 x 8 cells out.

    It begins as the bundled UNet's autoencoder of single frames, which has the same layers but for time. What remains to learn
    is that its norms are taken over several frames.
    """
    from diffusers import AutoencoderKL, AutoencoderKLCogVideoX

    model = AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=CHANNELS,
        temporal_compression_ratio=1,
        sample_height=SIDE,
        sample_width=SIDE,
        scaling_factor=1.0,
    )
    frames = AutoencoderKL.from_pretrained(MODEL_FOLDER, subfolder="vae", local_files_only=True)
    model.load_state_dict(_with_time(_folded(frames.state_dict()), model.state_dict()))
    return model


def _folded(frames: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of an `AutoencoderKL` with its two convolutions of one cell, at the code, put into their neighbours.

    The bias of the one before the decoder is lost at the border, where the decoder's first convolution sees zeros.
    """
    weights = {name: weight.float() for name, weight in frames.items()}
    after, before = weights["quant_conv.weight"][:, :, 0, 0], weights["post_quant_conv.weight"][:, :, 0, 0]
    encoder, decoder = weights["encoder.conv_out.weight"], weights["decoder.conv_in.weight"]
    return weights | {
        "encoder.conv_out.weight": torch.einsum("pq,qcyx->pcyx", after, encoder),
        "encoder.conv_out.bias": after @ weights["encoder.conv_out.bias"] + weights["quant_conv.bias"],
        "decoder.conv_in.weight": torch.einsum("pqyx,qc->pcyx", decoder, before),
        "decoder.conv_in.bias": weights["decoder.conv_in.bias"] + decoder.sum((2, 3)) @ weights["post_quant_conv.bias"],
    }


def _with_time(frames: dict[str, Tensor], causal: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights for `causal` that do to every frame what those of an `AutoencoderKL` do to single ones.

    Taps that look at earlier frames are zero, and so is what the latent adds to the norms of the decoder.
    """
    lifted = {}
    for name, like in causal.items():
        if ".conv_y." in name or ".conv_b." in name:
            lifted[name] = torch.full_like(like, float(name.endswith("conv_y.conv.bias")))
            continue
        source = name.replace(".norm_out.norm_layer.", ".conv_norm_out.").replace(".norm_out.", ".conv_norm_out.")
        source = source.replace(".norm_layer.", ".")
        if "samplers." not in source:
            source = source.replace(".conv.", ".")
        weight = frames[source]
        if like.ndim == 5:
            lifted[name] = torch.zeros_like(like)
            lifted[name][:, :, -1] = weight
        else:
            lifted[name] = weight
    return lifted


def build_cosmos_autoencoder() -> AutoencoderKLCosmos:
    """Return an untrained causal autoencoder of Cosmos without its wavelets, which would merge frames.

    Its convolutions begin without memory: the taps that look at earlier frames are zero.
    """
    from diffusers import AutoencoderKLCosmos

    model = AutoencoderKLCosmos(
        in_channels=3,
        out_channels=3,
        latent_channels=CHANNELS,
        encoder_block_out_channels=(16, 32, 32, 32),
        decode_block_out_channels=(16, 32, 32, 32),
        attention_resolutions=(),
        resolution=SIDE,
        num_layers=1,
        patch_size=1,
        patch_type="rearrange",
        scaling_factor=1.0,
        spatial_compression_ratio=PATCH,
        temporal_compression_ratio=1,
        latents_mean=None,
        latents_std=None,
    )
    _forget_the_past(model)
    return model


@torch.no_grad()
def _forget_the_past(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.weight[:, :, :-1] = 0


def train_autoencoder(
    build: Callable[[], Any],
    code: PatchCode,
    frames: Tensor,
    folder: Path,
    *,
    seed: int,
    steps: int | None = None,
    save_every: float = 120.0,
    interrupted: Callable[[], bool] = lambda: False,
) -> Any:
    """Train encoder and decoder against the code, or go on from ``folder/autoencoder.pt``; return the autoencoder.

    Parameters
    ----------
    build : callable
        `build_frame_autoencoder`, which is given single frames, or `build_causal_autoencoder`, which is given whole clips.
    code : PatchCode
        The encoder's target and the decoder's input.
    frames : Tensor
        uint8 ``[frame, rgb, row, column]``, the eight frames of a clip in a row.
    folder : Path
        Takes ``autoencoder.pt`` and ``autoencoder.jsonl``, one line every hundred updates.
    seed : int
        Start weights and order.
    steps : int, optional
        Updates; as many as the autoencoder's start asks for unless given.
    save_every : float
        Seconds between checkpoints.
    interrupted : callable
        Asked after every update whether to save and stop.
    """
    torch.manual_seed(seed)
    model = build()
    planned, rate = _LIFTED if build is build_causal_autoencoder else _FRESH
    steps = steps or planned
    span = 1 if build is build_frame_autoencoder else FRAMES
    clips = frames.unflatten(0, (-1, span))
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.05)
    generator = torch.Generator().manual_seed(seed)
    parts = {"model": model, "optimiser": optimiser, "schedule": schedule}
    checkpoint, done = folder / "autoencoder.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        generator.set_state(state["generator"])
        done = state["step"]
    last_save = time.monotonic()
    for step in tqdm(range(done + 1, steps + 1), desc="autoencoder", unit="step", mininterval=10, initial=done, total=steps):
        index = torch.randint(len(clips), (_BATCH // span,), generator=generator)
        pixels = clips[index].float() / 255
        losses = _losses(model, pixels, code.encode(pixels), generator)
        optimiser.zero_grad()
        (losses["reconstruction"] + losses["agreement"]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % _LOG_EVERY == 0:
            error = losses["squared"] / 4  # in units of the 0..1 range
            psnr, code_error = -10 * float(error.log10()), float(losses["code_error"])
            with (folder / "autoencoder.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "psnr": round(psnr, 2), "code_error": round(code_error, 4)}) + "\n")
        stop = step == steps or interrupted()
        if stop or time.monotonic() - last_save > save_every:
            saved = {name: part.state_dict() for name, part in parts.items()}
            torch.save(saved | {"generator": generator.get_state(), "step": step}, checkpoint.with_suffix(".partial"))
            os.replace(checkpoint.with_suffix(".partial"), checkpoint)
            last_save = time.monotonic()
        if stop:
            break
    return model.eval().requires_grad_(False)


def _losses(model: Any, pixels: Tensor, codes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Losses on frames ``[clip, frame, rgb, row, column]`` in 0..1 and their codes ``[clip, frame, channel, y, x]``."""
    size = (len(pixels), *[1] * (codes.ndim - 1))
    noisy = codes + _CODE_NOISE * torch.rand(size, generator=generator) * torch.randn(codes.shape, generator=generator)
    image, target, noisy = (_as_input(tensor) for tensor in (2 * pixels - 1, codes, noisy))
    moments = model.encode(image).latent_dist
    decoded = model.decode(noisy, return_dict=False)[0]
    squared = (decoded - image).square().mean()
    return {
        "squared": squared.detach(),
        "reconstruction": (decoded - image).abs().mean() + 4 * squared,
        "agreement": (moments.mean - target).square().mean() + 1e-3 * (moments.logvar - _LOG_VARIANCE).square().mean(),
        "code_error": (moments.mean - target).detach().std(),
    }


def _as_input(tensor: Tensor) -> Tensor:
    """Bring ``[clip, frame, channel, ...]`` to what stock classes take: frames alone without that axis, clips with it third."""
    return tensor[:, 0] if tensor.shape[1] == 1 else tensor.transpose(1, 2)
