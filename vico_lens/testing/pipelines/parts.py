"""Components that several tiny pipelines share: text encoders, the image autoencoder, and input clips."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vico_lens.testing.pipelines.tokenizers import clip_tokenizer, t5_tokenizer

__all__ = ["clip", "clip_of_images", "image_vae", "quiet", "t5", "umt5"]


def clip(width: int, length: int = 24, *, projection: bool = False) -> dict[str, Any]:
    """CLIP text encoder of one layer with its tokenizer, under the component names that pipelines use.

    Parameters
    ----------
    width : int
        Hidden size, a multiple of 2.
    length : int
        Padded prompt length in tokens.
    projection : bool
        Build the class with a projection of the pooled state.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer(length)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_attention_heads=2,
        num_hidden_layers=1,
        max_position_embeddings=length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    return {"text_encoder": encoder, "tokenizer": tokenizer}


def _t5(kind: str, width: int, length: int, vocabulary: int | None = None) -> dict[str, Any]:
    import transformers

    tokenizer = t5_tokenizer(length)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=vocabulary or len(tokenizer),
        d_model=width,
        d_kv=width // 2,
        d_ff=2 * width,
        num_layers=1,
        num_heads=2,
        relative_attention_num_buckets=8,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return {"text_encoder": getattr(transformers, f"{kind}EncoderModel")(config), "tokenizer": tokenizer}


def t5(width: int, length: int = 24, *, vocabulary: int | None = None) -> dict[str, Any]:
    """T5 encoder of one layer and `width` channels with its tokenizer; `vocabulary` entries if another tokenizer feeds it."""
    return _t5("T5", width, length, vocabulary)


def umt5(width: int, length: int = 24) -> dict[str, Any]:
    """UMT5 encoder of one layer and `width` channels with its tokenizer."""
    return _t5("UMT5", width, length)


def image_vae(channels: int = 4, width: int = 8) -> Any:
    """Image autoencoder that halves each side once, for pipelines that code frames one by one."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(width, width),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=2,
    )


def clip_of_images(frames: int, rows: int, columns: int) -> list[Any]:
    """A fixed clip of noise as PIL images of `rows` x `columns` pixels, for pipelines that start from a video or an image."""
    from PIL import Image

    pixels = np.random.default_rng(7).integers(0, 256, (frames, rows, columns, 3), dtype=np.uint8)
    return [Image.fromarray(frame) for frame in pixels]


@contextmanager
def quiet(message: str) -> Iterator[None]:
    """Silence the warnings that diffusers itself sets off and no caller can avoid.

    Parameters
    ----------
    message : str
        Regular expression for the start of the warning; others still show.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield
