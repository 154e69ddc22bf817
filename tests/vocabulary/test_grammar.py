"""What people mean by a prompt: things as concepts, verbs as motions, and nothing else; read by hand, for prompts of our own."""

from __future__ import annotations

import pytest

from benchmarks.prompts import PHRASES, phrase_scores
from vico_lens.vocabulary.phrases import find_phrases, is_english

VERBS = {
    "a panda eats bamboo": ["panda", "bamboo"],
    "the panda eats bamboo": ["panda", "bamboo"],
    "a cow grazes": ["cow"],
    "a swan swims nearby": ["swan"],
    "cars collide at a crossing": ["cars", "crossing"],
    "a kite stuck in a tree": ["kite", "tree"],
    "a child pushes toy car": ["child", "toy car"],
    "a red sports car drives past": ["red sports car"],
    "Times Square at night": ["Times Square", "night"],
    "the artist's studio": ["artist's studio"],
    "a ferris wheel slowly rotates": ["ferris wheel"],
    "a herd of zebras drinks from a river": ["zebras", "river"],
    "a robot that paints walls": ["robot", "walls"],
    "a train stops, begins to move and leaves the station": ["train", "station"],
}
THINGS = {
    "a goldfish, a starfish and a jellyfish": ["goldfish", "starfish", "jellyfish"],
    "an octopus and an orange": ["octopus", "orange"],
    "a lemon, a rose and a violet": ["lemon", "rose", "violet"],
    "a red and white ball": ["red and white ball"],
    "a happy 🐱 chases a 🐭": ["happy 🐱", "🐭"],
    "house plants beside a man with weights": ["house plants", "man", "weights"],
    "a boy plays drums by ocean waves": ["boy", "drums", "ocean waves"],
    "two riders on the beach": ["riders", "beach"],
    "an elderly man with a friendly dog and curly hair": ["elderly man", "friendly dog", "curly hair"],
}
NO_THINGS = {
    "a bus in front of a tower": ["bus", "tower"],
    "a boat in the middle of a lake, birds in the background": ["boat", "lake", "birds"],
    "a group of riders and a pair of swans": ["riders", "swans"],
    "a cup on the left side and a plate on the right": ["cup", "plate"],
    "timelapse of a city": ["city"],
    "a girl dressed in red, surrounded by sheep": ["girl", "sheep"],
    "a dancer trying to spin": ["dancer"],
    "a girl running towards the camera": ["girl"],
    "the street is damp and dark": ["street"],
    "a big, red, shiny apple": ["shiny apple"],
    "a lamp, neon, futuristic, crab": ["lamp", "crab"],
    "generate a video of a tram": ["tram"],
}
MARKUP = {
    "(red car:1.3) beside a tree": ["red car", "tree"],
    "red car+++ beside a tree--": ["red car", "tree"],
    "red car BREAK blue truck": ["red car", "blue truck"],
    "<lora:film grain:0.8> a knight": ["knight"],
    "a cat::2 a dog::-0.5": ["cat", "dog"],
    "a man wins $10,000 at 3.5 seconds": ["man", "seconds"],
    "a dog vs. a cat": ["dog", "cat"],
    "[red|blue] lamp, {bench}, --ar 16:9 -v 6": ["lamp", "bench"],
}


@pytest.mark.parametrize(("prompt", "nouns"), [*VERBS.items(), *THINGS.items(), *NO_THINGS.items(), *MARKUP.items()])
def test_nouns(prompt: str, nouns: list[str]) -> None:
    assert [phrase.text for phrase in find_phrases(prompt)] == nouns


@pytest.mark.parametrize(
    ("prompt", "motions"),
    [
        ("a panda eats bamboo and a cow grazes", ["eats", "grazes"]),
        ("house plants, drums and ocean waves", []),
        ("six riders and heavy weights", []),
        ("two cats chase mice", ["chase"]),
        ("a man plants a tree, a girl waves her hand", ["plants", "waves"]),
    ],
)
def test_motions(prompt: str, motions: list[str]) -> None:
    assert [phrase.text for phrase in find_phrases(prompt, ("motion",))] == motions


@pytest.mark.parametrize(
    "prompt", ["a cat", "Las Vegas at night", "a café in Paris", "猫 and a dog", "die-cast car on the table"]
)
def test_english_with_foreign_words_is_english(prompt: str) -> None:
    assert is_english(prompt) and find_phrases(prompt)


def test_roles() -> None:
    found = find_phrases("a dog chases a cat in a garden, warm light")
    assert [(phrase.text, phrase.role) for phrase in found] == [
        *(("dog", "subject"), ("cat", "object"), ("garden", "setting"), ("warm light", "setting"))
    ]


def test_no_concept_of_the_own_prompts_is_missed_or_false() -> None:
    scores = phrase_scores(PHRASES)
    assert scores.wanted > 350
    assert scores.missed <= 0.01 * scores.wanted and scores.false <= 0.01 * scores.wanted
