"""Mochi: text and video in one softmax, text last, one call a batch row over its valid text only."""

from __future__ import annotations

from vico_lens.testing.pipelines.parts import quiet, t5
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 13, 32, 48


@TINY_PIPELINES.register("mochi-t2v")
def text_to_video() -> TinyPipeline:
    """Two blocks on a grid of 3 x 2 x 3 tokens; the last block leaves its text stream alone, as in the real model."""
    import torch
    from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel

    transformer = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        qk_norm="rms_norm",
        text_embed_dim=16,
        time_embed_dim=4,
        activation_fn="swiglu",
        max_sequence_length=24,
    )
    torch.nn.init.normal_(transformer.pos_frequencies)  # allocated, not initialised, by the class
    vae = AutoencoderKLMochi(
        latent_channels=12,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    pipe = MochiPipeline(transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(), **t5(16))
    kwargs = {
        "prompt": PROMPT,
        "num_inference_steps": 3,
        "guidance_scale": 4.5,
        "num_frames": _FRAMES,
        "height": _ROWS,
        "width": _COLUMNS,
        "max_sequence_length": 24,
        "output_type": "np",
    }
    shape = (1, _FRAMES, _ROWS, _COLUMNS, 3)
    return TinyPipeline(pipe, kwargs, shape, context=lambda: quiet("In CPU autocast, but the target dtype is not supported"))
