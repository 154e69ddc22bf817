"""Words of a prompt with their classes, as far as form and lists tell; and whether a prompt is English."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vico_lens.vocabulary import lexicon as lex
from vico_lens.vocabulary.markup import without_markup
from vico_lens.vocabulary.words import lettered, words_of

__all__ = ["Word", "is_foreign", "read_words"]

_PICTOGRAPH = "[\U0001f300-\U0001f5ff\U0001f600-\U0001f6ff\U0001f900-\U0001faff]"
_EMOJI = re.compile(rf"{_PICTOGRAPH}[\ufe0f\U0001f3fb-\U0001f3ff]*(?:\u200d[\u2600-\u27bf\U0001f300-\U0001faff]\ufe0f?)*")


class Word:
    """A word, whether punctuation stands before it, and its classes."""

    __slots__ = ("attached", "lower", "start", "stop", "text")

    def __init__(self, text: str, start: int, before: str) -> None:
        self.start, self.stop, self.text = start, start + len(text), text
        self.lower = text.lower().replace("’", "'")
        self.attached = not re.search(r"[^\w\s'’\"“”]", re.split(r"\w", before)[-1])  # no punctuation before it, but quotes

    @property
    def closed(self) -> bool:
        """Whether it ends a phrase: articles, prepositions, conjunctions, auxiliaries, pronouns, adverbs."""
        return self.lower in lex.DETERMINERS or self.lower in lex.BREAKS or self.adverb

    @property
    def adverb(self) -> bool:
        """Whether it says how, where or when: "slowly", "nearby"."""
        ly = self.lower.endswith("ly") and len(self.lower) > 4 and self.lower not in lex.LY_NOUNS | lex.LY_ADJECTIVES
        return ly or self.lower in lex.ADVERBS

    @property
    def adjective(self) -> bool:
        """Whether it is known as an adjective, or ends like one."""
        word = self.lower
        if word in lex.ADJECTIVES or word in lex.LY_ADJECTIVES:
            return True
        ending = word.endswith(("ful", "ous", "ish", "less", "-shaped", "-colored", "-coloured", "-like"))
        return len(word) > 5 and ending and not word.endswith("fish") and word not in lex.SUFFIX_NOUNS

    @property
    def past(self) -> bool:
        """Whether it has the form of a participle, or a past form."""
        word = self.lower
        regular = word.endswith("ed") and len(word) > 4 and word not in lex.ED_WORDS and not word.endswith("eed")
        return (regular and "-" not in word) or word in lex.PARTICIPLES

    @property
    def ing(self) -> bool:
        """Whether it has the form of a present participle."""
        return self.lower.endswith("ing") and len(self.lower) > 4

    @property
    def plural(self) -> bool:
        """Whether it has the form of a plural noun."""
        word = self.lower
        return word in lex.PLURALS or (
            word.endswith("s") and not word.endswith(("ss", "us", "is", "'s")) and len(word) > 2 and word not in lex.S_NOUNS
        )

    @property
    def s_form(self) -> bool:
        """Whether it could be a verb in the third person: "climbs"."""
        return self.plural and self.lower not in lex.PLURALS

    @property
    def known_verb(self) -> bool:
        """Whether it is of a listed verb."""
        return self.lower in lex.VERBS or (self.s_form and not lex.stem_of_s(self.lower).isdisjoint(lex.VERBS))


def read_words(prompt: str) -> list[Word]:
    """Words of a prompt without the markup of other programs; emoji are words too."""
    plain = re.sub(lex.IDIOMS, lambda match: " " * len(match[0]), without_markup(prompt), flags=re.IGNORECASE)
    letters = lettered(plain)
    spans = sorted([*words_of(plain), *(match.span() for match in _EMOJI.finditer(plain))])
    stops = [0, *(stop for _, stop in spans)]
    return [
        Word(prompt[start:stop], start, letters[max(0, last - 1) : start])
        for (start, stop), last in zip(spans, stops, strict=False)
    ]


def is_foreign(words: Sequence[Word]) -> bool:
    """Whether a text is not English, by its letters and by the little words between the others."""
    letters = "".join(word.text for word in words if not _EMOJI.match(word.text))
    if letters and sum(_is_latin(letter) for letter in letters) * 2 < len(letters):
        return True
    other = sum(word.lower in lex.FOREIGN for word in words)
    english = sum(word.lower in lex.BREAKS or word.lower in lex.DETERMINERS for word in words)
    if other >= 2 and other > english:
        return True
    known = english + sum(word.adjective or word.known_verb or word.lower in lex.PARTICLES for word in words)
    return len(words) > 3 and not known and not letters.isascii()


def _is_latin(letter: str) -> bool:
    return letter < "\u0370" or "\u1e00" <= letter < "\u1f00" or not letter.isalpha()
