"""The words of the tiny world and what each one looks like.

Everything downstream (renderer, judge, tokenizer, training data) reads these tables, so a word cannot mean two things. Lengths
are in pixels, speeds in pixels a frame, colours are linear RGB in 0..1.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

__all__ = [
    "BACKGROUND",
    "COLOURS",
    "FRAMES",
    "MOTIONS",
    "RADII",
    "RELATIONS",
    "SHAPES",
    "SIDE",
    "SIZES",
    "SIZE_BOUNDARY",
    "SPEED",
    "WORDS",
]

FRAMES: Final = 8
SIDE: Final = 32

BACKGROUND: Final = (0.08, 0.08, 0.10)
COLOURS: Final = MappingProxyType(
    {
        "red": (0.92, 0.16, 0.16),
        "blue": (0.20, 0.36, 0.96),
        "green": (0.15, 0.80, 0.25),
        "yellow": (0.96, 0.86, 0.15),
        "purple": (0.80, 0.22, 0.85),
        "white": (0.95, 0.95, 0.95),
    }
)
SHAPES: Final = ("circle", "square", "triangle", "cross")

# Unit steps in image coordinates: x grows to the right, y grows downwards.
MOTIONS: Final = MappingProxyType({"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)})
SPEED: Final = (1.1, 1.4)

# A size word fixes the radius band; without one either band may come.
RADII: Final = MappingProxyType({"small": (3.3, 3.7), "large": (4.9, 5.3)})
SIZES: Final = tuple(RADII)
SIZE_BOUNDARY: Final = 4.3

# "a red circle left of a blue square": first object relative to the second, both staying still.
RELATIONS: Final = MappingProxyType({"left of": (-1, 0), "above": (0, -1)})

WORDS: Final = frozenset(
    [
        "a",
        "and",
        "moving",
        "staying",
        *COLOURS,
        *SHAPES,
        *MOTIONS,
        *SIZES,
        *(word for relation in RELATIONS for word in relation.split()),
    ]
)
