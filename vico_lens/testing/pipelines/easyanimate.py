"""EasyAnimate: text and video in one softmax, text first, conditioned on a Qwen2-VL language model."""

from __future__ import annotations

from vico_lens.testing.pipelines.language import qwen2_vl
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 9, 32, 48


@TINY_PIPELINES.register("easyanimate-t2v")
def text_to_video() -> TinyPipeline:
    """Two blocks on a grid of 3 x 2 x 3 tokens; the chat template surrounds the prompt and is not cropped."""
    from diffusers import AutoencoderKLMagvit, EasyAnimatePipeline, EasyAnimateTransformer3DModel, FlowMatchEulerDiscreteScheduler

    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=16,
        num_layers=2,
        sample_width=6,
        sample_height=4,
        patch_size=2,
    )
    vae = AutoencoderKLMagvit(
        down_block_types=("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        up_block_types=("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3),
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    pipe = EasyAnimatePipeline(transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(), **qwen2_vl(16))
    kwargs = {
        "prompt": PROMPT,
        "negative_prompt": "still",
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "num_frames": _FRAMES,
        "height": _ROWS,
        "width": _COLUMNS,
        "output_type": "np",
    }
    return TinyPipeline(pipe, kwargs, (1, _FRAMES, _ROWS, _COLUMNS, 3))
