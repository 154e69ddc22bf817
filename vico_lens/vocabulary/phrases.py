"""Noun phrases and motions of an English prompt, by rules: closed-class words end a phrase, runs of other words are one.

Prompts are short, mostly lower case and rarely sentences, which is where statistical taggers err most and where a list of
closed-class words errs little. The rules need no model and no download, and every decision can be read here. They are made for
English; a phrase they miss can always be named by hand, and ``find_concepts(..., method="spacy")`` asks spaCy instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from vico_lens.errors import InputError

__all__ = ["PHRASE_KINDS", "Phrase", "PhraseKind", "find_phrases", "lettered", "lowered", "spacy_phrases", "words_of"]

PhraseKind = Literal["noun", "motion"]
PHRASE_KINDS: tuple[PhraseKind, ...] = get_args(PhraseKind)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A span of the prompt: ``prompt[start:stop] == text``.

    Examples
    --------
    >>> Phrase("red circle", 2, 12).kind
    'noun'
    """

    text: str
    start: int
    stop: int
    kind: PhraseKind = "noun"


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SINGULAR = _set("a an one another each every this that")
_DETERMINERS = _SINGULAR | _set("""
    the these those some any no all both many several few two three four five six seven eight nine ten dozen dozens my your
    his her its our their what which whose other more most
""")
_PARTICLES = _set("""
    up down left right forward forwards backward backwards upward upwards downward downwards leftward leftwards rightward
    rightwards away apart around together sideways still back inward inwards outward outwards clockwise counterclockwise
""")
_BREAKS = _set("""
    and or but nor yet so as than then while when where who whom that which if because although though until unless in on at
    by for with from into onto to of off over under above below beneath behind beside besides between among across along
    through throughout during before after against toward towards near around about without within upon amid amidst past per
    via inside outside atop underneath like up down out away apart together forward backward is are was were be been being am
    has have had do does did can could will would shall should may might must not it he she they them him we you i me us there
    here very too also just only slowly quickly next
""")
_SIZES = _set("small large big tiny huge little giant")
_ADJECTIVES = _SIZES | _set("""
    red green blue yellow orange purple pink brown black white gray grey cyan magenta golden silver violet turquoise beige
    dark light bright pale colorful colourful old new young fast slow tall short long round shiny soft hard hot cold warm wet
    dry fluffy furry cute happy sad angry left right top bottom open closed empty full beautiful futuristic neon realistic
    cinematic
""")
_MEDIUM = _set("""
    video videos clip clips shot shots photo photograph footage scene scenes view views closeup close-up image picture
    animation film
""")
_ING_NOUNS = _set("""
    king ring wing thing string spring swing sling evening morning ceiling building painting drawing wedding clothing
    lightning anything something nothing everything sibling darling duckling gosling earring pudding railing crossing landing
""")
_ED_WORDS = _set("bed red shed sled seed weed reed breed steed speed tweed watershed")
_LY_NOUNS = _set("""
    butterfly dragonfly firefly family fly jelly lily belly bully rally ally assembly supply italy july
""")
_S_NOUNS = _set("""
    bus lens gas canvas series species iris cactus octopus walrus virus circus chess swiss paris compass atlas tennis
    christmas
""")
_VERBS = _set("""
    move run walk jump fly swim dance play sit stand drive ride fall rise spin roll rotate chase eat drink hold wear talk sing
    sleep wave climb slide float drift cross turn look smile kick throw catch hit bounce crawl race skate surf cook paint draw
    read write burn explode melt grow bloom shake swing push pull follow lie lean hover glide march gallop blow flow drip pour
    stay go come pass enter leave bark meow howl laugh cry hug kiss fight punch shoot wander stroll stare watch wait work
    travel
""")
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


def find_phrases(prompt: str, kinds: Collection[str] = ("noun",)) -> list[Phrase]:
    """Find noun phrases, and on request motions (verbs with their direction), in prompt order.

    Articles and sizes are left out of a noun phrase, colours and other adjectives belong to it. Words that only name the medium
    ("a video of ...") are not concepts.

    Parameters
    ----------
    prompt : str
        English text.
    kinds : collection of str
        Any of `PHRASE_KINDS`.

    Raises
    ------
    InputError
        If `kinds` holds anything else.

    Examples
    --------
    >>> [phrase.text for phrase in find_phrases("a red circle moving right and a blue square moving up")]
    ['red circle', 'blue square']
    >>> [phrase.text for phrase in find_phrases("a crab DJing at a beach party during sunset", kinds=("noun", "motion"))]
    ['crab', 'DJing', 'beach party', 'sunset']
    """
    unknown = [kind for kind in kinds if kind not in PHRASE_KINDS]
    if unknown or not kinds:
        raise InputError(f"kinds must be some of {', '.join(PHRASE_KINDS)}; got {list(kinds)!r}.")
    letters = lettered(prompt)
    words = [_Word(prompt[start:stop], start, letters[:start]) for start, stop in words_of(prompt)]
    return [phrase for phrase in _scan(prompt, words) if phrase.kind in kinds]


class _Word:
    """A word, what precedes it, and where it stands."""

    __slots__ = ("attached", "lower", "start", "stop", "text")

    def __init__(self, text: str, start: int, before: str) -> None:
        self.start, self.stop, self.text = start, start + len(text), text
        self.lower = text.lower()
        self.attached = not re.search(r"[^\w\s]", re.split(r"\w", before)[-1])  # no punctuation before it

    @property
    def closed(self) -> bool:
        adverb = self.lower.endswith("ly") and len(self.lower) > 4 and self.lower not in _LY_NOUNS
        return self.lower in _DETERMINERS or self.lower in _BREAKS or adverb

    @property
    def adjective(self) -> bool:
        return self.lower in _ADJECTIVES or (len(self.lower) > 5 and self.lower.endswith(("ful", "ous", "ish", "less")))


