"""Tokenizers built in code, small but of the real kinds: CLIP byte pairs, T5 unigrams, and the pairs of language models.

A tokenizer that gives one piece a word would hide every mistake in the way from words to tokens. So a fixed lexicon says how
each word falls into pieces (``circle`` into ``cir`` and ``cle``), and each kind of tokenizer is given exactly the vocabulary and
the merges that make it so, in its own notation (``cle</w>``, ``▁cir``, ``Ġcir``). Other words fall into characters.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "LEXICON",
    "PROMPT",
    "byte_level_tokenizer",
    "clip_tokenizer",
    "merges_for",
    "metaspace_tokenizer",
    "t5_tokenizer",
    "umt5_tokenizer",
]

PROMPT = "a red circle moving right and a blue square moving up"

LEXICON: dict[str, tuple[str, ...]] = {
    "circle": ("cir", "cle"),
    "moving": ("mov", "ing"),
    "triangle": ("tri", "ang", "le"),
    "square": ("square",),
    "yellow": ("yel", "low"),
    **{
        word: (word,)
        for word in ("a", "and", "red", "blue", "green", "star", "right", "left", "up", "down", "still", "the", "on")
    },
}

_CHARACTERS = string.ascii_letters + string.digits + string.punctuation


def merges_for(words: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Byte-pair merges under which every word falls into its given pieces.

    Parameters
    ----------
    words : iterable of sequence of str
        Every word as its pieces, each piece a string of symbols; a symbol is one character, or the last character with its
        end-of-word mark.

    Returns
    -------
    list of (str, str)
        In the order of their rank. A word is encoded with the merges found so far, and what is missing inside a piece is merged
        from the left, so that an earlier word never changes.

    Raises
    ------
    ValueError
        If an earlier merge crosses the border between two pieces of a later word: such a lexicon cannot be had.

    Examples
    --------
    >>> merges_for([("re", "d")])
    [('r', 'e')]
    """
    merges: list[tuple[str, str]] = []
    for pieces in words:
        wanted = [_symbols(piece) for piece in pieces]
        symbols = _encode([symbol for piece in wanted for symbol in piece], merges)
        for target in pieces:
            while symbols[0] != target:
                if not target.startswith(symbols[0]):
                    raise ValueError(
                        f"expected merges that end at {tuple(pieces)}; got {symbols[0]!r} across a border; reorder the words."
                    )
                merges.append((symbols[0], symbols[1]))
                symbols[:2] = [symbols[0] + symbols[1]]
            symbols.pop(0)
    return merges


def _symbols(piece: str) -> list[str]:
    """Single characters of a piece, an end-of-word mark kept on the last one."""
    if piece.endswith("</w>"):
        return [*piece[:-5], piece[-5:]]
    return list(piece)


def _encode(symbols: list[str], merges: Sequence[tuple[str, str]]) -> list[str]:
    for left, right in merges:
        index = 0
        while index < len(symbols) - 1:
            if (symbols[index], symbols[index + 1]) == (left, right):
                symbols[index : index + 2] = [left + right]
            index += 1
    return symbols


