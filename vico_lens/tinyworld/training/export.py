"""Put the trained parts together as a stock pipeline folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vico_lens.tinyworld.training.loop import Networks
from vico_lens.tinyworld.training.recipe import Recipe

if TYPE_CHECKING:
    from diffusers import AnimateDiffPipeline, AutoencoderKL
    from transformers import CLIPTokenizer

__all__ = ["assemble", "save"]

_LARGEST = 10 * 2**20  # bytes of weights that the package may carry


def assemble(networks: Networks, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer, recipe: Recipe) -> AnimateDiffPipeline:
    """Return a stock `AnimateDiffPipeline` around the networks, with a second-order solver on the noise levels of training."""
    from diffusers import AnimateDiffPipeline, DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=recipe.shift, solver_order=2, lower_order_final=True
    )
    pipe = AnimateDiffPipeline(
        vae=autoencoder,
        text_encoder=networks.text_encoder.eval(),
        tokenizer=tokenizer,
        unet=networks.denoiser.eval(),
        motion_adapter=None,
        scheduler=scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save(pipe: AnimateDiffPipeline, folder: Path) -> int:
    """Write the folder in float32 safetensors and return the bytes of its weights.

    float32 on purpose: a half-precision folder loads its text encoder in half and its denoiser in single precision, and crashes.
    """
    pipe.save_pretrained(folder, safe_serialization=True)
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    if size > _LARGEST:
        raise ValueError(f"the weights take {size / 2**20:.1f} MiB, more than the {_LARGEST / 2**20:.0f} MiB a package may carry")
    return size
