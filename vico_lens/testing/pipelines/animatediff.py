"""AnimateDiff: a UNet whose motion modules attend across frames, conditioned on CLIP text."""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.parts import clip, clip_of_images, image_vae
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 4, 16, 24


def _components() -> dict[str, Any]:
    from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=2,
    )
    adapter = MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2
    )
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False)
    return {"unet": unet, "motion_adapter": adapter, "scheduler": scheduler, "vae": image_vae(), **clip(16)}


@TINY_PIPELINES.register("animatediff-t2v")
def text_to_video() -> TinyPipeline:
    """Two UNet levels, so that sites come on grids of 4 x 8 x 12 and 4 x 4 x 6 tokens."""
    from diffusers import AnimateDiffPipeline

    pipe = AnimateDiffPipeline(**_components())
    kwargs = _call() | {"num_frames": _FRAMES, "height": _ROWS, "width": _COLUMNS}
    return TinyPipeline(pipe, kwargs, (1, _FRAMES, _ROWS, _COLUMNS, 3))


@TINY_PIPELINES.register("animatediff-v2v")
def video_to_video() -> TinyPipeline:
    """The same model, started from a noised clip."""
    from diffusers import AnimateDiffVideoToVideoPipeline

    pipe = AnimateDiffVideoToVideoPipeline(**_components())
    kwargs = _call() | {"video": clip_of_images(_FRAMES, _ROWS, _COLUMNS), "height": _ROWS, "width": _COLUMNS, "strength": 0.8}
    return TinyPipeline(pipe, kwargs, (1, _FRAMES, _ROWS, _COLUMNS, 3))


def _call() -> dict[str, Any]:
    return {"prompt": PROMPT, "num_inference_steps": 3, "guidance_scale": 5.0, "output_type": "np"}