def _vocabulary(first: Iterable[str], merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    entries = dict.fromkeys([*first, *(left + right for left, right in merges)])
    return {entry: index for index, entry in enumerate(entries)}


def clip_tokenizer(length: int = 24) -> Any:
    """CLIP byte-pair tokenizer: end-of-word marks, start and end tokens, padded with the end token to `length`.

    Examples
    --------
    >>> clip_tokenizer().tokenize("a red circle")
    ['a</w>', 'red</w>', 'cir', 'cle</w>']
    """
    from transformers import CLIPTokenizer

    merges = merges_for([*pieces[:-1], pieces[-1] + "</w>"] for pieces in LEXICON.values())
    characters = [*_CHARACTERS, *(f"{character}</w>" for character in _CHARACTERS)]
    vocabulary = _vocabulary([*characters, "<|startoftext|>", "<|endoftext|>"], merges)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def _pieces(mark: str) -> list[tuple[str, float]]:
    """Unigram pieces with log-probabilities: a lexicon piece beats any spelling of it by characters."""
    pieces = dict.fromkeys(f"{mark}{first}" for first, *_ in LEXICON.values())
    pieces |= dict.fromkeys(piece for _, *rest in LEXICON.values() for piece in rest)
    return [
        *((piece, -3.0) for piece in pieces),
        *((character, -10.0) for character in [mark, *_CHARACTERS] if character not in pieces),
    ]


def t5_tokenizer(length: int = 24) -> Any:
    """T5 unigram tokenizer: word-start marks, an end token, a padding token of its own.

    Examples
    --------
    >>> t5_tokenizer().tokenize("a red circle")
    ['▁a', '▁red', '▁cir', 'cle']
    """
    from transformers import T5Tokenizer

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *_pieces("▁")]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=length)


def umt5_tokenizer(length: int = 24) -> Any:
    """UMT5 tokenizer: as T5's, but compatible characters are made one first (NFKC), and unknown ones are written as bytes.

    Examples
    --------
    >>> umt5_tokenizer().tokenize("ｒｅｄ é")
    ['▁red', '▁', '<0xC3>', '<0xA9>']
    """
    from tokenizers import models, normalizers

    tokenizer = t5_tokenizer(length)
    backend = tokenizer.backend_tokenizer
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"<0x{value:02X}>", 0.0) for value in range(256))]
    backend.model = models.Unigram([*vocabulary, *_pieces("▁")], unk_id=2, byte_fallback=True)
    backend.normalizer = normalizers.NFKC()
    return tokenizer


def _merges_with_start(mark: str) -> list[tuple[str, str]]:
    """Merges for every word at a text's beginning (bare) and after a space (marked)."""
    bare = [list(pieces) for pieces in LEXICON.values()]
    return merges_for([*bare, *([mark + pieces[0], *pieces[1:]] for pieces in bare)])


def byte_level_tokenizer(length: int = 128, special: Sequence[str] = (), template: str | None = None) -> Any:
    """Qwen2 tokenizer: byte-level pairs where a space belongs to the word after it, and padding has its own token.

    Parameters
    ----------
    length : int
        Longest text in tokens.
    special : sequence of str
        Further special tokens, for chat templates and image slots.
    template : str, optional
        Chat template (Jinja).

    Examples
    --------
    >>> byte_level_tokenizer().tokenize("a red circle")
    ['a', 'Ġred', 'Ġcir', 'cle']
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special]
    merges = _merges_with_start("Ġ")
    vocabulary = _vocabulary([*sorted(ByteLevel.alphabet()), *named], merges)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=length, additional_special_tokens=named[1:])
    tokenizer.chat_template = template
    return tokenizer


def metaspace_tokenizer(kind: str = "LlamaTokenizer", length: int = 128, special: Sequence[str] = ()) -> Any:
    """Llama or Gemma tokenizer: pairs over text whose spaces are written ``▁``, unknown characters as bytes.

    Parameters
    ----------
    kind : {"LlamaTokenizer", "GemmaTokenizer"}
        Class in transformers.
    length : int
        Longest text in tokens.
    special : sequence of str
        Further special tokens, for chat templates.

    Examples
    --------
    >>> metaspace_tokenizer().tokenize("a red circle")
    ['▁a', '▁red', '▁cir', 'cle']
    """
    import transformers

    llama = kind == "LlamaTokenizer"
    named = ["<unk>", "<s>", "</s>", "<pad>"] if llama else ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    merges = _merges_with_start("▁")
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    vocabulary = _vocabulary([*named, *special, *bytes_, "▁", *_CHARACTERS], merges)
    options = {
        "pad_token": "<pad>",
        "add_bos_token": True,
        "model_max_length": length,
        "additional_special_tokens": list(special),
    }
    return getattr(transformers, kind)(vocab=vocabulary, merges=merges, **options)
