"""CogVideoX: text and video in one softmax, text first; sinusoidal positions in the 2b model, rotary ones in the 5b.

ConsisID is CogVideoX image-to-video with a face beside the text.
"""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.parts import clip_of_images, t5
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 9, 32, 48
_SHAPE = (1, _FRAMES, _ROWS, _COLUMNS, 3)
_CALL: dict[str, Any] = {
    "prompt": PROMPT,
    "num_inference_steps": 3,
    "guidance_scale": 5.0,
    "height": _ROWS,
    "width": _COLUMNS,
    "max_sequence_length": 24,
    "output_type": "np",
}


_ROTARY_IMAGE: dict[str, Any] = {
    "in_channels": 8,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
}


def _components(transformer: str = "CogVideoXTransformer3DModel", **changes: Any) -> dict[str, Any]:
    import diffusers
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler

    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    config = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 4,
        "text_embed_dim": 16,
        "num_layers": 2,
        "sample_width": 6,
        "sample_height": 4,
        "sample_frames": _FRAMES,
        "max_text_seq_length": 24,
    }
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    denoiser = getattr(diffusers, transformer)(**(config | changes))
    return {"transformer": denoiser, "vae": vae, "scheduler": scheduler, **t5(16)}


@TINY_PIPELINES.register("cogvideox-t2v")
def text_to_video() -> TinyPipeline:
    """The 2b layout: 24 text tokens, then a grid of 3 x 2 x 3."""
    from diffusers import CogVideoXPipeline

    return TinyPipeline(CogVideoXPipeline(**_components()), _CALL | {"num_frames": _FRAMES}, _SHAPE)


@TINY_PIPELINES.register("cogvideox-i2v")
def image_to_video() -> TinyPipeline:
    """The 5b image-to-video layout: rotary positions, image latents beside the noise in the channels."""
    from diffusers import CogVideoXImageToVideoPipeline

    parts = _components(**_ROTARY_IMAGE)
    kwargs = _CALL | {"num_frames": _FRAMES, "image": clip_of_images(1, _ROWS, _COLUMNS)[0]}
    return TinyPipeline(CogVideoXImageToVideoPipeline(**parts), kwargs, _SHAPE)


@TINY_PIPELINES.register("cogvideox-v2v")
def video_to_video() -> TinyPipeline:
    """The 5b layout, started from a noised clip."""
    from diffusers import CogVideoXVideoToVideoPipeline

    parts = _components(use_rotary_positional_embeddings=True)
    kwargs = _CALL | {"video": clip_of_images(_FRAMES, _ROWS, _COLUMNS), "strength": 0.8}
    return TinyPipeline(CogVideoXVideoToVideoPipeline(**parts), kwargs, _SHAPE)


@TINY_PIPELINES.register("consisid-i2v")
def identity_preserving() -> TinyPipeline:
    """ConsisID: an extractor turns face features into columns that the video reads through plain ``torch.softmax`` attention."""
    import torch
    from diffusers.pipelines.consisid.pipeline_consisid import ConsisIDPipeline  # the top-level name asks for OpenCV first

    face: dict[str, Any] = {"LFE_id_dim": 4, "LFE_vit_dim": 6, "LFE_depth": 2, "LFE_dim_head": 4, "LFE_num_heads": 2}
    face |= {"LFE_num_id_token": 2, "LFE_num_querie": 3, "LFE_output_dim": 21, "LFE_ff_mult": 1, "LFE_num_scale": 1}
    cross = {"is_train_face": True, "cross_attn_interval": 1, "cross_attn_dim_head": 4, "cross_attn_num_heads": 2}
    parts = _components("ConsisIDTransformer3DModel", **_ROTARY_IMAGE, **face, **cross)
    inputs = {
        "image": clip_of_images(1, _ROWS, _COLUMNS)[0],
        "id_vit_hidden": [torch.randn(1, 5, 6)],
        "id_cond": torch.randn(1, 4),
    }
    notes = "face features are random tensors in place of the detectors and encoders that ConsisID downloads"
    return TinyPipeline(ConsisIDPipeline(**parts), _CALL | {"num_frames": _FRAMES} | inputs, _SHAPE, notes=notes)
