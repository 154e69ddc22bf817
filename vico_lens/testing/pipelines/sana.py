"""SANA-Video: linear self attention, which has no softmax map, and cross attention to Gemma 2 text."""

from __future__ import annotations

from vico_lens.testing.pipelines.language import gemma2
from vico_lens.testing.pipelines.parts import quiet
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline
from vico_lens.testing.pipelines.wan import CALL, wan_vae


@TINY_PIPELINES.register("sana-t2v")
def text_to_video() -> TinyPipeline:
    """Two blocks on a grid of 3 x 2 x 4 tokens; an instruction goes before the prompt, and all but its first token is cropped."""
    from diffusers import DPMSolverMultistepScheduler, SanaVideoPipeline, SanaVideoTransformer3DModel

    transformer = SanaVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=16,
        mlp_ratio=2.0,
        sample_size=8,
        patch_size=(1, 2, 2),
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    pipe = SanaVideoPipeline(transformer=transformer, vae=wan_vae(), scheduler=scheduler, **gemma2(16))
    kwargs = {name: value for name, value in CALL.items() if name != "num_frames"} | {
        "frames": CALL["num_frames"],
        "width": 64,  # a multiple of 32
        "use_resolution_binning": False,
        "complex_human_instruction": ["the star on the right", "the red circle: "],
    }
    notes = "a short instruction in place of the default one, whose words the tiny tokenizer would spell out"
    return TinyPipeline(
        pipe, kwargs, (1, 9, 32, 64, 3), notes=notes, context=lambda: quiet("__array__ implementation doesn't accept")
    )
