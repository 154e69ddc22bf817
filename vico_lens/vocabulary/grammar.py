"""One walk over the words of a prompt that cuts them into noun phrases and motions.

At every word the walk knows the words of the phrase so far, whether a determiner made it singular or plural, and what stood
before it. A word is a verb by its place more than by its form: behind ``a panda`` the word ``eats`` is one, behind ``two`` the
word ``kites`` is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from vico_lens.vocabulary import lexicon as lex
from vico_lens.vocabulary.word_classes import Word, is_foreign, read_words
from vico_lens.vocabulary.words import Phrase, Role

__all__ = ["read"]

Number = Literal["", "one", "many", "any"]


def read(prompt: str) -> list[Phrase]:
    """Find the phrases of an English prompt in their order; none in a text of another language."""
    words = read_words(prompt)
    return [] if is_foreign(words) else list(_Walk(prompt, words).phrases())


class _Walk:
    """The walk: where it is, and what it remembers."""

    def __init__(self, prompt: str, words: Sequence[Word]) -> None:
        self.prompt, self.words = prompt, words
        self.chunk: list[Word] = []
        self.number: Number = ""
        self.acting: Number = ""  # number of a subject that an adverb or "who" separates from its verb
        self.role: Role = "subject"
        self.joined = False  # whether "and" stands before
        self.several = False  # whether "and" joins the phrase to one before it
        self.verb_of: Number = ""  # number of the subject of the last verb, for one that "and" joins to it
        self.acted = False  # whether there was a verb before
        self.told = False  # whether "is" stands before: "is damp and dark" names nothing
        self.collective = False  # whether "a herd of" stands before

    def phrases(self) -> Iterator[Phrase]:
        index = 0
        while index < len(self.words):
            word = self.words[index]
            if not word.attached:
                yield from self._flush(index)
                self.number, self.acting, self.verb_of, self.several, self.told = "", "", "", False, False
                self.role = "subject" if self._begins_sentence(index) else "object" if self._begins_clause(index) else "setting"
            if self._is_verb(index):
                many = self.several or _is_plural(self.chunk, self.number)
                acting = self.acting if not self.chunk else "many" if many else self.number
                yield from self._flush(index, acts=True)
                last = self._end_of_motion(index)
                yield Phrase(self.prompt[word.start : self.words[last].stop], word.start, self.words[last].stop, "motion")
                index, self.role, self.acting, self.number = last, "object", "", ""
                self.verb_of, self.several, self.acted, self.told = acting or "any", False, True, False
            elif word.closed or self._is_request(index):
                # "a red and white ball" is one thing: adjectives alone wait for their noun.
                if not (word.lower in {"and", "or"} and self._waits(index)):
                    yield from self._break(index)
            else:
                self.chunk.append(word)
                self.acting = ""
            index += 1
        yield from self._flush(index)

    def _is_request(self, index: int) -> bool:
        """Whether the word asks the model for a video: "generate a ..."."""
        begins = index == 0 or (index == 1 and self.words[0].lower == "please")
        following = self._next(index)
        return (
            begins
            and self.words[index].lower in lex.REQUESTS
            and following is not None
            and (following.lower in lex.DETERMINERS or following.lower in {"me", "us"})
        )

    def _next(self, index: int) -> Word | None:
        """The word behind, if no punctuation stands between."""
        following = self.words[index + 1] if index + 1 < len(self.words) else None
        return following if following is not None and following.attached else None

    def _begins_sentence(self, index: int) -> bool:
        between = self.prompt[self.words[index - 1].stop : self.words[index].start] if index else "."
        return not set(between).isdisjoint(".!?;\n")

    def _begins_clause(self, index: int) -> bool:
        word = self.words[index].lower
        return word in lex.DETERMINERS or word in {"and", "while", "as", "then", "with"}

    def _waits(self, index: int) -> bool:
        """Whether adjectives before "and" belong to a noun behind it: "a red and white ball", not "an orange and a lemon"."""
        following = self.words[index + 1] if index + 1 < len(self.words) else None
        if following is None or following.closed or not _only_adjectives(self.chunk):
            return False
        behind = self._next(index + 1)
        acts = self.acted and following.lower in lex.VERBS and (behind is None or behind.closed)  # "turn brown and fall"
        return not acts

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
                self.acting, self.number = subject, ""
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
        self.joined = word.lower == "and"
        if word.lower in {"and", "or"}:
            self.several = bool(found) and word.lower == "and"
            if not found:
                self.role = "subject" if self.verb_of == "" else self.role
            return
        self.several = False
        if word.lower in {"while", "whilst", "as", "when", "where", "but", "because", "then"} | lex.AUXILIARIES:
            self.role = "subject"
        if word.lower in lex.COPULAS:
            self.told = index == 0 or self.words[index - 1].lower != "there"
        elif word.lower not in {"and", "or", "not"} and not word.adverb:
            self.told = False
        if word.lower in lex.PREPOSITIONS:
            self.role = "setting"

    def _is_verb(self, index: int) -> bool:
        """Whether the word at `index` is a verb, given the phrase before it."""
        word, following = self.words[index], self._next(index)
        before = self.words[index - 1].lower if index and word.attached else ""
        medium = word.lower in lex.MEDIUM and following is not None and following.lower in lex.MEDIUM_LINKS  # "a wide shot of"
        if word.closed or medium or word.lower.endswith("'s"):
            return False
        ends = following is None or following.closed or following.lower in lex.PARTICLES | lex.MANNERS
        determined = following is not None and following.lower in lex.DETERMINERS
        noun = self._has_noun(following is not None or index + 1 < len(self.words))
        passive = before in lex.AUXILIARIES | lex.COPULAS or (before in {"being", "not"} and not self.chunk)
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
        if self.number == "any" and more and all(word.lower in lex.PLACES for word in self.chunk):
            return True  # "a car on the left moves"
        if not last.adjective and not (last.past and len(self.chunk) == 1):
            return True
        return more and last.lower in lex.NOUNS_TOO and (bool(self.number) or not _only_adjectives(self.chunk))

    def _is_ing_verb(self, index: int, noun: bool, passive: bool, ends: bool) -> bool:
        word, following = self.words[index].lower, self._next(index)
        if noun and following is not None and following.lower in lex.ING_HEADS:
            return False  # a hotel swimming pool
        clause = not self.words[index].attached and self.acted and word not in lex.ING_ADJECTIVES  # ", passing a tree"
        if not (noun or passive or clause or (not self.chunk and ends)):
            return False
        several = bool(self.chunk) and self.chunk[-1].plural
        return word not in lex.ING_NOUNS or (noun and (ends or several) and not _last(self.words, index))

    def _is_verb_alone(self, word: Word, before: str, index: int, *, ends: bool, determined: bool) -> bool:
        """A word that no noun stands right before: behind an adverb, "who", "to", or "and" with a verb before it."""
        if self.number or word.adjective:
            return False
        if before in lex.PRONOUNS:
            return True
        if determined and self.acted and word.known_verb and word.lower not in lex.NOUN_PLURALS:
            behind_motion = before in lex.PARTICLES  # "who walks right carries a ..."
            if not word.attached or (behind_motion and word.s_form):
                return True
        if not word.attached and word.s_form and word.known_verb and word.lower not in lex.NOUN_PLURALS:
            following = self._next(index)  # ", begins to"
            return index > 0 and (determined or (following is not None and following.lower == "to"))
        if self.acting:
            if word.s_form:
                return word.known_verb or (ends and self.acting != "many")
            return self.acting == "many" and (word.known_verb or ends) and not word.plural
        if before == "to" and word.lower in lex.VERBS and (determined or ends):
            earlier = self.words[index - 2].lower if index > 1 else ""
            return self.verb_of != "" or earlier not in {"next", "close", "from"}
        if before == "and" and (self.verb_of or (self.acted and determined)):
            following = self._next(index)
            object_ = following is not None and (determined or following.adverb or following.lower in lex.PARTICLES)
            verb_only = word.lower not in lex.NOUN_PLURALS
            if word.s_form:
                return self.verb_of != "many" and word.known_verb and (determined or (verb_only and (object_ or ends)))
            return self.verb_of == "many" and word.lower in lex.VERBS and (object_ or ends)
        return False

    def _is_s_verb(self, word: Word, *, ends: bool, determined: bool) -> bool:
        if self.number == "one":
            return not self.chunk[-1].s_form
        if _is_plural(self.chunk, self.number):
            return (word.known_verb or determined) if self.collective else word.known_verb and word.lower not in lex.NOUN_PLURALS
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
        return known or ends or self.number == "many"

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
        if self.words[index].lower in lex.BREAKS or following is None or following.closed:
            return True
        return following.s_form and following.known_verb and following.lower not in lex.NOUN_PLURALS  # "who walks right carries"

    def _flush(self, index: int, *, acts: bool = False) -> Iterator[Phrase]:
        """Trim the run of words to a noun phrase, if there is one in it, and forget them."""
        words, number, self.chunk = self.chunk, self.number, []
        following = self.words[index].lower if index < len(self.words) and self.words[index].attached else ""
        while words and words[-1].lower in lex.PARTICLES:  # "a square left of a circle"
            words.pop()
        while len(words) > 1 and words[0].lower in lex.SIZES:
            words.pop(0)
        things = [word for word in words if not (word.adjective or word.ing or word.past)]
        while things and words[-1].adjective and words[-1].lower not in lex.NOUNS_TOO:
            words.pop()  # "a garden full of"
        if self.told and not number:
            words = []
        if words:
            self.collective = words[-1].lower in lex.COLLECTIONS and following == "of"
        if words and not _is_no_thing(words, number, following) and not self._is_camera(words, number):
            role: Role = "subject" if acts and (self.role != "setting" or self.joined) else self.role
            start, stop = words[0].start, words[-1].stop
            for before, after in pairwise(words):  # "(red:1.2) car" is named by what stands behind the markup
                start = after.start if set(self.prompt[before.stop : after.start]) & set("():+[]{}<>") else start
            yield Phrase(self.prompt[start:stop], start, stop, role=role)

    def _is_camera(self, words: Sequence[Word], number: Number) -> bool:
        """Whether it names the picture's edge or its viewer: "across the screen", "towards the camera"."""
        head = words[0].lower
        return number == "any" and len(words) == 1 and head in lex.CAMERA and (self.role == "setting" or head == "camera")


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
        return not ((head in lex.NOUNS_TOO and number and len(words) < 3) or (head == "light" and len(words) > 1))
    if len(words) == 1 and words[0].past and head not in lex.PLURALS:
        return True
    if head in lex.PLACES and all(word.lower in lex.PLACES or word.adjective for word in words):
        return True
    if head in lex.COLLECTIONS and following == "of":
        return True
    if head in lex.MEDIUM and following in lex.MEDIUM_LINKS:
        return True
    return head in lex.QUALITIES
