"""LTX Video: latents packed into one sequence, three-dimensional self attention, masked cross attention to T5 text."""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.parts import clip_of_images, t5
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 9, 32, 64
_SHAPE = (1, _FRAMES, _ROWS, _COLUMNS, 3)
_CALL: dict[str, Any] = {
    "prompt": PROMPT,
    "negative_prompt": "still",
    "num_inference_steps": 3,
    "guidance_scale": 3.0,
    "num_frames": _FRAMES,
    "height": _ROWS,
    "width": _COLUMNS,
    "max_sequence_length": 24,
    "output_type": "np",
}


def _components() -> dict[str, Any]:
    from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel

    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=16,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return {"transformer": transformer, "vae": vae, "scheduler": FlowMatchEulerDiscreteScheduler(), **t5(16)}


@TINY_PIPELINES.register("ltx-t2v")
def text_to_video() -> TinyPipeline:
    """A grid of 3 x 8 x 16 tokens, known only from the transformer's arguments."""
    from diffusers import LTXPipeline

    return TinyPipeline(LTXPipeline(**_components()), dict(_CALL), _SHAPE)


@TINY_PIPELINES.register("ltx-i2v")
def image_to_video() -> TinyPipeline:
    """The first latent frame is the image's and has a timestep of its own."""
    from diffusers import LTXImageToVideoPipeline

    kwargs = _CALL | {"image": clip_of_images(1, _ROWS, _COLUMNS)[0]}
    return TinyPipeline(LTXImageToVideoPipeline(**_components()), kwargs, _SHAPE)
