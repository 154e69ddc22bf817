"""HTML from Python values, escaped unless it was built here.

A report carries foreign text: prompts, file names, attributes of a trace somebody sent. So there is one way to make an
element, every plain string in it is escaped, and only what `el` itself returned passes as markup.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

__all__ = ["Markup", "el", "foreign", "join", "json_block"]

_VOID = {"br", "hr", "img", "meta", "input"}


class Markup(str):
    """Text that is HTML already. Made by the functions here only."""

    __slots__ = ()


def el(tag: str, *children: Any, **attributes: Any) -> Markup:
    """Build one element.

    Parameters
    ----------
    tag : str
        Element name.
    *children
        Strings and numbers are escaped, `Markup` is kept, None is left out, lists are flattened.
    **attributes
        ``class_`` writes ``class``, underscores become hyphens; True writes the bare name, None and False leave it out.

    Examples
    --------
    >>> el("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    >>> el("p", "<script>", title='"><script>')
    '<p title="&quot;&gt;&lt;script&gt;">&lt;script&gt;</p>'
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        written.append(f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"')
    opened = f"<{tag}{''.join(written)}>"
    return Markup(opened if tag in _VOID else f"{opened}{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Markup:
    """Join children as `el` does."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, list | tuple):
            parts.append(join(child))
        else:
            parts.append(html.escape(str(child), quote=True))
    return Markup("".join(parts))


def foreign(text: object, **attributes: Any) -> Markup:
    """Set foreign text apart: escaped, and with its own writing direction so that it cannot turn the sentence around it."""
    return el("bdi", str(text), **attributes)


def json_block(value: Any, name: str) -> Markup:
    r"""Put data into the page for its script: a JSON element in which no character can end the element or open another.

    Examples
    --------
    >>> json_block({"a": "</script>"}, "d")
    '<script type="application/json" id="d">{"a":"\\u003c/script\\u003e"}</script>'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{html.escape(name, quote=True)}">{text}</script>')
