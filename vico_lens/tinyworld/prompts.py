"""Prompts of the tiny world: a small grammar, its sampler and its parser.

    object   = "a" [size] colour shape
    prompt   = object motion ("and" object motion){0,2}  |  object relation object
    motion   = "moving" ("left" | "right" | "up" | "down")  |  "staying still"
    relation = "left of" | "above"                        (both objects stay still)

The objects of a prompt have different colours. One fifth of the unordered pairs of (colour, shape) never occur in training
(`is_held_out`), so that a test can ask for combinations that the model has not seen.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass

import numpy as np

from vico_lens.errors import InputError
from vico_lens.tinyworld.vocabulary import COLOURS, MOTIONS, RELATIONS, SHAPES, SIZES, WORDS

__all__ = ["TinyObject", "TinyPrompt", "is_held_out", "parse_prompt", "sample_prompts"]

MAX_OBJECTS = 3
_MISSES = 2000  # draws in a row without a new prompt, after which the sampler stops

_OBJECT = rf"a (?:(?P<size>{'|'.join(SIZES)}) )?(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
_MOVING = re.compile(rf"{_OBJECT} (?:moving (?P<motion>left|right|up|down)|staying (?P<still>still))")
_STILL = re.compile(_OBJECT)


@dataclass(frozen=True, slots=True)
class TinyObject:
    """One object that a prompt asks for; ``size=None`` leaves the size free.

    Examples
    --------
    >>> parse_prompt("a red circle moving right").objects[0]
    TinyObject(shape='circle', colour='red', motion='right', size=None)
    """

    shape: str
    colour: str
    motion: str = "still"
    size: str | None = None

    @property
    def concept(self) -> str:
        """The words that name it in a prompt, as `vico_lens.find_concepts` finds them ("red circle")."""
        return f"{self.colour} {self.shape}"

    @property
    def noun_phrase(self) -> str:
        """The words with article and size ("a small red circle")."""
        return " ".join(word for word in ("a", self.size, self.colour, self.shape) if word)


@dataclass(frozen=True, slots=True)
class TinyPrompt:
    """What a prompt asks for; ``str(prompt)`` is its text.

    Examples
    --------
    >>> prompt = TinyPrompt((TinyObject("circle", "red", "right"), TinyObject("square", "blue", "up")))
    >>> str(prompt)
    'a red circle moving right and a blue square moving up'
    >>> prompt.concepts
    ('red circle', 'blue square')
    >>> parse_prompt(str(prompt)) == prompt
    True
    """

    objects: tuple[TinyObject, ...]
    relation: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.objects) <= MAX_OBJECTS:
            raise InputError(f"a prompt holds one to {MAX_OBJECTS} objects, got {len(self.objects)}.")
        if len({item.colour for item in self.objects}) < len(self.objects):
            raise InputError(f"the objects of a prompt need different colours, got {[item.colour for item in self.objects]}.")
        if self.relation is not None and (len(self.objects) != 2 or any(item.motion != "still" for item in self.objects)):
            raise InputError(f"the relation {self.relation!r} needs exactly two objects that stay still.")

    def __str__(self) -> str:
        if self.relation is not None:
            return f"{self.objects[0].noun_phrase} {self.relation} {self.objects[1].noun_phrase}"
        return " and ".join(
            f"{item.noun_phrase} {'staying still' if item.motion == 'still' else f'moving {item.motion}'}"
            for item in self.objects
        )

    @property
    def concepts(self) -> tuple[str, ...]:
        """One concept name an object, in prompt order."""
        return tuple(item.concept for item in self.objects)


def parse_prompt(text: str) -> TinyPrompt:
    """Read a prompt back into objects.

    Raises
    ------
    InputError
        If `text` is empty, uses a word outside the tiny world, or does not follow its grammar.

    Examples
    --------
    >>> parse_prompt("a small white cross above a red square").relation
    'above'
    """
    clean = " ".join(text.split())
    if not clean:
        raise InputError("the prompt is empty: give one like 'a red circle moving right and a blue square moving up'.")
    unknown = [word for word in clean.split() if word not in WORDS]
    if unknown:
        raise InputError(
            f"the bundled model has never seen {', '.join(map(repr, dict.fromkeys(unknown)))}. "
            f"Its words are: {', '.join(sorted(WORDS))}."
        )
    for relation in RELATIONS:
        left, found, right = clean.partition(f" {relation} ")
        first, second = _STILL.fullmatch(left), _STILL.fullmatch(right)
        if found and first and second:
            return TinyPrompt(tuple(TinyObject(m["shape"], m["colour"], "still", m["size"]) for m in (first, second)), relation)
    matches = [_MOVING.fullmatch(part) for part in clean.split(" and ")]
    if not all(matches):
        raise InputError(
            f"{clean!r} is not a sentence of the tiny world: write 'a [small|large] COLOUR SHAPE moving DIRECTION' or "
            "'... staying still', joined by 'and', or 'a COLOUR SHAPE left of|above a COLOUR SHAPE'."
        )
    return TinyPrompt(tuple(TinyObject(m["shape"], m["colour"], m["motion"] or "still", m["size"]) for m in matches if m))


def is_held_out(first: TinyObject, second: TinyObject) -> bool:
    """Whether this unordered pair of (colour, shape) is kept out of training: a fixed fifth of all pairs, chosen by hash.

    Examples
    --------
    >>> first, second = TinyObject("circle", "red"), TinyObject("square", "blue")
    >>> is_held_out(first, second) == is_held_out(second, first)
    True
    """
    key = "|".join(sorted((first.concept, second.concept)))
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 5 == 0


def sample_prompts(
    count: int,
    *,
    objects: int = 2,
    seed: int = 0,
    relation: bool = False,
    held_out: bool | None = None,
    sizes: bool = True,
) -> list[TinyPrompt]:
    """Draw distinct prompts, every word equally likely.

    Parameters
    ----------
    count : int
        How many prompts.
    objects : int
        Objects a prompt, one to three.
    seed : int
        The same seed gives the same prompts.
    relation : bool
        Spatial relations between two still objects instead of motions.
    held_out : bool, optional
        Only pairs that training has not seen (``True``), only pairs that it may have seen (``False``), or both (``None``).
        A prompt of three counts as held out when any of its pairs is.
    sizes : bool
        Name a size for half of the objects. Three objects are never "large": they would not fit.

    Raises
    ------
    InputError
        If the request cannot be met (a relation between other than two objects, held-out pairs of one object).

    Examples
    --------
    >>> [str(p) for p in sample_prompts(2, objects=1, seed=3)] == [str(p) for p in sample_prompts(2, objects=1, seed=3)]
    True
    """
    if not 1 <= objects <= MAX_OBJECTS:
        raise InputError(f"objects must be 1, 2 or {MAX_OBJECTS}, got {objects}.")
    if relation and objects != 2:
        raise InputError(f"a relation holds between two objects, got objects={objects}.")
    if held_out and objects == 1:
        raise InputError("only pairs are held out: ask for two or three objects.")
    rng = np.random.default_rng([seed, objects, relation])
    chosen: dict[TinyPrompt, None] = {}
    misses = 0
    while len(chosen) < count:
        if misses > _MISSES:
            raise InputError(f"there are no {count} different prompts of this kind; the most found was {len(chosen)}.")
        colours = rng.choice(len(COLOURS), size=objects, replace=False)
        items = []
        for colour in colours:
            size = None
            if sizes and rng.random() < 0.5:
                size = SIZES[int(rng.integers(2))] if objects < 3 else "small"
            motion = "still" if relation else list(MOTIONS)[int(rng.integers(len(MOTIONS)))]
            items.append(TinyObject(SHAPES[int(rng.integers(len(SHAPES)))], list(COLOURS)[int(colour)], motion, size))
        pair_is_held_out = any(is_held_out(a, b) for a, b in itertools.combinations(items, 2))
        prompt = TinyPrompt(tuple(items), list(RELATIONS)[int(rng.integers(len(RELATIONS)))] if relation else None)
        if prompt in chosen or (held_out is not None and pair_is_held_out != held_out):
            misses += 1
            continue
        misses = 0
        chosen[prompt] = None
    return list(chosen)
