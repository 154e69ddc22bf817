"""Latte: a transformer that alternates spatial blocks, which also read T5 text, with temporal ones."""

from __future__ import annotations

from vico_lens.testing.pipelines.parts import image_vae, t5
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 4, 16, 24


@TINY_PIPELINES.register("latte-t2v")
def text_to_video() -> TinyPipeline:
    """Two pairs of blocks on a grid of 4 x 4 x 6 tokens; the pipeline pads text to 120 tokens and trims the padding off again."""
    from diffusers import DDIMScheduler, LattePipeline, LatteTransformer3DModel

    transformer = LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        in_channels=4,
        out_channels=8,  # mean and variance
        patch_size=2,
        sample_size=8,
        video_length=_FRAMES,
        caption_channels=16,
        cross_attention_dim=16,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    pipe = LattePipeline(transformer=transformer, vae=image_vae(), scheduler=scheduler, **t5(16, 120))
    kwargs = {
        "prompt": PROMPT,
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "video_length": _FRAMES,
        "height": _ROWS,
        "width": _COLUMNS,
        "clean_caption": False,
        "output_type": "np",
    }
    return TinyPipeline(pipe, kwargs, (1, _FRAMES, _ROWS, _COLUMNS, 3))
