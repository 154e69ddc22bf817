"""Noun phrases and motions of an English prompt, by rules: closed-class words end a phrase, runs of other words are one.

Prompts are short, mostly lower case and rarely sentences, which is where statistical taggers err most and where a list of
closed-class words errs little. The rules need no model and no download, and every decision can be read in
`vico_lens.vocabulary.grammar` and `vico_lens.vocabulary.lexicon`. They are made for English; a phrase they miss can always be
named by hand, and ``find_concepts(..., method="spacy")`` asks spaCy instead.
"""

from __future__ import annotations

from collections.abc import Collection

from vico_lens.errors import InputError
from vico_lens.vocabulary.grammar import read
from vico_lens.vocabulary.word_classes import is_foreign, read_words
from vico_lens.vocabulary.words import PHRASE_KINDS, Phrase, PhraseKind, Role, lettered, lowered, words_of

__all__ = [
    "PHRASE_KINDS",
    "Phrase",
    "PhraseKind",
    "Role",
    "find_phrases",
    "is_english",
    "lettered",
    "lowered",
    "phrases_of_document",
    "spacy_phrases",
    "words_of",
]


def find_phrases(prompt: str, kinds: Collection[str] = ("noun",)) -> list[Phrase]:
    """Find noun phrases, and on request motions (verbs with their direction), in prompt order.

    Articles, numbers and sizes are left out of a noun phrase, colours and other adjectives belong to it. Left out are also words
    that only name the medium ("a video of ..."), a place in the picture ("in the background"), a number of things ("a group of
    ...") or a quality ("high resolution"), and the markup of other programs (``(word:1.3)``, ``BREAK``).

    Parameters
    ----------
    prompt : str
        English text; of a text in another language nothing is found.
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
    return [phrase for phrase in read(prompt) if phrase.kind in kinds]


def is_english(prompt: str) -> bool:
    """Whether the rules take `prompt` for English: by its letters, and by the little words between the others.

    >>> is_english("a cat on a mat"), is_english("eine Katze auf dem Dach"), is_english("一只猫")
    (True, False, False)
    """
    return not is_foreign(read_words(prompt))


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
