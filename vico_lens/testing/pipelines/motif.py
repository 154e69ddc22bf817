"""Motif-Video: dual and single streams joined in one softmax, text last, from a T5Gemma 2 encoder; a guider guides."""

from __future__ import annotations

from vico_lens.testing.pipelines.language import t5_gemma2
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.wan import CALL, SHAPE, wan_vae


@TINY_PIPELINES.register("motif-t2v")
def text_to_video() -> TinyPipeline:
    """A dual and a single block on a grid of 3 x 2 x 3 tokens; the guider runs one pass a branch."""
    from diffusers import (
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        MotifVideoPipeline,
        MotifVideoTransformer3DModel,
    )

    transformer = MotifVideoTransformer3DModel(
        in_channels=33,  # noise, condition and its mask
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_single_layers=1,
        mlp_ratio=2.0,
        patch_size=2,
        patch_size_t=1,
        qk_norm="rms_norm",
        text_embed_dim=16,
        rope_axes_dim=(4, 4, 4),
    )
    pipe = MotifVideoPipeline(
        transformer=transformer,
        vae=wan_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        guider=ClassifierFreeGuidance(guidance_scale=5.0),
        **t5_gemma2(16),
    )
    return TinyPipeline(pipe, {name: value for name, value in CALL.items() if name != "guidance_scale"}, SHAPE)
