"""LTX-2: video and audio streams side by side; only the video's own attention to itself and to text is about pictures."""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.language import gemma3
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 5, 32, 64
_ROTARY = {"rope_double_precision": False, "rope_type": "split"}


def _audio() -> dict[str, Any]:
    from diffusers import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=4,
        output_channels=2,
        ch_mult=(1,),
        num_res_blocks=1,
        attn_resolutions=None,
        in_channels=2,
        resolution=32,
        latent_channels=2,
        mid_block_add_attention=False,
        mel_bins=8,
    )
    vocoder = LTX2Vocoder(
        in_channels=audio_vae.config.output_channels * audio_vae.config.mel_bins,
        hidden_channels=32,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16000,
    )
    return {"audio_vae": audio_vae, "vocoder": vocoder}


def _connectors(width: int, layers: int) -> Any:
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

    sizes: dict[str, Any] = {}
    for stream in ("video", "audio"):
        sizes |= {f"{stream}_connector_num_attention_heads": 2, f"{stream}_connector_attention_head_dim": width // 2}
        sizes |= {f"{stream}_connector_num_layers": 1, f"{stream}_connector_num_learnable_registers": 8}
    return LTX2TextConnectors(
        caption_channels=width,
        text_proj_in_factor=layers + 1,
        connector_rope_base_seq_len=32,
        rope_theta=10000.0,
        causal_temporal_positioning=False,
        **sizes,
        **_ROTARY,
    )


@TINY_PIPELINES.register("ltx2-t2v")
def text_to_video() -> TinyPipeline:
    """Two blocks of video and audio; connectors move the left-padded text to the front and put registers behind it."""
    from diffusers import AutoencoderKLLTX2Video, FlowMatchEulerDiscreteScheduler, LTX2Pipeline, LTX2VideoTransformer3DModel

    language = gemma3(16)
    transformer = LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=16,
        **_ROTARY,
    )
    vae = AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, True),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False,) * 3,
        downsample_type=("spatial", "spatiotemporal"),
        upsample_residual=(False,) * 2,
        upsample_factor=(1,) * 2,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    pipe = LTX2Pipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        connectors=_connectors(16, layers=2),
        **_audio(),
        **language,
    )
    kwargs = {
        "prompt": PROMPT,
        "negative_prompt": "still",
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "stg_scale": 0.0,
        "modality_scale": 1.0,
        "audio_stg_scale": 0.0,
        "audio_modality_scale": 1.0,
        "spatio_temporal_guidance_blocks": None,
        "num_frames": _FRAMES,
        "height": _ROWS,
        "width": _COLUMNS,
        "max_sequence_length": 24,
        "output_type": "np",
    }
    return TinyPipeline(pipe, kwargs, (1, _FRAMES, _ROWS, _COLUMNS, 3))
