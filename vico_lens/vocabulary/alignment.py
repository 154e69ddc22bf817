"""Which characters of a prompt each character of a text made from it comes from.

A prompt rarely reaches the text encoder as its user wrote it: pipelines straighten quotes, resolve ``&amp;``, widen ligatures,
lower the case, put a template around it, and cut it off. Here both texts are laid side by side, letter by letter, so that what
is known of the one (the tokens' places) holds for the other. A letter that cannot be matched costs no letter after it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = ["UNKNOWN", "Rewritten", "Span", "align", "is_blank", "trimmed", "uncovered", "with_vectors"]

Span = tuple[int, int]
"""Characters ``text[start:stop]``."""

UNKNOWN = "\ufffd"
"""Stands for letters that a tokenizer could not write. It equals no letter and takes the place that its neighbours leave."""

_ENTITY = re.compile(r"&(?:amp;)*(?:#\d+|#[xX][\da-fA-F]+|[A-Za-z][A-Za-z\d]*);|.", re.DOTALL)
_LIKE = str.maketrans("‘’‚‛′`´“”„‟″‐‑‒–—―−", "'''''''\"\"\"\"\"-------")
_MATCH, _GAP, _LATE = 3, 1, 8
_LONGEST_CHANGE = 16  # letters of a stretch that was replaced by another; longer ones are other text
_DIAGONAL, _UP, _LEFT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A text that was made from a prompt, with the origin of each of its characters.

    Attributes
    ----------
    text : str
        As the tokenizer is given it.
    origins : tuple
        For each character of `text` the characters of the prompt that it comes from, or None.

    Examples
    --------
    >>> Rewritten.of("a dog&#39;s ear", "a dog's ear").span(5, 6)
    (5, 10)
    """

    text: str
    origins: tuple[Span | None, ...]

    @classmethod
    def same(cls, prompt: str) -> Rewritten:
        """Return the prompt itself."""
        return cls(prompt, tuple((place, place + 1) for place in range(len(prompt))))

    @classmethod
    def of(cls, prompt: str, text: str) -> Rewritten:
        """Align `text` with the prompt that it was made from."""
        return cls.same(prompt) if text == prompt else cls(text, tuple(align(prompt, text)))

    def span(self, start: int, stop: int) -> Span | None:
        """Characters of the prompt that ``text[start:stop]`` comes from; empty for blanks alone, None for none."""
        start, stop = trimmed(self.text, start, stop)
        if start == stop:  # a blank: it stands where the character before it ends
            before = next((origin for origin in reversed(self.origins[:start]) if origin), None)
            return None if before is None else (before[1], before[1])
        found = [origin for origin in self.origins[start:stop] if origin is not None]
        return (min(a for a, _ in found), max(b for _, b in found)) if found else None


def trimmed(text: str, start: int, stop: int) -> Span:
    """``start, stop`` without the white space in front: many tokenizers count the space before a word to it.

    >>> trimmed("a  cat", 1, 6), trimmed("a  cat", 1, 2)
    ((3, 6), (2, 2))
    """
    while start < stop and text[start].isspace():
        start += 1
    return start, stop


def is_blank(text: str) -> bool:
    r"""Whether there is nothing to see in `text`: white space, control characters and joiners alone.

    >>> is_blank(" \u200b"), is_blank("."), is_blank("")
    (True, False, True)
    """
    return not _letters(text)


def uncovered(prompt: str, spans: Sequence[Span | None]) -> list[str]:
    """Find the stretches of a prompt of which no letter, digit or symbol has a token.

    >>> uncovered("a red circle, and a blue square.", [(0, 1), (2, 5), (6, 12)])
    ['and a blue square']
    """
    covered = bytearray(len(prompt))
    for span in spans:
        if span is not None:
            covered[span[0] : span[1]] = b"\1" * (span[1] - span[0])
    marks = "".join("." if flag else _counted(letter) for flag, letter in zip(covered, prompt, strict=True))
    return [prompt[match.start() : match.end()] for match in re.finditer(r"x(?:[x ]*x)?", marks)]


def _counted(letter: str) -> str:
    """``x`` for what carries meaning; a blank for white space, punctuation, marks and what cannot be seen."""
    return "x" if unicodedata.category(letter)[0] in "LNS" else " "


def with_vectors(tokenizer: Any, rewritten: Rewritten) -> Rewritten:
    """Write the words of textual inversion as often as they have vectors: ``<cat>`` becomes ``<cat> <cat>_1 <cat>_2``.

    So does ``maybe_convert_prompt`` of diffusers. Every vector comes from the word that stands for all of them.
    """
    added = getattr(tokenizer, "added_tokens_encoder", None) or {}
    for word in (word for word in added if f"{word}_1" in added):
        count = 1
        while f"{word}_{count}" in added:
            count += 1
        vectors = " ".join([word, *(f"{word}_{index}" for index in range(1, count))])
        origins: list[Span | None] = []
        text, last = "", 0
        for match in re.finditer(re.escape(word), rewritten.text):
            text += rewritten.text[last : match.start()] + vectors
            origins += [*rewritten.origins[last : match.start()], *[rewritten.span(*match.span())] * len(vectors)]
            last = match.end()
        rewritten = Rewritten(text + rewritten.text[last:], (*origins, *rewritten.origins[last:]))
    return rewritten


