"""Words of a text, and phrases as data: which characters, and what they are."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["PHRASE_KINDS", "Phrase", "PhraseKind", "Role", "lettered", "lowered", "words_of"]

PhraseKind = Literal["noun", "motion"]
PHRASE_KINDS: tuple[PhraseKind, ...] = get_args(PhraseKind)
Role = Literal["subject", "object", "setting"]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A span of the prompt: ``prompt[start:stop] == text``.

    Attributes
    ----------
    text : str
        The words.
    start, stop : int
        Where they stand.
    kind : str
        One of `PHRASE_KINDS`.
    role : str
        What a noun phrase does in its clause: ``subject`` (it begins the clause, or acts), ``object`` (something is done to it),
        ``setting`` (it follows a preposition, or is a tag behind a comma).

    Examples
    --------
    >>> Phrase("red circle", 2, 12).kind
    'noun'
    """

    text: str
    start: int
    stop: int
    kind: PhraseKind = "noun"
    role: Role = "object"


_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_JOINERS = "\u200c\u200d"  # without width: they shape the letters around them, inside a word


def lettered(text: str) -> str:
    """`text`, with every mark that belongs to the letter before it (vowel signs, accents of their own) as a letter.

    Its length is that of `text`. Regular expressions take such marks for the end of a word.

    >>> lettered("cafe\u0301 1").isascii(), len(lettered("cafe\u0301 1"))
    (True, 7)
    """
    if text.isascii():
        return text
    letters: list[str] = []
    for character in text:
        mark = unicodedata.category(character).startswith("M") or character in _JOINERS
        letters.append("a" if mark and letters and letters[-1].isalnum() else character)
    return "".join(letters)


def lowered(text: str) -> tuple[str, list[int]]:
    """`text` in lower case, and where in `text` each of its characters is from: some letters become two.

    >>> lowered("A\u0130b")[1]
    [0, 1, 1, 2]
    """
    return text.lower(), [place for place, character in enumerate(text) for _ in character.lower()]


def words_of(text: str) -> list[tuple[int, int]]:
    """Character spans of the words of `text`; hyphens and apostrophes inside a word belong to it.

    >>> [("a well-lit dog's ear"[start:stop]) for start, stop in words_of("a well-lit dog's ear")]
    ['a', 'well-lit', "dog's", 'ear']
    """
    return [match.span() for match in _WORD.finditer(lettered(text))]
