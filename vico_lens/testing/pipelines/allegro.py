"""Allegro: three-dimensional self attention and cross attention to T5 text with an additive mask."""

from __future__ import annotations

from vico_lens.testing.pipelines.parts import t5
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 8, 32, 48


@TINY_PIPELINES.register("allegro-t2v")
def text_to_video() -> TinyPipeline:
    """Two blocks on a grid of 2 x 2 x 3 tokens; the autoencoder decodes in tiles, as the real one must."""
    from diffusers import AllegroPipeline, AllegroTransformer3DModel, AutoencoderKLAllegro, DDIMScheduler

    transformer = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=24,
        sample_width=6,
        sample_height=4,
        sample_frames=2,
        caption_channels=16,
    )
    vae = AutoencoderKLAllegro(
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    vae.enable_tiling()
    vae.kernel, vae.stride = (
        (_FRAMES, _ROWS, _COLUMNS),
        (_FRAMES // 2, _ROWS // 2, _COLUMNS // 2),
    )  # one tile; the default is larger than the clip
    pipe = AllegroPipeline(transformer=transformer, vae=vae, scheduler=DDIMScheduler(clip_sample=False), **t5(16))
    kwargs = {
        "prompt": PROMPT,
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "num_frames": _FRAMES,
        "height": _ROWS,
        "width": _COLUMNS,
        "max_sequence_length": 24,
        "clean_caption": False,
        "output_type": "np",
    }
    return TinyPipeline(pipe, kwargs, (1, _FRAMES, _ROWS, _COLUMNS, 3))
