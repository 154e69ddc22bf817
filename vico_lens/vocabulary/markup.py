"""Syntax that people type into prompts for other programs: weights, adapters, breaks, flags. It names nothing in the video.

Every mark is replaced by as many blanks or stops, so that places in the text stay what they were.
"""

from __future__ import annotations

import re

__all__ = ["without_markup"]

_STOPS = re.compile(
    r"<(?:lora|lyco|hypernet|embedding|wildcard)\b[^<>]*>"  # <lora:name:0.8>
    r"|\bhttps?://\S+"
    r"|(?<!\S)--?[a-z]\w*(?:\s+\d[\d.:]*)?(?!\S)"  # --ar 16:9, -v 6
    r"|\bBREAK\b"
)
_BLANKS = re.compile(
    r"::?\s*-?\d*\.?\d+(?=[\s)\]},;|.]|$)"  # (red car:1.3), cat::2
    r"|(?<=\w)[+]{1,}(?!\w)|(?<=\w)-{2,}(?!\w)"  # word+++, word--
    r"|[$€£¥]\s?\d[\d.,]*(?:[kKmM]\b)?"  # $10,000
    r"|(?<![\w'’-])\d+(?:[.,:/]\d+)*(?![\w'’-])"  # numbers
)


_WEIGHTED = re.compile(r"\(([^()]*)(:\s*-?\d*\.?\d+\s*\))")


def without_markup(prompt: str) -> str:
    """Return `prompt` with stops in the place of what ends a phrase, and blanks in that of other markup, of equal length.

    >>> without_markup("a (red car:1.3) BREAK dog+++")
    'a  red car      ;;;;; dog   '
    """
    prompt = _WEIGHTED.sub(lambda match: f" {match[1]}{' ' * len(match[2])}", prompt)
    prompt = _STOPS.sub(lambda match: ";" * len(match[0]), prompt)
    return _BLANKS.sub(lambda match: " " * len(match[0]), prompt)
