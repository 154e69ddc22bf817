"""Directions that words name: "to the left", "from left to right", "upwards", and what contradicts itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["NAMED", "Direction", "direction_of_path", "directions_in"]

Direction = tuple[float, float]
"""Rows down and columns to the right, of length 1; (0, 0) for a concept that is told to stay."""

_UP, _DOWN, _LEFT, _RIGHT = (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)
NAMED: dict[str, Direction] = {"left": _LEFT, "right": _RIGHT, "top": _UP, "up": _UP, "bottom": _DOWN, "down": _DOWN}
"""What single words of direction mean."""
_SIDE = r"(?:the\s+)?(?:far\s+)?(left|right|top|bottom)(?:[\s-]+hand)?(?:\s+(?:side|edge|end|border|half|corner))?"
_OF = r"(?:\s+of\s+(?:the|a|an)\s+\w+)?"
_PATH = re.compile(rf"\b(?:from\s+)?{_SIDE}{_OF}[\s-]+(?:over\s+)?(?:to|towards?|into)[\s-]+{_SIDE}\b")
_TO = re.compile(
    r"\b(?:to|towards?|into)\s+(?:the|its|his|her|their)\s+(?:far\s+)?(left|right|top|bottom)\b"
    r"(?:[\s-]hand)?(\s+(?:side|edge|end|border|half))?(?!\s+(?:corner|wall|lane|door))(\s+of\b)?(?!\s+hand)"
)
_IN = re.compile(r"\bin\s+(?:the|a)\s+(left|right|up|down)(?:ward)?s?\s+direction\b")
_WARDS = re.compile(r"\b(left|right|up|down)[\s-]?wards?\b")
_SKY = re.compile(r"\b(?:up\s+)?(?:in)?to(?:ward)?s?\s+the\s+(?:sky|air|clouds|ceiling)\b")
_ADVERB = r"(?:\w+ly|straight|hard|fast|further|farther|all the way|first)"
_BARE = re.compile(r"(?<![\w-])(left|right)\b(?![\w'-])")
_VERTICAL = re.compile(rf"^\s*(?:{_ADVERB}\s+)*(up|down)\b|(?<=\s)(up|down)(?=\s*(?:$|[,.;]|and\b|then\b))")
_NO_WAY = re.compile(
    r"\s+(?:of|now|there|here|away|next|before|behind|beside|after|above|below|under|over|past|into|through|by|at|beneath|between)\b"
    r"|\s+(?:in\s+(?:front|the\s+(?:middle|cent(?:er|re)))|on\s+top)\b"
)
_GOES_ON = re.compile(
    r"\s*(?:$|[,.;:!?)]|(?:and|or|then|while|across|towards?|along|in|on|on|from|respectively|as|with|for|to|until|during|around|when"
    r"|again|slowly|quickly|\w+ly)\b)"
)


def directions_in(text: str) -> list[Direction]:
    """Every direction that a text names, in order.

    >>> directions_in("rolls left, then right"), directions_in("from left to right")
    ([(0.0, -1.0), (0.0, 1.0)], [(0.0, 1.0)])
    """
    return [direction for _, direction in sorted(_found(text.lower(), particle=True))]


def direction_of_path(text: str, *, particle: bool) -> Direction | None:
    """The one direction that a text behind a verb names; None for none, and for several that differ.

    Parameters
    ----------
    text : str
        What stands behind the verb.
    particle : bool
        Whether single words count ("left", "up"), as behind a verb of movement; whole paths always do.
    """
    text = text.lower()
    if re.search(r"\b(?:and back|back again|back and forth|up and down|opposite directions?)\b", text):
        return None
    found = {direction for _, direction in _found(text, particle=particle)}
    return found.pop() if len(found) == 1 else None


def _found(text: str, *, particle: bool) -> Iterator[tuple[int, Direction]]:
    taken = text
    for match in _PATH.finditer(text):
        taken = _blanked(taken, match)
        first, last = NAMED[match[1]], NAMED[match[2]]
        if (first[0] == 0) == (last[0] == 0) and first != last:
            yield match.start(), last
    for pattern in (_WARDS, _IN):
        for match in pattern.finditer(taken):
            taken = _blanked(taken, match)
            yield match.start(), NAMED[match[1]]
    for match in _TO.finditer(taken):
        taken = _blanked(taken, match)
        if match[2] or not match[3] or match[1] in ("top", "bottom"):  # "to the left of the tree" is a place
            yield match.start(), NAMED[match[1]]
    if not particle:
        return
    for match in _SKY.finditer(taken):
        taken = _blanked(taken, match)
        yield match.start(), _UP
    for match in _BARE.finditer(taken):
        before, after = taken[: match.start()], taken[match.end() :]
        place = re.search(r"\b(?:on|at|in|the|its|his|her|their|from|of)\s*$", before)
        if place or re.match(r"\s+(?:of|behind|alone)\b", after) or (match[1] == "right" and _NO_WAY.match(after)):
            continue
        if match[1] == "left" or _GOES_ON.match(after):
            yield match.start(), NAMED[match[1]]
    for match in _VERTICAL.finditer(taken):
        yield match.start(), NAMED[match[1] or match[2]]


def _blanked(text: str, match: re.Match[str]) -> str:
    return text[: match.start()] + " " * (match.end() - match.start()) + text[match.end() :]
