"""A T5 tokenizer for the words of the tiny world, built in code, and a T5 encoder to be trained with the denoiser."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final

from vico_lens.tinyworld.training.tokenizer import SPLIT_WORDS
from vico_lens.tinyworld.vocabulary import WORDS

if TYPE_CHECKING:
    from transformers import T5EncoderModel, T5Tokenizer

__all__ = ["MAX_TOKENS", "TEXT_WIDTH", "build_t5_encoder", "build_t5_tokenizer"]

MAX_TOKENS: Final = 32
TEXT_WIDTH: Final = 64
_PIECE, _LETTER = -3.0, -10.0  # log probabilities: a word's own pieces always win over its letters
_SPACE = "\u2581"


def build_t5_tokenizer() -> T5Tokenizer:
    """Return a unigram tokenizer that knows every word, some of them in two pieces, and single letters for any other.

    Examples
    --------
    >>> tokenizer = build_t5_tokenizer()
    >>> tokenizer.tokenize("a red triangle")
    ['▁a', '▁red', '▁tri', 'angle']
    """
    from transformers import T5Tokenizer

    pieces: dict[str, float] = {}
    for word in sorted(WORDS):
        first, *rest = SPLIT_WORDS.get(word, (word,))
        pieces |= dict.fromkeys([_SPACE + first, *rest], _PIECE)
    letters = [(letter, _LETTER) for letter in (_SPACE, *string.ascii_lowercase) if letter not in pieces]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces.items(), *letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=MAX_TOKENS)


def build_t5_encoder(vocabulary: int) -> T5EncoderModel:
    """Return a two-layer T5 encoder of 64 channels, untrained; its token embeddings start far apart."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=TEXT_WIDTH,
            d_kv=TEXT_WIDTH // 4,
            d_ff=4 * TEXT_WIDTH,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
