"""One fixed colour for each concept, in every figure, on a light and on a dark page.

The palette was chosen by a search that a test holds it to (``tests/plot/test_palette.py``): every colour has a contrast of at
least 3 with both papers, and any two, seen with normal vision, protanopia, deuteranopia or tritanopia, are at least 8 apart in
CIEDE2000; the first four at least 16. A concept that names a hue ("red circle") gets the nearest colour of the palette: to draw
"red circle" in blue beside "blue square" in red would confuse every reader. The others take the free colours in their order, so
the same list of concepts has the same colours everywhere; a figure of some of them should be given the mapping of all. Lines
carry their concept's name at their end besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from vico_lens.errors import InputError

__all__ = ["ACCENT", "GREY", "PALETTE", "alpha_scale", "concept_colours", "rgb", "rgba"]

PALETTE: dict[str, str] = {
    "blue": "#0E53F3",
    "vermillion": "#E41202",
    "green": "#069F67",
    "pink": "#C50C82",
    "orange": "#D58104",
    "sky": "#08798F",
    "violet": "#A681DC",
    "yellow": "#797120",
}
ACCENT = "#3D6A9E"  # what belongs to no concept: attention maps, losses, method comparisons
GREY = "#808994"  # neutral strokes and labels, legible on white (3.5 : 1) and on the dark page (5 : 1)

_HUES = {
    "blue": ("blue", "navy", "azure", "cobalt"),
    "vermillion": ("red", "scarlet", "crimson", "vermillion"),
    "green": ("green", "emerald", "lime", "olive"),
    "pink": ("pink", "magenta", "rose"),
    "orange": ("orange", "amber"),
    "sky": ("cyan", "teal", "turquoise", "aqua", "sky"),
    "violet": ("purple", "violet", "indigo"),
    "yellow": ("yellow", "gold", "golden"),
}
_HUE_OF_WORD = {word: hue for hue, words in _HUES.items() for word in words}


def concept_colours(names: Iterable[object], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give each concept its colour.

    Parameters
    ----------
    names : iterable
        Concept names in their order in the prompt; anything with a string form (coordinate values, `Concept.name`).
    given : mapping, optional
        Colours that are fixed already, as ``{name: "#rrggbb"}``; they are kept, whatever the palette would say.

    Returns
    -------
    dict
        ``{name: "#rrggbb"}`` in the order of `names`.

    Examples
    --------
    >>> concept_colours(["red circle", "blue square", "a cat"])
    {'red circle': '#E41202', 'blue square': '#0E53F3', 'a cat': '#069F67'}
    """
    ordered = list(dict.fromkeys(str(name) for name in names))
    colours = {name: given[name] for name in ordered if given and name in given}
    for name in ordered:  # hues first, so that "a cat" never takes the colour of "blue square" behind it
        hue = next((_HUE_OF_WORD[w] for w in re.findall(r"\w+", name.casefold()) if w in _HUE_OF_WORD), None)
        if name not in colours and hue is not None and PALETTE[hue] not in colours.values():
            colours[name] = PALETTE[hue]
    free = [colour for colour in PALETTE.values() if colour not in colours.values()]
    for name in ordered:
        if name not in colours:
            again, place = divmod(len(colours), len(PALETTE))
            colours[name] = free.pop(0) if free else _darker(list(PALETTE.values())[place], 0.62**again)
    return {name: colours[name] for name in ordered}


def rgb(colour: str) -> tuple[int, int, int]:
    """Split ``"#rrggbb"`` into its three values from 0 to 255.

    Raises
    ------
    InputError
        If `colour` is not of that form. Colours end up in style attributes of the report, so nothing else is let through.
    """
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        raise InputError(f"a colour must look like '#0072B2', got {colour!r}.")
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def rgba(colour: str, alpha: float) -> str:
    """Write `colour` with an opacity from 0 to 1, as CSS and plotly read it."""
    red, green, blue = rgb(colour)
    return f"rgba({red},{green},{blue},{alpha:.3g})"


def alpha_scale(colour: str, strength: float = 1.0) -> list[list[float | str]]:
    """Build a colour scale from fully transparent to `colour`.

    Zero shows the paper (or the video) behind it, so one scale serves light and dark pages and overlays alike.
    """
    stops: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)
    return [[stop, rgba(colour, strength * stop)] for stop in stops]


def _darker(colour: str, factor: float) -> str:
    return "#" + "".join(f"{round(factor * value):02X}" for value in rgb(colour))
