"""Wan 2.1 and 2.2: three-dimensional self attention, then cross attention to UMT5 text, and for images to CLIP columns first."""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.parts import clip_of_images, umt5
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

__all__ = ["CALL", "SHAPE", "transformer_config", "wan_vae"]

_FRAMES, _ROWS, _COLUMNS = 9, 32, 48
SHAPE = (1, _FRAMES, _ROWS, _COLUMNS, 3)
CALL: dict[str, Any] = {
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


def wan_vae(channels: int = 16, **changes: Any) -> Any:
    """Causal video autoencoder: 9 x 32 x 48 pixels become 3 x 4 x 6 latents of 16 channels."""
    from diffusers import AutoencoderKLWan

    config = {
        "base_dim": 3,
        "z_dim": channels,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
    }
    return AutoencoderKLWan(**(config | changes))


def transformer_config(**changes: Any) -> dict[str, Any]:
    """Two blocks of two heads on a grid of 3 x 2 x 3 tokens."""
    config = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 16,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 32,
    }
    return config | changes


def _transformer(**changes: Any) -> Any:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(**transformer_config(**changes))


def _unipc() -> Any:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


@TINY_PIPELINES.register("wan21-t2v")
def text_to_video() -> TinyPipeline:
    """Wan 2.1 as it ships: UniPC on flow, two passes for guidance."""
    from diffusers import WanPipeline

    pipe = WanPipeline(transformer=_transformer(), vae=wan_vae(), scheduler=_unipc(), **umt5(16))
    return TinyPipeline(pipe, dict(CALL), SHAPE)


@TINY_PIPELINES.register("wan22-t2v")
def two_experts() -> TinyPipeline:
    """Wan 2.2: one expert takes the noisy steps, the other the rest; both run within three steps."""
    from diffusers import WanPipeline

    experts = {"transformer": _transformer(), "transformer_2": _transformer()}
    pipe = WanPipeline(**experts, vae=wan_vae(), scheduler=_unipc(), boundary_ratio=0.875, **umt5(16))
    return TinyPipeline(pipe, dict(CALL), SHAPE)


@TINY_PIPELINES.register("wan22-5b-t2v")
def small_experts() -> TinyPipeline:
    """Wan 2.2 5B: a patched autoencoder with 48 channels, and one timestep a token."""
    from diffusers import WanPipeline

    vae = wan_vae(
        48,
        in_channels=12,
        out_channels=12,
        is_residual=True,
        patch_size=2,
        latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48,
        scale_factor_spatial=16,
        scale_factor_temporal=4,
    )
    transformer = _transformer(in_channels=48, out_channels=48)
    pipe = WanPipeline(transformer=transformer, vae=vae, scheduler=_unipc(), expand_timesteps=True, **umt5(16))
    rows, columns = 2 * _ROWS, 2 * _COLUMNS
    return TinyPipeline(pipe, CALL | {"height": rows, "width": columns}, (1, _FRAMES, rows, columns, 3))


@TINY_PIPELINES.register("wan21-i2v")
def image_to_video() -> TinyPipeline:
    """Wan 2.1 image to video: each cross site is called twice, over image columns and over text."""
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=8,
        projection_dim=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    pipe = WanImageToVideoPipeline(
        transformer=_transformer(in_channels=36, image_dim=8, added_kv_proj_dim=24),
        vae=wan_vae(),
        scheduler=_unipc(),
        image_encoder=CLIPVisionModelWithProjection(vision),
        image_processor=CLIPImageProcessor(crop_size={"height": 16, "width": 16}, size={"shortest_edge": 16}),
        **umt5(16),
    )
    # the model takes the last 512 columns for text, whatever the text's length
    return TinyPipeline(pipe, CALL | {"image": clip_of_images(1, _ROWS, _COLUMNS)[0], "max_sequence_length": 512}, SHAPE)


@TINY_PIPELINES.register("wan21-v2v")
def video_to_video() -> TinyPipeline:
    """Wan 2.1 started from a noised clip."""
    from diffusers import WanVideoToVideoPipeline

    pipe = WanVideoToVideoPipeline(transformer=_transformer(), vae=wan_vae(), scheduler=_unipc(), **umt5(16))
    kwargs = {name: value for name, value in CALL.items() if name != "num_frames"}
    return TinyPipeline(pipe, kwargs | {"video": clip_of_images(_FRAMES, _ROWS, _COLUMNS), "strength": 0.8}, SHAPE)


@TINY_PIPELINES.register("wan21-vace")
def controlled() -> TinyPipeline:
    """VACE: a second stack of blocks reads a control clip and a mask, with cross attention of its own."""
    from diffusers import WanVACEPipeline, WanVACETransformer3DModel
    from PIL import Image

    transformer = WanVACETransformer3DModel(**transformer_config(num_layers=3), vace_layers=[0, 2], vace_in_channels=96)
    pipe = WanVACEPipeline(transformer=transformer, vae=wan_vae(), scheduler=_unipc(), **umt5(16))
    mask = [Image.new("L", (_COLUMNS, _ROWS), 255)] * _FRAMES
    return TinyPipeline(pipe, CALL | {"video": clip_of_images(_FRAMES, _ROWS, _COLUMNS), "mask": mask}, SHAPE)
