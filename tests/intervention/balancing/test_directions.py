"""Where a prompt sends its concepts: read from the words, and silent where they say nothing."""

from __future__ import annotations

import pytest

from benchmarks.prompts import DIRECTIONS, direction_scores
from vico_lens.intervention.balancing.directions import Direction, direction_of_motion, directions_of
from vico_lens.tinyworld import sample_prompts
from vico_lens.vocabulary.concepts import Concept

UP, DOWN, LEFT, RIGHT, STILL = (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (0.0, 0.0)
MOTIONS = {"up": UP, "down": DOWN, "left": LEFT, "right": RIGHT, "still": STILL}


def concepts(prompt: str, *names: str) -> list[Concept]:
    found, begin = [], 0
    for name in names:
        begin = prompt.index(name, begin)
        found.append(Concept(name, (len(found),), (begin, begin + len(name))))
        begin += len(name)
    return found


@pytest.mark.parametrize("objects", [1, 2])
def test_every_prompt_of_the_tiny_world_is_understood(objects: int) -> None:
    for prompt in sample_prompts(100, objects=objects, seed=3):
        told = directions_of(str(prompt), concepts(str(prompt), *map(str, prompt.concepts)))
        assert told == tuple(MOTIONS[item.motion] for item in prompt.objects), str(prompt)


@pytest.mark.parametrize(
    ("prompt", "names", "expected"),
    [
        ("two birds flying left over a lake", ("birds", "lake"), (LEFT, None)),
        ("a balloon rising above a city", ("balloon", "city"), (UP, None)),
        ("leaves falling slowly", ("leaves",), (DOWN,)),
        ("a dog and a cat running up a hill", ("dog", "cat", "hill"), (UP, UP, None)),
        ("a crab DJing at a beach party", ("crab", "beach party"), (None, None)),
        ("a red ball beside a dog standing still", ("red ball", "dog"), (None, STILL)),
        ("a dog", ("dog",), (None,)),
    ],
)
def test_other_prompts(prompt: str, names: tuple[str, ...], expected: tuple[tuple[float, float] | None, ...]) -> None:
    assert directions_of(prompt, concepts(prompt, *names)) == expected


def test_the_last_direction_of_a_motion_counts() -> None:
    assert direction_of_motion("standing up") == UP
    assert direction_of_motion("") is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("rolls left to right", RIGHT),
        ("rolls right to left", LEFT),
        ("rolls from left to right", RIGHT),
        ("rolls from the right side to the left side of a table", LEFT),
        ("rolls to the left", LEFT),
        ("rolls towards the right", RIGHT),
        ("floats from the bottom to the top of the screen", UP),
        ("rolls left, then right", None),
        ("rolls left and right", None),
        ("rolls back and forth", None),
        ("rolls to the left of a cube", None),  # a place, not a way
        ("lies on the left", None),
        ("flies right over a roof", None),
        ("is not moving left", None),
    ],
)
def test_ways(words: str, expected: Direction | None) -> None:
    prompt = f"a ball {words}"
    assert directions_of(prompt, concepts(prompt, "ball")) == (expected,)
    # the same words behind another thing leave the first alone
    prompt = f"a lamp and a chair, a ball {words}"
    assert directions_of(prompt, concepts(prompt, "lamp", "chair", "ball")) == (None, None, expected)


@pytest.mark.parametrize(
    "words",
    [
        *(
            "slowing down",
            "speeding up",
            "waking up",
            "lights up",
            "setting up a tent",
            "lying down",
            "looking up",
            "picks up a cup",
        ),
        *("turns left", "facing right", "looks to the left", "falls asleep", "breaks down", "blowing up a balloon", "pulls up"),
    ],
)
def test_verbs_that_are_no_movement_steer_nothing(words: str) -> None:
    prompt = f"a robot {words}"
    assert directions_of(prompt, concepts(prompt, "robot")) == (None,)
    assert direction_of_motion(words) is None


def test_respectively() -> None:
    prompt = "a ball and a cube roll left and right respectively"
    assert directions_of(prompt, concepts(prompt, "ball", "cube")) == (LEFT, RIGHT)
    prompt = "a ball, a cube and a ring roll left and right respectively"  # who of three?
    assert directions_of(prompt, concepts(prompt, "ball", "cube", "ring")) == (None, None, None)


def test_what_is_moved_goes_and_who_throws_it_stays() -> None:
    prompt = "a girl throws a ball to the left and a man pushes a cart to the right"
    assert directions_of(prompt, concepts(prompt, "girl", "ball", "man", "cart")) == (None, LEFT, RIGHT, RIGHT)


def test_no_direction_of_the_own_prompts_is_opposite_and_few_are_missed() -> None:
    scores = direction_scores(DIRECTIONS)
    assert scores.wanted > 150 and len(DIRECTIONS) > 200
    assert scores.opposite == 0, scores.faults
    assert scores.false == 0, scores.faults
    assert scores.missed <= 0.05 * scores.wanted
