"""Where in the prompt each token stands: from the tokenizer's own offsets, or letter by letter from what its tokens spell.

The tokenizer's account is taken where the encoder was given exactly what the tokenizer makes of a known text, cut off or not,
with or without a template around it. Any other ids are spelled out, and their text is aligned with the prompt.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from vico_lens.vocabulary.alignment import UNKNOWN, Rewritten, Span, align, is_blank

__all__ = ["matched_spans", "spans_of", "spelled"]

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def spans_of(tokenizer: Any, texts: Sequence[Rewritten], ids: Sequence[int], fill: Sequence[bool]) -> list[Span | None]:
    """Find the characters of the prompt that each token stands for.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        That made the ids.
    texts : sequence of Rewritten
        Texts that it may have been given, the likeliest first.
    ids : sequence of int
        With special tokens, fill, and what is left of a template.
    fill : sequence of bool
        Which of them are fill.

    Returns
    -------
    list of (int, int) or None
        One entry a token: empty for a blank of its own, None for what is not of the prompt.
    """
    matched = (matched_spans(tokenizer, text, ids, fill) for text in texts)
    found = next((spans for spans in matched if spans is not None), None)
    return _aligned(tokenizer, texts[0], ids, fill) if found is None else found


def matched_spans(tokenizer: Any, text: Rewritten, ids: Sequence[int], fill: Sequence[bool]) -> list[Span | None] | None:
    """Take the tokenizer's own offsets, or None where it has none or these ids are not its tokens of that text."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    own = tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=True)
    pieces, offsets = list(own["input_ids"]), [tuple(span) for span in own["offset_mapping"]]
    special = set(tokenizer.all_special_ids)
    for skip in (0, 1):  # a template may merge with the prompt's first piece
        start, count = _longest_run(pieces[skip:], ids, fill)
        if count < len(pieces) - skip:  # cut off: it fills the whole length, and nothing but special tokens follows
            if start + count == len(ids) and ids[-1] == getattr(tokenizer, "eos_token_id", None):
                count -= 1  # where the end token is the unknown one too, the last is the end
            others = sum(i not in special for i in ids)
            if skip or any(fill) or 2 * count < others or any(i not in special for i in ids[start + count :]):
                continue
        if not count or (skip and not start):
            continue
        spans: list[Span | None] = [None] * len(ids)
        first = start - skip
        spans[first : start + count] = [text.span(*span) for span in offsets[: count + skip]]
        return spans
    return None


def _longest_run(pieces: Sequence[int], ids: Sequence[int], fill: Sequence[bool]) -> tuple[int, int]:
    """Where in `ids` the longest begin of `pieces` stands, and its length; the last one of several."""
    best = (0, 0)
    for start in range(len(ids)):
        count = 0
        while count < len(pieces) and start + count < len(ids) and ids[start + count] == pieces[count]:
            count += 1
        if count and count >= best[1] and not fill[start]:
            best = (start, count)
    return best


def _aligned(tokenizer: Any, text: Rewritten, ids: Sequence[int], fill: Sequence[bool]) -> list[Span | None]:
    """Spell the tokens out, and align what they spell with the text."""
    spelling, places = spelled(tokenizer, ids, fill)
    origins = align(text.text, spelling)
    known = [place for place, origin in enumerate(origins) if origin is not None]
    inside = range(known[0], known[-1] + 1) if known else range(0)
    spans: list[Span | None] = []
    last = 0
    for start, stop in places:
        found = [origin for origin in origins[start:stop] if origin is not None]
        if found:
            first, last = min(a for a, _ in found), max(b for _, b in found)
            spans.append(text.span(first, last))
        elif start < stop and start in inside and is_blank(spelling[start:stop]):  # a blank of its own
            spans.append(text.span(last, last))
        else:
            spans.append(None)
    return spans


def spelled(tokenizer: Any, ids: Sequence[int], fill: Sequence[bool]) -> tuple[str, list[Span]]:
    """Spell tokens out: their text, and the characters of it that each has a part of.

    Byte pieces are joined to letters, marks of a word's begin or end become spaces, special tokens and fill spell nothing, and
    the unknown token spells `UNKNOWN`.
    """
    special, unknown = set(tokenizer.all_special_ids), getattr(tokenizer, "unk_token_id", None)
    if unknown in (getattr(tokenizer, "eos_token_id", None), getattr(tokenizer, "pad_token_id", None)):
        unknown = None  # CLIP has one token for both
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    write = _writer(tokenizer)
    text, places = "", []
    for token, piece, blank in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), fill, strict=True):
        if token == unknown and not blank:
            raw = UNKNOWN.encode()
        else:
            raw = b"" if blank or token in special else write(str(piece))
        start = len(text)
        text += decoder.decode(raw)
        pending = bool(decoder.getstate()[0])
        places.append((start, max(start, len(text) + pending) if raw else start))
    return text + decoder.decode(b"", final=True), places


def _writer(tokenizer: Any) -> Any:
    """Which bytes a piece of this tokenizer writes."""
    known = getattr(tokenizer, "convert_tokens_to_ids", lambda piece: None)
    unknown = getattr(tokenizer, "unk_token_id", None)
    if type(tokenizer).__name__.startswith("ByT5"):
        return lambda piece: piece.encode("latin-1", "ignore")
    by_words = known("▁") in (None, unknown) and known("Ġ") not in (None, unknown)
    return _byte_level if by_words else _by_marks


def _byte_level(piece: str) -> bytes:
    word = piece.removesuffix("</w>")
    table = _byte_table()
    raw = b"".join(bytes([table[letter]]) if letter in table else letter.encode() for letter in word)
    return raw + b" " * (word != piece)


def _by_marks(piece: str) -> bytes:
    if match := _BYTE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    piece = piece.removeprefix("##").replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")
    return piece.replace("</w>", " ").encode("utf-8", "replace")


@cache
def _byte_table() -> dict[str, int]:
    """Byte of each letter of byte-level pairs (GPT-2): printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
