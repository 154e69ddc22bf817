"""Where a prompt sends its concepts: read from the words, and silent where they say nothing."""

from __future__ import annotations

import pytest

from vico_lens.intervention.balancing.directions import direction_of_motion, directions_of
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
