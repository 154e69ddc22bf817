"""Video transformers with one softmax over text and video."""

from __future__ import annotations

from vico_lens.tracing.families.base import Family, Rule
from vico_lens.tracing.families.special import compressed_text, reordered_text, unless_decoder

__all__ = ["FAMILIES"]

_REFINER = Rule(r"^context_embedder\.", None, reason="refines the text, before it meets the video")
_DUAL_AND_SINGLE = (_REFINER, Rule(r"^(single_)?transformer_blocks\.\d+\.attn$", "joint"))
_BLOCKS = Rule(r"^transformer_blocks\.\d+\.attn1$", "joint")
_PATCH = ("patch_size_t", "patch_size", "patch_size")

FAMILIES = (
    Family(
        name="cogvideox",
        title="CogVideoX",
        proven=("cogvideox-t2v", "cogvideox-i2v", "cogvideox-v2v"),
        pipelines=(
            "CogVideoXPipeline",
            "CogVideoXImageToVideoPipeline",
            "CogVideoXVideoToVideoPipeline",
            "CogVideoXFunControlPipeline",
        ),
        models=("CogVideoXTransformer3DModel",),
        rules=(_BLOCKS,),
        latents="BFCHW",
        patch=_PATCH,
        text="first",
    ),
    Family(
        name="consisid",
        title="ConsisID",
        proven=("consisid-i2v",),
        pipelines=("ConsisIDPipeline",),
        models=("ConsisIDTransformer3DModel",),
        rules=(
            _BLOCKS,
            Rule(
                r"^(perceiver_cross_attention|local_facial_extractor)\b", None, reason="attends to a face, not to text or video"
            ),
        ),
        latents="BFCHW",
        text="first",
    ),
    Family(
        name="easyanimate",
        title="EasyAnimate",
        proven=("easyanimate-t2v",),
        pipelines=("EasyAnimatePipeline", "EasyAnimateInpaintPipeline", "EasyAnimateControlPipeline"),
        models=("EasyAnimateTransformer3DModel",),
        rules=(
            Rule(r"^transformer_blocks\.\d+\.attn1$", "joint"),
            Rule(r"^transformer_blocks\.\d+\.attn2$", "spacetime"),
        ),
        text="first",
        states=("encoder_hidden_states", "encoder_hidden_states_t5"),
        tokenizers=("tokenizer", "tokenizer_2"),
    ),
    Family(
        name="mochi",
        title="Mochi",
        proven=("mochi-t2v",),
        pipelines=("MochiPipeline",),
        models=("MochiTransformer3DModel",),
        rules=(
            Rule(r"^time_embed\.", None, reason="pools the text"),
            Rule(r"^transformer_blocks\.\d+\.attn1$", "joint", read=compressed_text),
        ),
        text="last",
        mask="encoder_attention_mask",
        notes="Only tokens that are not padding take part, one kernel call a row.",
    ),
    Family(
        name="hunyuan-video",
        title="HunyuanVideo",
        proven=("hunyuan-t2v",),
        pipelines=("HunyuanVideoPipeline", "HunyuanVideoImageToVideoPipeline", "HunyuanSkyreelsImageToVideoPipeline"),
        models=("HunyuanVideoTransformer3DModel",),
        rules=_DUAL_AND_SINGLE,
        patch=_PATCH,
        text="last",
        guidance="passes",
        crop="end",
        notes="Image-to-video puts image tokens among the text tokens. Framepack's history tokens are not supported.",
    ),
    Family(
        name="hunyuan-video-1.5",
        title="HunyuanVideo 1.5",
        proven=("hunyuan15-t2v",),
        pipelines=("HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline", "HunyuanVideo15ModularPipeline"),
        models=("HunyuanVideo15Transformer3DModel",),
        rules=(_REFINER, Rule(r"^transformer_blocks\.\d+\.attn$", "joint", read=reordered_text)),
        patch=_PATCH,
        text="reordered",
        states=("encoder_hidden_states", "encoder_hidden_states_2", "image_embeds"),
        tokenizers=("tokenizer", "tokenizer_2", ""),
        quoted=("tokenizer_2",),
        guidance="guider",
        crop="end",
        notes="Text tokens are given in the order of their encoders, not in the model's order (valid ones first).",
    ),
    Family(
        name="motif-video",
        title="Motif-Video",
        proven=("motif-t2v",),
        pipelines=("MotifVideoPipeline", "MotifVideoImage2VideoPipeline"),
        models=("MotifVideoTransformer3DModel",),
        rules=(
            _REFINER,
            Rule(r"^(single_)?transformer_blocks\.\d+\.attn$", "joint", read=unless_decoder),
            Rule(r"^(single_)?transformer_blocks\.\d+\.cross_attn$", "cross", read=unless_decoder),
        ),
        patch=_PATCH,
        text="last",
        states=("image_embeds", "encoder_hidden_states"),
        tokenizers=("", "tokenizer"),
        guidance="guider",
        notes="Decoder blocks attend between two states of the video and are left out.",
    ),
)
