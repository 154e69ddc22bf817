"""Where the words of a prompt send each concept: "a red circle moving right" sends the circle to the right of the picture."""

from __future__ import annotations

from collections.abc import Sequence

from vico_lens.vocabulary.concepts import Concept
from vico_lens.vocabulary.phrases import Phrase, find_phrases, words_of

__all__ = ["Direction", "direction_of_motion", "directions_of"]

Direction = tuple[float, float]
"""Rows down and columns to the right, of length 1; (0, 0) for a concept that is told to stay."""

_UP, _DOWN, _LEFT, _RIGHT, _STILL = (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (0.0, 0.0)
_DIRECTIONS: dict[str, Direction] = {
    **dict.fromkeys(("left", "leftward", "leftwards"), _LEFT),
    **dict.fromkeys(("right", "rightward", "rightwards"), _RIGHT),
    **dict.fromkeys(("up", "upward", "upwards", "rising", "rises", "climbing", "climbs", "ascending", "ascends"), _UP),
    **dict.fromkeys(("down", "downward", "downwards", "falling", "falls", "dropping", "drops", "descending", "descends"), _DOWN),
    **dict.fromkeys(("still", "standing", "stands", "staying", "stays", "sitting", "sits"), _STILL),
}


def direction_of_motion(motion: str) -> Direction | None:
    """Direction that a motion phrase names: of its last word that names one; None if none does.

    Examples
    --------
    >>> direction_of_motion("moving right"), direction_of_motion("falling"), direction_of_motion("dancing")
    ((0.0, 1.0), (1.0, 0.0), None)
    """
    named = [_DIRECTIONS.get(motion[start:stop].lower()) for start, stop in words_of(motion)]
    return next((direction for direction in reversed(named) if direction is not None), None)


def directions_of(prompt: str, concepts: Sequence[Concept]) -> tuple[Direction | None, ...]:
    """Direction of every concept: of the first motion after it that no other noun phrase stands between.

    Nouns joined by "and" share the motion that follows them ("a dog and a cat running left").

    Parameters
    ----------
    prompt : str
        English text.
    concepts : sequence of Concept
        Their `span` says where they stand in it.

    Returns
    -------
    tuple
        One entry a concept, None where the prompt names no direction for it.

    Examples
    --------
    >>> ball, cat = Concept("red ball", (2, 3), (2, 10)), Concept("cat", (7,), (28, 31))
    >>> directions_of("a red ball moving right and a cat asleep", [ball, cat])
    ((0.0, 1.0), None)
    """
    phrases = find_phrases(prompt, ("noun", "motion"))
    return tuple(_direction_after(prompt, phrases, concept.span) for concept in concepts)


def _direction_after(prompt: str, phrases: Sequence[Phrase], span: tuple[int, int]) -> Direction | None:
    end = span[1]
    for phrase in (phrase for phrase in phrases if phrase.start >= span[1]):
        if phrase.kind == "motion":
            return direction_of_motion(phrase.text)
        joined = [prompt[start + end : stop + end].lower() for start, stop in words_of(prompt[end : phrase.start])]
        if not joined or joined[0] != "and":
            return None
        end = phrase.stop
    return None
