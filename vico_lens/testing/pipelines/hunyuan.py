"""HunyuanVideo and HunyuanVideo 1.5: dual streams joined in one softmax, text last, from language models through a template."""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.language import llama, qwen25_vl_text
from vico_lens.testing.pipelines.parts import clip, t5
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES = 9
_INSTRUCTION = "the star on the right"


def _call(rows: int, columns: int) -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        "num_inference_steps": 3,
        "num_frames": _FRAMES,
        "height": rows,
        "width": columns,
        "output_type": "np",
    }


@TINY_PIPELINES.register("hunyuan-t2v")
def text_to_video() -> TinyPipeline:
    """A dual and a single block on a grid of 3 x 2 x 3 tokens; the template is cropped off the Llama states, CLIP is pooled."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )

    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )
    language, pooled = llama(16), clip(8, 77)
    header = f"<|start_header_id|>system<|end_header_id|>\n\n{_INSTRUCTION}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    pipe = HunyuanVideoPipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=pooled["text_encoder"],
        tokenizer_2=pooled["tokenizer"],
        **language,
    )
    template = {"template": header + "{}<|eot_id|>", "crop_start": len(language["tokenizer"](header).input_ids)}
    kwargs = _call(32, 48) | {"guidance_scale": 5.0, "max_sequence_length": 24, "prompt_template": template}
    notes = "a short prompt template of its own, passed to the call: the default crop counts tokens of the real tokenizer"
    return TinyPipeline(pipe, kwargs, (1, _FRAMES, 32, 48, 3), notes=notes)


@TINY_PIPELINES.register("hunyuan15-t2v")
def guided_text_to_video() -> TinyPipeline:
    """A grid of 5 x 4 x 6 tokens; text comes reordered: glyphs, prompt, then all padding and five empty image columns."""
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )
    from transformers import ByT5Tokenizer

    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=16,
        text_embed_2_dim=16,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    )
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    pipe = HunyuanVideo15Pipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        guider=ClassifierFreeGuidance(guidance_scale=5.0),
        text_encoder_2=t5(16, vocabulary=384)["text_encoder"],
        tokenizer_2=ByT5Tokenizer(),
        **qwen25_vl_text(16),
    )
    pipe.system_message = _INSTRUCTION
    chat = [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": "{}"}]
    header = pipe.tokenizer.apply_chat_template(chat, tokenize=False).split("{}")[0]
    pipe.prompt_template_encode_start_idx = len(pipe.tokenizer(header).input_ids)
    pipe.tokenizer_max_length, pipe.tokenizer_2_max_length, pipe.vision_num_semantic_tokens = 32, 12, 5
    kwargs = _call(16, 24) | {"prompt": f'{PROMPT} on "up"', "negative_prompt": "still"}
    notes = "instruction, crop and padded lengths of the pipeline object are set to what the tiny tokenizer counts"
    return TinyPipeline(pipe, kwargs, (1, _FRAMES, 16, 24, 3), prompt=kwargs["prompt"], notes=notes)
