"""Language models as text encoders, each of the class its pipelines load, at toy size, with its tokenizer and chat template."""

from __future__ import annotations

from typing import Any

from vico_lens.testing.pipelines.tokenizers import byte_level_tokenizer, metaspace_tokenizer

__all__ = ["CHAT_TEMPLATE", "gemma2", "gemma3", "llama", "qwen2_vl", "qwen25_vl", "qwen25_vl_text", "t5_gemma2"]

# What Qwen's own template comes to for text-only messages, whose content is a string or a list with one text.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{{ message.content[0].text }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _layers(width: int, vocabulary: int, *, layers: int = 3) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _multimodal_rotary(width: int) -> dict[str, Any]:
    """Rotary settings of Qwen's vision models: half a head's channels split over time, row and column."""
    half = width // 4
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}


def _vision(width: int, **changes: Any) -> dict[str, Any]:
    return {"depth": 1, "num_heads": 2, "hidden_size": width, "patch_size": 4} | changes


def qwen2_vl(width: int) -> dict[str, Any]:
    """Qwen2-VL with its language head, as EasyAnimate loads it."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    tokenizer = byte_level_tokenizer(template=CHAT_TEMPLATE)
    text = _layers(width, len(tokenizer)) | {"rope_parameters": _multimodal_rotary(width)}
    config = Qwen2VLConfig(text_config=text, vision_config=_vision(width, embed_dim=width))
    return {"text_encoder": Qwen2VLForConditionalGeneration(config), "tokenizer": tokenizer}


def qwen25_vl(width: int) -> dict[str, Any]:
    """Qwen2.5-VL with its language head, as Kandinsky 5 loads it."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = byte_level_tokenizer(template=CHAT_TEMPLATE)
    text = _layers(width, len(tokenizer)) | {"rope_parameters": _multimodal_rotary(width)}
    vision = _vision(width, intermediate_size=width, out_hidden_size=width)
    return {
        "text_encoder": Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        "tokenizer": tokenizer,
    }


def qwen25_vl_text(width: int) -> dict[str, Any]:
    """Qwen2.5-VL without its vision model, as HunyuanVideo 1.5 loads it; the pipeline reads its third last state."""
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

    tokenizer = byte_level_tokenizer(template=CHAT_TEMPLATE)
    config = Qwen2_5_VLTextConfig(**_layers(width, len(tokenizer)), rope_parameters=_multimodal_rotary(width))
    return {"text_encoder": Qwen2_5_VLTextModel(config), "tokenizer": tokenizer}


def llama(width: int) -> dict[str, Any]:
    """Llama, as HunyuanVideo loads it, padded on the right; the pipeline reads its third last state."""
    from transformers import LlamaConfig, LlamaModel

    tokenizer = metaspace_tokenizer(special=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))
    tokenizer.padding_side = "right"
    return {"text_encoder": LlamaModel(LlamaConfig(**_layers(width, len(tokenizer)))), "tokenizer": tokenizer}


def gemma2(width: int) -> dict[str, Any]:
    """Gemma 2, as SANA-Video loads it."""
    from transformers import Gemma2Config, Gemma2Model

    tokenizer = metaspace_tokenizer("GemmaTokenizer")
    config = Gemma2Config(**_layers(width, len(tokenizer), layers=2), head_dim=width // 2, query_pre_attn_scalar=width // 2)
    return {"text_encoder": Gemma2Model(config), "tokenizer": tokenizer}


def gemma3(width: int) -> dict[str, Any]:
    """Gemma 3 with vision, as LTX-2 loads it; the pipeline stacks the states of all layers."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    tokenizer = metaspace_tokenizer("GemmaTokenizer")
    text = _layers(width, len(tokenizer), layers=2) | {"head_dim": width // 2, "query_pre_attn_scalar": width // 2}
    vision = _layers(width, 8, layers=1) | {"image_size": 8, "patch_size": 4}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
    return {"text_encoder": Gemma3ForConditionalGeneration(config), "tokenizer": tokenizer}


def t5_gemma2(width: int) -> dict[str, Any]:
    """T5Gemma 2 encoder, as Motif-Video loads it, padded on the right."""
    from transformers.models.t5gemma2.configuration_t5gemma2 import T5Gemma2EncoderConfig, T5Gemma2TextConfig
    from transformers.models.t5gemma2.modeling_t5gemma2 import T5Gemma2Encoder

    tokenizer = metaspace_tokenizer("GemmaTokenizer")
    tokenizer.padding_side = "right"
    text = T5Gemma2TextConfig(**_layers(width, len(tokenizer), layers=1), head_dim=width // 2, dropout_rate=0.0)
    vision = _layers(width, 8, layers=1) | {"model_type": "siglip_vision_model", "image_size": 8, "patch_size": 4}
    return {
        "text_encoder": T5Gemma2Encoder(T5Gemma2EncoderConfig(text_config=text, vision_config=vision)),
        "tokenizer": tokenizer,
    }
