"""Rules that find noun phrases and motions, against readings by hand."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.errors import InputError
from vico_lens.tinyworld import sample_prompts
from vico_lens.vocabulary.phrases import find_phrases, lowered, phrases_of_document, spacy_phrases, words_of

# Nouns, then motions, as a person reads them.
READINGS = {
    "a red circle moving right and a blue square moving up": (["red circle", "blue square"], ["moving right", "moving up"]),
    "a crab DJing at a beach party during sunset, neon, futuristic": (["crab", "beach party", "sunset"], ["DJing"]),
    "a large red circle left of a small blue square": (["red circle", "blue square"], []),
    "A dog runs across the street while a cat sleeps on a sofa": (["dog", "street", "cat", "sofa"], ["runs", "sleeps"]),
    "a video of a red and blue ball bouncing on the floor": (["red and blue ball", "floor"], ["bouncing"]),
    "an astronaut riding a horse on mars": (["astronaut", "horse", "mars"], ["riding"]),
    "A woman wearing a red hat is walking": (["woman", "red hat"], ["wearing", "walking"]),
    "a man painting a wall": (["man", "wall"], ["painting"]),
    "a painting of a man": (["painting", "man"], []),
    "a bus in front of a red building": (["bus", "red building"], []),
    "the dog's ball rolls left": (["dog's ball"], ["rolls left"]),
    "a butterfly flies slowly over a lily": (["butterfly", "lily"], ["flies"]),
    "a person raising her right hand": (["person", "right hand"], ["raising"]),
    "a robot dressed in black": (["robot"], ["dressed"]),
    "Superman and Batman fight": (["Superman", "Batman"], ["fight"]),
    "a green triangle, a yellow star": (["green triangle", "yellow star"], []),
    "drone view of waves crashing against cliffs": (["waves", "cliffs"], ["crashing"]),
    "golden retriever puppies playing in the snow": (["golden retriever puppies", "snow"], ["playing"]),
    "a cat and a dog and a cat": (["cat", "dog", "cat"], []),
    "a running dog": (["running dog"], []),
}


@pytest.mark.parametrize("prompt", READINGS)
def test_reading(prompt: str) -> None:
    nouns, motions = READINGS[prompt]
    found = find_phrases(prompt, kinds=("noun", "motion"))
    assert [phrase.text for phrase in found if phrase.kind == "noun"] == nouns
    assert [phrase.text for phrase in found if phrase.kind == "motion"] == motions


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_every_tiny_world_prompt_is_read_as_its_concepts(objects: int) -> None:
    for prompt in sample_prompts(100, objects=objects, seed=1):
        assert tuple(phrase.text for phrase in find_phrases(str(prompt))) == prompt.concepts


@pytest.mark.parametrize("prompt", ["", "   ", "and of the", "red", "the left", "!?"])
def test_no_noun_no_phrase(prompt: str) -> None:
    assert find_phrases(prompt) == []


@pytest.mark.parametrize("kinds", [("verb",), (), ("noun", "adjective")])
def test_unknown_kind_is_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="noun, motion"):
        find_phrases("a cat", kinds=kinds)


WORDS = "a the red small circle dogs and or , . of left moving up is runs flying slowly that ball's two DJing é 猫 -"


@given(st.lists(st.sampled_from(WORDS.split()), max_size=14).map(" ".join) | st.text(max_size=60))
def test_phrases_are_ordered_spans_of_the_prompt_that_never_overlap(prompt: str) -> None:
    phrases = find_phrases(prompt, kinds=("noun", "motion"))
    for phrase in phrases:
        assert prompt[phrase.start : phrase.stop] == phrase.text == phrase.text.strip() != ""
    assert all(before.stop <= after.start for before, after in pairwise(phrases))
    borders = {edge for span in words_of(prompt) for edge in span}
    assert all({phrase.start, phrase.stop} <= borders for phrase in phrases if phrase.text.isalnum())  # an emoji is no word


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (
            "\u0932\u093e\u0932 \u0917\u0947\u0902\u0926 \u0939\u093f\u0928\u094d\u0926\u0940",
            None,
        ),  # Hindi: vowel signs, nasal, virama
        ("cafe\u0301-bar d'e\u0301te\u0301, jalapen\u0303o", ["cafe\u0301-bar", "d'e\u0301te\u0301", "jalapen\u0303o"]),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 x", None),  # Persian: a joiner without width
        ("\u2764\ufe0f red \u0301 cat", ["red", "cat"]),  # marks on no letter are no words
        ("\u0e44\u0e17\u0e22\u0e49\u0e33", None),
    ],
)
def test_marks_belong_to_the_letter_before_them(prompt: str, words: list[str] | None) -> None:
    assert [prompt[start:stop] for start, stop in words_of(prompt)] == (prompt.split() if words is None else words)


def test_a_mark_is_no_punctuation() -> None:
    composed, decomposed = "a caf\u00e9 table and a red cup", "a cafe\u0301 table and a red cup"
    found = [[phrase.text for phrase in find_phrases(prompt)] for prompt in (composed, decomposed)]
    assert found == [["caf\u00e9 table", "red cup"], ["cafe\u0301 table", "red cup"]]


@given(st.text(max_size=40))
def test_lower_case_knows_its_way_back(text: str) -> None:
    lower, places = lowered(text)
    assert lower == text.lower() and len(lower) == len(places) and places == sorted(places)
    assert all(lower[at] in text[place].lower() or text[place] == "\u03a3" for at, place in enumerate(places))


@dataclass
class Token:
    text: str
    idx: int
    pos_: str


@dataclass
class Document:
    text: str
    tokens: list[Token]
    chunks: list[tuple[int, int]]
    noun_chunks: list[list[Token]] = field(init=False)

    def __post_init__(self) -> None:
        self.noun_chunks = [self.tokens[start:stop] for start, stop in self.chunks]

    def __iter__(self) -> Any:
        return iter(self.tokens)


def test_spacy_document_loses_its_articles() -> None:
    parsed = Document(
        "A red crab DJing there",
        [
            Token("A", 0, "DET"),
            Token("red", 2, "ADJ"),
            Token("crab", 6, "NOUN"),
            Token("DJing", 11, "VERB"),
            Token("there", 17, "PRON"),
        ],
        [(0, 3), (4, 5)],
    )
    found = phrases_of_document(parsed, ("noun", "motion"))
    assert [(phrase.text, phrase.kind) for phrase in found] == [("red crab", "noun"), ("DJing", "motion")]


def test_missing_spacy_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(InputError, match=r"pip install 'vico-lens\[nlp\]'"):
        spacy_phrases("a cat")