def align(prompt: str, text: str) -> list[Span | None]:
    """Find for each character of `text` the characters of `prompt` that it comes from.

    The two are compared by letters that count as equal whatever their case, width, quotation style or spelling as an HTML entity.
    `text` may lack an end of the prompt, may have other text around it, and inside it letters may be missing, added or changed.

    Parameters
    ----------
    prompt : str
        As its user wrote it.
    text : str
        Made from it. `UNKNOWN` stands for letters that are not known.

    Returns
    -------
    list of tuple or None
        One entry a character of `text`; None for blanks, and for what does not come from the prompt.

    Notes
    -----
    The alignment of highest score under linear gap costs with free ends, by dynamic programming over rows (Needleman and Wunsch
    1970); a stretch of letters that was replaced by another is its origin as a whole.

    Examples
    --------
    >>> align("Ｒｅｄ “cat”", 'red "ca')
    [(0, 1), (1, 2), (2, 3), None, (4, 5), (5, 6), (6, 7)]
    """
    ours, theirs = _letters(prompt), _letters(text)
    ours = ours[: 2 * len(theirs) + 512]  # what lies further was cut off
    pairs = _pairs([letter for letter, _, _ in ours], [letter for letter, _, _ in theirs])
    origins: list[Span | None] = [None] * len(theirs)
    for i, j in pairs:
        origins[j] = ours[i][1:]
    for (i, j), (next_i, next_j) in pairwise(pairs):
        changed = next_i - i > 1 and max(next_i - i, next_j - j) <= _LONGEST_CHANGE
        if changed:
            origins[j + 1 : next_j] = [(ours[i + 1][1], ours[next_i - 1][2])] * (next_j - j - 1)
    if pairs:
        _end_changes(ours, theirs, pairs, origins)
    return _by_character(text, theirs, origins)


_Letter = tuple[str, int, int]


def _letters(text: str) -> list[_Letter]:
    """Letters in a form in which equal ones compare equal, with the characters that they were written with. No blanks."""
    found: list[_Letter] = []
    for match in _ENTITY.finditer(text):
        unit = match[0] if len(match[0]) == 1 else html.unescape(html.unescape(match[0]))
        for letter in unicodedata.normalize("NFKD", unit.translate(_LIKE)).casefold():
            if letter == UNKNOWN or not (letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf")):
                found.append((letter, *match.span()))
    return found


def _pairs(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Places of letters that are paired, ascending in both."""
    rows, columns = len(ours), len(theirs)
    if not rows or not columns:
        return []
    codes = np.array([ord(letter) for letter in theirs], dtype=np.int32)
    wild = np.where(codes == ord(UNKNOWN), 0, -(2**20)).astype(np.int32)
    codes[wild == 0] = -1
    steps = _GAP * np.arange(columns + 1, dtype=np.int32)
    score = np.zeros(columns + 1, dtype=np.int32)
    moves = np.zeros((rows + 1, columns + 1), dtype=np.uint8)
    best, at = 0, (0, 0)
    for row, letter in enumerate(ours, 1):
        diagonal = score[:-1] + np.where(codes == ord(letter), _MATCH, wild)
        open_ = score - _GAP
        open_[0] = max(-_GAP * row, -_LATE)
        move = np.full(columns + 1, _UP, dtype=np.uint8)
        better = diagonal >= open_[1:]
        move[1:][better] = _DIAGONAL
        open_[1:][better] = diagonal[better]
        score = np.maximum.accumulate(open_ + steps) - steps
        move[score > open_] = _LEFT
        moves[row] = move
        end = columns if row < rows else int(np.argmax(score))
        if score[end] > best:
            best, at = int(score[end]), (row, end)
    pairs: list[tuple[int, int]] = []
    row, column = at
    while row and column:
        move = moves[row, column]
        if move == _DIAGONAL:
            pairs.append((row - 1, column - 1))
        row, column = row - (move != _LEFT), column - (move != _UP)
    return [(i, j) for i, j in pairs[::-1] if codes[j] >= 0]


def _end_changes(ours: list[_Letter], theirs: list[_Letter], pairs: list[tuple[int, int]], origins: list[Span | None]) -> None:
    """Give letters that were changed or are unknown at the very begin or end of the text their origin."""
    (i, j), (last_i, last_j) = pairs[0], pairs[-1]
    short = 0 < j <= _LONGEST_CHANGE
    if 0 < i <= _LONGEST_CHANGE and short:
        origins[:j] = [(ours[0][1], ours[i - 1][2])] * j
    rest, over = ours[last_i + 1 :], theirs[last_j + 1 :]
    unknown = next((n for n, (letter, _, _) in enumerate(over) if letter != UNKNOWN), len(over))
    if rest and unknown and len(rest) > _LONGEST_CHANGE:  # the text was cut off behind them
        origins[last_j + 1 : last_j + 1 + unknown] = [(rest[0][1], rest[min(unknown, len(rest)) - 1][2])] * unknown
    elif rest and 0 < len(over) <= _LONGEST_CHANGE and len(rest) <= _LONGEST_CHANGE:
        origins[last_j + 1 :] = [(rest[0][1], rest[-1][2])] * len(over)


def _by_character(text: str, letters: list[_Letter], origins: list[Span | None]) -> list[Span | None]:
    """Bring origins of letters to the characters that the letters were written with."""
    found: list[Span | None] = [None] * len(text)
    for (_, start, stop), origin in zip(letters, origins, strict=True):
        if origin is not None:
            for place in range(start, stop):
                known = found[place]
                found[place] = origin if known is None else (min(known[0], origin[0]), max(known[1], origin[1]))
    return found
