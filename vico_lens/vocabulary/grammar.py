"""One walk over the words of a prompt that cuts them into noun phrases and motions.

At every word the walk knows the words of the phrase so far, whether a determiner made it singular or plural, and what stood
before it. A word is a verb by its place more than by its form: behind ``a panda`` the word ``eats`` is one, behind ``two`` the
word ``kites`` is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from vico_lens.vocabulary import lexicon as lex
from vico_lens.vocabulary.markup import without_markup
from vico_lens.vocabulary.words import Phrase, Role, lettered, words_of

__all__ = ["is_foreign", "read"]

Number = Literal["", "one", "many", "any"]
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
        return self.lower in lex.DETERMINERS or self.lower in lex.BREAKS or self.adverb

    @property
    def adverb(self) -> bool:
        ly = self.lower.endswith("ly") and len(self.lower) > 4 and self.lower not in lex.LY_NOUNS | lex.LY_ADJECTIVES
        return ly or self.lower in lex.ADVERBS

    @property
    def adjective(self) -> bool:
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
        return self.lower.endswith("ing") and len(self.lower) > 4

    @property
    def plural(self) -> bool:
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
        return self.lower in lex.VERBS or (self.s_form and not lex.stem_of_s(self.lower).isdisjoint(lex.VERBS))


def read(prompt: str) -> list[Phrase]:
    """Find the phrases of an English prompt in their order; none in a text of another language."""
    plain = without_markup(prompt)
    letters = lettered(plain)
    spans = sorted([*words_of(plain), *(match.span() for match in _EMOJI.finditer(plain))])
    words, last = [], 0
    for start, stop in spans:
        words.append(Word(prompt[start:stop], start, letters[:start] if last == 0 else letters[last - 1 : start]))
        last = stop
    return [] if is_foreign(words) else list(_Walk(prompt, words).phrases())


def is_foreign(words: Sequence[Word]) -> bool:
    """Whether a text is not English, by its letters and by the little words between the others."""
    letters = "".join(word.text for word in words if not _EMOJI.match(word.text))
    if letters and sum(_is_latin(letter) for letter in letters) * 2 < len(letters):
        return True
    other = sum(word.lower in lex.FOREIGN for word in words)
    english = sum(word.lower in lex.BREAKS or word.lower in lex.DETERMINERS for word in words)
    return other >= 2 and other > english


def _is_latin(letter: str) -> bool:
    return letter < "\u0370" or "\u1e00" <= letter < "\u1f00" or not letter.isalpha()


class _Walk:
    """The walk: where it is, and what it remembers."""

    def __init__(self, prompt: str, words: Sequence[Word]) -> None:
        self.prompt, self.words = prompt, words
        self.chunk: list[Word] = []
        self.number: Number = ""
        self.acting: Number = ""  # number of a subject that an adverb or "who" separates from its verb
        self.role: Role = "subject"
        self.several = False  # whether "and" joins the phrase to one before it
        self.verb_of: Number = ""  # number of the subject of the last verb, for one that "and" joins to it

    def phrases(self) -> Iterator[Phrase]:
        index = 0
        while index < len(self.words):
            word = self.words[index]
            if not word.attached:
                yield from self._flush(index)
                self.number, self.acting, self.verb_of, self.several = "", "", "", False
                self.role = "subject" if index == 0 or self._begins_clause(index) else "setting"
            if self._is_verb(index):
                acting = self.number if self.chunk else self.acting
                yield from self._flush(index, acts=True)
                last = self._end_of_motion(index)
                yield Phrase(self.prompt[word.start : self.words[last].stop], word.start, self.words[last].stop, "motion")
                index, self.role, self.acting, self.number = last, "object", "", ""
                self.verb_of, self.several = acting or "any", False
            elif word.closed:
                # "a red and white ball" is one thing: adjectives alone wait for their noun.
                if not (word.lower in {"and", "or"} and self._waits(index)):
                    yield from self._break(index)
            else:
                self.chunk.append(word)
                self.acting = ""
            index += 1
        yield from self._flush(index)

    def _next(self, index: int) -> Word | None:
        """The word behind, if no punctuation stands between."""
        following = self.words[index + 1] if index + 1 < len(self.words) else None
        return following if following is not None and following.attached else None

    def _begins_clause(self, index: int) -> bool:
        word = self.words[index].lower
        return word in lex.DETERMINERS or word in {"and", "while", "as", "then", "with"}

    def _waits(self, index: int) -> bool:
        """Whether adjectives before "and" belong to a noun behind it: "a red and white ball", not "an orange and a lemon"."""
        following = self.words[index + 1] if index + 1 < len(self.words) else None
        return _only_adjectives(self.chunk) and following is not None and not following.closed

    def _break(self, index: int) -> Iterator[Phrase]:
        """End the phrase at a closed-class word, and keep what the word says of the next one."""
        word = self.words[index]
        before, number = list(self.chunk), self.number
        found = list(self._flush(index))
        yield from found
        subject: Number = "many" if self.several or _is_plural(before, number) else number or "any"
        if word.lower in lex.RELATIVES and before:
            self.acting = subject
        elif word.adverb:
            if found:
                self.acting = subject
            return
        elif word.lower in lex.DETERMINERS:
            self.acting = ""
            self.number = (
                "one" if word.lower in lex.SINGULAR else "many" if word.lower in lex.PLURAL_DETERMINERS else self.number or "any"
            )
            return
        else:
            self.acting = ""
        self.number = ""
        if word.lower in {"and", "or"}:
            self.several = bool(found) and word.lower == "and"
            if not found:
                self.role = "subject" if self.verb_of == "" else self.role
            return
        self.several = False
        if word.lower in {"while", "whilst", "as", "when", "where", "but", "because", "then"} | lex.AUXILIARIES:
            self.role = "subject"
        elif word.lower in lex.PREPOSITIONS:
            self.role = "setting"

    def _is_verb(self, index: int) -> bool:
        """Whether the word at `index` is a verb, given the phrase before it."""
        word, following = self.words[index], self._next(index)
        before = self.words[index - 1].lower if index and word.attached else ""
        if word.closed or word.lower.endswith("'s"):
            return False
        ends = following is None or following.closed or following.lower in lex.PARTICLES
        determined = following is not None and following.lower in lex.DETERMINERS
        noun = self._has_noun(following is not None or index + 1 < len(self.words))
        passive = before in lex.AUXILIARIES or (before in {"being", "not"} and not self.chunk)
        if word.ing:
            return self._is_ing_verb(index, noun or bool(self.acting), passive, ends)
        if word.past and word.lower not in lex.ADJECTIVES:
            return ends and (noun or passive or not self.chunk) and not (not self.chunk and self.number)
        if not self.chunk:
            return self._is_verb_alone(word, before, index, ends=ends, determined=determined)
        if not noun or word.adjective:
            return False
        if word.s_form:
            return self._is_s_verb(word, ends=ends, determined=determined)
        return self._is_bare_verb(word, ends=ends, determined=determined, last=following is None)

    def _has_noun(self, more: bool) -> bool:
        if not self.chunk:
            return False
        last = self.chunk[-1]
        if not last.adjective and not (last.past and len(self.chunk) == 1):
            return True
        return more and last.lower in lex.NOUNS_TOO and (bool(self.number) or not _only_adjectives(self.chunk))

    def _is_ing_verb(self, index: int, noun: bool, passive: bool, ends: bool) -> bool:
        word, following = self.words[index].lower, self._next(index)
        if noun and following is not None and following.lower in lex.ING_HEADS:
            return False  # a hotel swimming pool
        if not (noun or passive or (not self.chunk and ends)):
            return False
        return word not in lex.ING_NOUNS or (noun and ends and not _last(self.words, index))

    def _is_verb_alone(self, word: Word, before: str, index: int, *, ends: bool, determined: bool) -> bool:
        """A word that no noun stands right before: behind an adverb, "who", "to", or "and" with a verb before it."""
        if self.number or word.adjective:
            return False
        if self.acting:
            if word.s_form:
                return self.acting != "many" and (word.known_verb or ends)
            return self.acting == "many" and (word.known_verb or ends) and not word.plural
        if before == "to" and word.lower in lex.VERBS and (determined or ends):
            earlier = self.words[index - 2].lower if index > 1 else ""
            return self.verb_of != "" or earlier not in {"next", "close", "from"}
        if before == "and" and self.verb_of:
            following = self._next(index)
            object_ = following is not None and (determined or following.adverb or following.lower in lex.PARTICLES)
            if word.s_form:
                return self.verb_of != "many" and word.known_verb and word.lower not in lex.NOUN_PLURALS and (object_ or ends)
            return self.verb_of == "many" and word.lower in lex.VERBS and object_
        return False

    def _is_s_verb(self, word: Word, *, ends: bool, determined: bool) -> bool:
        if self.number == "one":
            return not self.chunk[-1].s_form
        if _is_plural(self.chunk, self.number):
            return False
        if word.lower in lex.NOUN_PLURALS:
            return determined
        return word.known_verb or (determined and ends)

    def _is_bare_verb(self, word: Word, *, ends: bool, determined: bool, last: bool) -> bool:
        known = word.lower in lex.VERBS
        if determined and (known or _is_plural(self.chunk, self.number)):
            return True
        if self.several and known and ends:
            return True
        if self.number == "one" or (word.plural and word.lower not in lex.VERBS | {"fish"}):
            return False
        if not _is_plural(self.chunk, self.number) or word.text[:1].isupper():
            return known and ends and self.number not in ("one", "any") and not self.chunk[0].adjective
        if last:
            return known or self.number == "many"
        return known or ends

    def _end_of_motion(self, index: int) -> int:
        last = index
        while True:
            following = self._next(last)
            if following is None or following.lower not in lex.PARTICLES or not self._is_complement(last + 1):
                return last
            last += 1

    def _is_complement(self, index: int) -> bool:
        """Whether a direction word ends a motion ("moving right and"), and is not an adjective ("raising right hands")."""
        following = self._next(index)
        return self.words[index].lower in lex.BREAKS or following is None or following.closed

    def _flush(self, index: int, *, acts: bool = False) -> Iterator[Phrase]:
        """Trim the run of words to a noun phrase, if there is one in it, and forget them."""
        words, number, self.chunk = self.chunk, self.number, []
        following = self.words[index].lower if index < len(self.words) and self.words[index].attached else ""
        while words and words[-1].lower in lex.PARTICLES:  # "a square left of a circle"
            words.pop()
        while len(words) > 1 and words[0].lower in lex.SIZES:
            words.pop(0)
        while len(words) > 1 and words[-1].adjective and words[-1].lower not in lex.NOUNS_TOO and not _only_adjectives(words):
            words.pop()  # "a garden full of"
        if words and not _is_no_thing(words, number, following):
            role: Role = "subject" if acts and self.role != "setting" else self.role
            start, stop = words[0].start, words[-1].stop
            yield Phrase(self.prompt[start:stop], start, stop, role=role)


def _is_plural(chunk: Sequence[Word], number: Number) -> bool:
    if not chunk or number == "one":
        return False
    return chunk[-1].plural


def _only_adjectives(chunk: Sequence[Word]) -> bool:
    return bool(chunk) and all(word.adjective for word in chunk)


def _last(words: Sequence[Word], index: int) -> bool:
    """Whether a clause ends after the word at `index`."""
    return index + 1 == len(words) or not words[index + 1].attached or words[index + 1].lower in {"and", "or", "of", "is", "are"}


def _is_no_thing(words: Sequence[Word], number: Number, following: str) -> bool:
    """Whether a run of words names no thing of its own: adjectives alone, a place, a medium, a quality, a number of things."""
    head = words[-1].lower
    if _only_adjectives(words):
        return not (head in lex.NOUNS_TOO and number and len(words) < 3)
    if len(words) == 1 and words[0].past and head not in lex.PLURALS:
        return True
    rest: list[Callable[[str], bool]] = [lambda word: word in lex.PLACES or word in lex.ADJECTIVES]
    if head in lex.PLACES and all(rest[0](word.lower) or word.adjective for word in words):
        return True
    if head in lex.COLLECTIONS and following == "of":
        return True
    if head in lex.MEDIUM and following in {"of", "showing"}:
        return True
    return head in lex.QUALITIES