def _scan(prompt: str, words: Sequence[_Word]) -> Iterator[Phrase]:
    """Walk once over the words and cut them into phrases."""
    chunk: list[_Word] = []
    singular = False
    index = 0
    while index < len(words):
        word = words[index]
        if not word.attached and not _only_adjectives(chunk):
            yield from _noun(prompt, chunk, words[index:])
            chunk = []
        if _is_verb(words, index, chunk, singular):
            yield from _noun(prompt, chunk, words[index:])
            chunk = []
            last = index
            while (
                last + 1 < len(words)
                and words[last + 1].attached
                and words[last + 1].lower in _PARTICLES
                and _is_complement(words, last + 1)
            ):
                last += 1
            yield Phrase(prompt[word.start : words[last].stop], word.start, words[last].stop, "motion")
            index = last
        elif word.closed:
            # "a red and white ball" is one thing: adjectives alone wait for their noun.
            if not (word.lower in {"and", "or"} and _only_adjectives(chunk) and _noun_follows(words, index)):
                yield from _noun(prompt, chunk, words[index:])
                chunk = []
            singular = word.lower in _SINGULAR if word.lower in _DETERMINERS else False
        else:
            chunk.append(word)
        index += 1
    yield from _noun(prompt, chunk, [])


def _only_adjectives(chunk: Sequence[_Word]) -> bool:
    return bool(chunk) and all(word.adjective for word in chunk)


def _noun_follows(words: Sequence[_Word], index: int) -> bool:
    return index + 1 < len(words) and not words[index + 1].closed


def _is_complement(words: Sequence[_Word], index: int) -> bool:
    """Whether a direction word ends a motion ("moving right and"), and is not an adjective ("raising right hands")."""
    return words[index].lower in _BREAKS or index + 1 == len(words) or not words[index + 1].attached or words[index + 1].closed


def _is_verb(words: Sequence[_Word], index: int, chunk: Sequence[_Word], singular: bool) -> bool:
    """Whether the word at `index` is a verb, given the phrase before it."""
    word = words[index].lower
    if words[index].closed:
        return False
    has_noun = bool(chunk) and not chunk[-1].adjective
    follows_aux = index > 0 and words[index - 1].lower in {"is", "are", "was", "were", "be"}
    ends = (
        index + 1 == len(words)
        or not words[index + 1].attached
        or words[index + 1].closed
        or words[index + 1].lower in _PARTICLES
    )
    if word.endswith("ing") and len(word) > 4:
        return (has_noun or follows_aux or (not chunk and ends)) and (
            word not in _ING_NOUNS or (has_noun and ends and not _last(words, index))
        )
    if not has_noun or not ends:
        return False
    if word in _VERBS and not singular:
        return True
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and word not in _S_NOUNS:
        known = any(stem in _VERBS for stem in (word[:-1], word[:-2], f"{word[:-3]}y"))
        return known or (singular and not _last(words, index))
    return word.endswith("ed") and len(word) > 4 and word not in _ED_WORDS and not word.endswith("eed")


def _last(words: Sequence[_Word], index: int) -> bool:
    """Whether a clause ends after the word at `index`."""
    return index + 1 == len(words) or not words[index + 1].attached or words[index + 1].lower in {"and", "or", "of", "is", "are"}


def _noun(prompt: str, chunk: Sequence[_Word], rest: Sequence[_Word]) -> Iterator[Phrase]:
    """Trim a run of words to a noun phrase, if there is one in it."""
    words = list(chunk)
    while words and words[-1].lower in _PARTICLES:  # "a square left of a circle"
        words.pop()
    while len(words) > 1 and words[0].lower in _SIZES:
        words.pop(0)
    medium = len(words) > 0 and words[-1].lower in _MEDIUM and bool(rest) and rest[0].lower in {"of", "showing"}
    if words and not medium and not _only_adjectives(words):
        yield Phrase(prompt[words[0].start : words[-1].stop], words[0].start, words[-1].stop)


def spacy_phrases(prompt: str, kinds: Collection[str] = ("noun",), *, model: str = "en_core_web_sm") -> list[Phrase]:
    """Noun chunks without their articles, and verbs, as a spaCy pipeline finds them.

    Raises
    ------
    InputError
        If spaCy or its model is not installed; the message says how to install it.
    """
    try:
        import spacy
    except ImportError:
        raise InputError(
            "method='spacy' needs spaCy, which is not installed: pip install 'vico-lens[nlp]', or use method='rules'."
        ) from None
    try:
        document = spacy.load(model)(prompt)
    except OSError:
        raise InputError(
            f"method='spacy' needs the model {model!r}: python -m spacy download {model}, or use method='rules'."
        ) from None
    return phrases_of_document(document, kinds)


def phrases_of_document(document: object, kinds: Collection[str] = ("noun",)) -> list[Phrase]:
    """Phrases of a parsed spaCy ``Doc``."""
    found: list[Phrase] = []
    if "noun" in kinds:
        for chunk in document.noun_chunks:  # type: ignore[attr-defined]
            tokens = [token for token in chunk if token.pos_ not in {"DET", "PRON", "PUNCT", "SPACE"}]
            if tokens:
                start, stop = tokens[0].idx, tokens[-1].idx + len(tokens[-1].text)
                found.append(Phrase(document.text[start:stop], start, stop))  # type: ignore[attr-defined]
    if "motion" in kinds:
        found += [
            Phrase(token.text, token.idx, token.idx + len(token.text), "motion")
            for token in document  # type: ignore[attr-defined]
            if token.pos_ == "VERB"
        ]
    return sorted(found, key=lambda phrase: phrase.start)
