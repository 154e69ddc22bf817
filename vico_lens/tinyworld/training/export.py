"""Write the trained parts as a stock pipeline folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vico_lens.errors import ModelError
from vico_lens.tinyworld.training.recipe import Recipe

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["save"]

_LARGEST = 10 * 10**6  # bytes of weights that a bundled model may have
_HALVED = ("transformer", "vae")


def save(pipe: DiffusionPipeline, folder: Path, recipe: Recipe) -> int:
    """Write the folder in safetensors and return the bytes of its weights.

    Of a model trained with products in bfloat16, the denoiser and the autoencoder are stored in float16, which keeps eight times
    finer steps than training saw; diffusers loads them in float32 all the same. A text encoder stays in float32: transformers
    would load it in half precision, and its first product with the denoiser would fail.

    Raises
    ------
    ModelError
        If the weights are larger than a bundled model may be.
    """
    from safetensors.torch import load_file, save_file

    pipe.save_pretrained(folder, safe_serialization=True)
    if recipe.precision == "bfloat16":
        for component in _HALVED:
            for path in (folder / component).glob("*.safetensors"):
                save_file({name: weight.to(torch.float16) for name, weight in load_file(path).items()}, path, {"format": "pt"})
    (folder / "recipe.json").write_text(json.dumps(recipe.as_dict(), indent=2) + "\n")
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    if size > _LARGEST:
        raise ModelError(f"expected weights of at most {_LARGEST / 1e6:.0f} MB, got {size / 1e6:.1f} MB in {folder}.")
    return size
