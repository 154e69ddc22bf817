"""Kandinsky 5: latents with channels last, three-dimensional self attention, cross attention to Qwen2.5-VL text."""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.language import qwen25_vl
from vico_lens.testing.pipelines.parts import clip
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.tokenizers import PROMPT

_FRAMES, _ROWS, _COLUMNS = 9, 32, 48


@TINY_PIPELINES.register("kandinsky5-t2v")
def text_to_video() -> TinyPipeline:
    """Two visual blocks on a grid of 3 x 2 x 3 tokens and a text block; the template is cropped off the language states."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        Kandinsky5T2VPipeline,
        Kandinsky5Transformer3DModel,
    )

    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=8,
        time_dim=16,
        patch_size=(1, 2, 2),
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(2, 2, 4),
        visual_cond=False,
        attention_type="regular",
    )
    pooled = clip(8, 77)
    pipe = Kandinsky5T2VPipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=pooled["text_encoder"],
        tokenizer_2=pooled["tokenizer"],
        **qwen25_vl(16),
    )
    header = "<|im_start|>system\nthe star on the right<|im_end|>\n<|im_start|>user\n"
    pipe.prompt_template = header + "{}<|im_end|>"
    pipe.prompt_template_encode_start_idx = len(pipe.tokenizer(header).input_ids)
    kwargs: dict[str, Any] = {
        "prompt": PROMPT,
        "negative_prompt": "still",
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "num_frames": _FRAMES,
        "height": _ROWS,
        "width": _COLUMNS,
        "max_sequence_length": 24,
        "output_type": "np",
    }
    notes = (
        "a plain Qwen2 tokenizer in place of the processor, which needs torchvision and does the same for text; "
        "template and crop of the pipeline object are set to what it counts"
    )
    return TinyPipeline(pipe, kwargs, (1, _FRAMES, _ROWS, _COLUMNS, 3), notes=notes)
