"""A CLIP tokenizer for the words of the tiny world, built in code.

Some words are split into pieces on purpose ("tri" + "angle"), as real tokenizers do, so that nothing downstream can take a word
for a token.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final

from vico_lens.tinyworld.vocabulary import WORDS

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

__all__ = ["MAX_TOKENS", "SPLIT_WORDS", "build_tokenizer"]

MAX_TOKENS: Final = 32
SPLIT_WORDS: Final = {
    "triangle": ("tri", "angle"),
    "yellow": ("yel", "low"),
    "purple": ("pur", "ple"),
    "moving": ("mov", "ing"),
    "staying": ("stay", "ing"),
}
_START, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def build_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer: single letters, the merges that build every word or piece, start and end tokens.

    Examples
    --------
    >>> tokenizer = build_tokenizer()
    >>> tokenizer.convert_ids_to_tokens(tokenizer("a red triangle").input_ids)
    ['<|startoftext|>', 'a</w>', 'red</w>', 'tri', 'angle</w>', '<|endoftext|>']
    """
    from transformers import CLIPTokenizer

    vocabulary = {letter: index for index, letter in enumerate(string.ascii_lowercase)}
    for letter in string.ascii_lowercase:
        vocabulary[letter + _WORD_END] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for word in sorted(WORDS):
        pieces = SPLIT_WORDS.get(word, (word,))
        for position, piece in enumerate(pieces):
            symbols = [*piece[:-1], piece[-1] + (_WORD_END if position == len(pieces) - 1 else "")]
            # Right to left, so that the word end takes part in every merge and no merge of one word applies inside another.
            while len(symbols) > 1:
                pair = (symbols[-2], symbols[-1])
                symbols[-2:] = ["".join(pair)]
                if symbols[-1] not in vocabulary:
                    vocabulary[symbols[-1]] = len(vocabulary)
                    merges.append(pair)
    for token in (_START, _END):
        vocabulary[token] = len(vocabulary)
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token=_START,
        eos_token=_END,
        unk_token=_END,
        pad_token=_END,
        model_max_length=MAX_TOKENS,
    )
