"""TextToVideoSD, the class of ModelScope and Zeroscope: a three-dimensional UNet, temporal attention after each spatial one."""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.parts import clip, clip_of_images, image_vae
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 4, 16, 24
_SHAPE = (1, _FRAMES, _ROWS, _COLUMNS, 3)
_CALL: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 3, "guidance_scale": 5.0, "output_type": "np"}


def _components() -> dict[str, Any]:
    from diffusers import DDIMScheduler, UNet3DConditionModel

    unet = UNet3DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=2,
    )
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    return {"unet": unet, "scheduler": scheduler, "vae": image_vae(), **clip(16)}


@TINY_PIPELINES.register("zeroscope-t2v")
def text_to_video() -> TinyPipeline:
    """Grids of 4 x 8 x 12 and 4 x 4 x 6 tokens; deprecated in diffusers, yet the pipeline that Vico was published on."""
    from diffusers import TextToVideoSDPipeline

    kwargs = _CALL | {"num_frames": _FRAMES, "height": _ROWS, "width": _COLUMNS}
    return TinyPipeline(TextToVideoSDPipeline(**_components()), kwargs, _SHAPE)


@TINY_PIPELINES.register("zeroscope-v2v")
def video_to_video() -> TinyPipeline:
    """The same model, started from a noised clip."""
    from diffusers import VideoToVideoSDPipeline

    kwargs = _CALL | {"video": clip_of_images(_FRAMES, _ROWS, _COLUMNS), "strength": 0.8}
    return TinyPipeline(VideoToVideoSDPipeline(**_components()), kwargs, _SHAPE)
