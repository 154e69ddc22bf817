"""The words and numbers inside figures: findings as titles, percentages, escaped names.

Plotly reads a few HTML tags in every text it draws, and a prompt is foreign text: whatever came from a prompt passes
through `plain`.
"""

from __future__ import annotations

import html
import math
import textwrap

__all__ = ["join", "level", "number", "overlap", "percent", "percent_range", "plain", "quoted", "wrapped"]

_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"


def plain(text: object) -> str:
    """Escape foreign text for a plotly label: tags become visible characters, line breaks become blanks.

    Examples
    --------
    >>> plain("<b>cat</b>")
    '&lt;b&gt;cat&lt;/b&gt;'
    """
    return html.escape(" ".join(str(text).split()), quote=False)


def quoted(name: object) -> str:
    """Quote a concept's name; the isolate marks keep a right-to-left name from turning the sentence round."""
    return f"“{_FIRST_STRONG_ISOLATE}{plain(name)}{_POP_ISOLATE}”"


def percent(share: float, digits: int = 0) -> str:
    """Write a share from 0 to 1 as a percentage with a no-break space.

    Examples
    --------
    >>> percent(0.714).replace(chr(160), " ")
    '71 %'
    """
    if not math.isfinite(share):
        return "n/a"
    return f"{100 * share:.{digits}f}\u00a0%"


def percent_range(low: float, high: float) -> str:
    """Write an interval of shares: ``"64 to 77 %"`` with no-break spaces."""
    return f"{100 * low:.0f}\u00a0to\u00a0{100 * high:.0f}\u00a0%"


def number(value: float) -> str:
    """Write a number with three significant digits, without an exponent where that can be read.

    Examples
    --------
    >>> number(0.012345), number(12345.6), number(3.2e-9), number(2)
    ('0.0123', '12,346', '3.2e-09', '2')
    """
    if not math.isfinite(value):
        return "n/a"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def join(names: list[str]) -> str:
    """Join words as a sentence does.

    Examples
    --------
    >>> join(["a", "b", "c"])
    'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def level(first: float, second: float) -> bool:
    """Whether two shares read the same, as whole percentages: a title may then call neither the larger one.

    Examples
    --------
    >>> level(0.501, 0.499), level(0.51, 0.49)
    (True, False)
    """
    return round(100 * first) == round(100 * second) or abs(first - second) < 0.005


def overlap(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two intervals overlap, or one of them is not known: a title may then claim no difference.

    Examples
    --------
    >>> overlap((0.4, 0.6), (0.55, 0.8)), overlap((0.1, 0.2), (0.3, 0.4))
    (True, False)
    """
    if not all(map(math.isfinite, (*first, *second))):
        return True
    return first[0] <= second[1] and second[0] <= first[1]


def wrapped(text: str, width: int) -> list[str]:
    """Break a sentence into lines; plotly does not wrap titles by itself, it cuts them off."""
    return textwrap.wrap(text, width, break_long_words=True, break_on_hyphens=False) or [""]
