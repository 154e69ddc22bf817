"""Cosmos: three-dimensional self attention, cross attention to T5 text, and a scheduler that preconditions the input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from vico_lens.testing.pipelines.parts import t5
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 9, 32, 48


class _NoGuardrail:
    """A safety checker that lets everything pass, in place of the gated download that the pipeline otherwise builds."""

    def to(self, device: Any) -> _NoGuardrail:
        """Return itself: there is nothing to move."""
        return self

    def check_text_safety(self, prompt: str) -> bool:
        """Say that `prompt` may be used."""
        return True

    def check_video_safety(self, frames: Any) -> Any:
        """Return `frames` as they are."""
        return frames


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Lend the denoiser the one torchvision function it calls, a nearest resize of its padding mask, if there is none."""
    from diffusers.models.transformers import transformer_cosmos
    from torch.nn.functional import interpolate

    if hasattr(transformer_cosmos, "transforms"):
        yield
        return
    nearest = SimpleNamespace(NEAREST="nearest")
    resize = SimpleNamespace(resize=lambda image, size, interpolation: interpolate(image, size=size, mode=interpolation))
    transformer_cosmos.transforms = SimpleNamespace(functional=resize, InterpolationMode=nearest)
    try:
        yield
    finally:
        del transformer_cosmos.transforms


@TINY_PIPELINES.register("cosmos-t2w")
def text_to_world() -> TinyPipeline:
    """Cosmos 1 text-to-world: two blocks on a grid of 3 x 4 x 6 tokens."""
    from diffusers import AutoencoderKLCosmos, CosmosTextToWorldPipeline, CosmosTransformer3DModel, EDMEulerScheduler

    transformer = CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        mlp_ratio=2,
        text_embed_dim=16,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        patch_size=(1, 2, 2),
        rope_scale=(2.0, 1.0, 1.0),
        concat_padding_mask=True,
        extra_pos_embed_type="learnable",
    )
    vae = AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=2,
        patch_size=4,
        patch_type="haar",
        scaling_factor=1.0,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80, sigma_data=0.5, final_sigmas_type="sigma_min")
    parts = {"transformer": transformer, "vae": vae, "scheduler": scheduler, "safety_checker": _NoGuardrail(), **t5(16)}
    kwargs = {
        "prompt": PROMPT,
        "negative_prompt": "still",
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "num_frames": _FRAMES,
        "height": _ROWS,
        "width": _COLUMNS,
        "max_sequence_length": 24,
        "output_type": "np",
    }
    shape = (1, _FRAMES, _ROWS, _COLUMNS, 3)
    notes = "the safety checker, a gated download, lets everything pass; torchvision's resize is lent where it is missing"
    return TinyPipeline(CosmosTextToWorldPipeline(**parts), kwargs, shape, notes=notes, context=_without_torchvision)
