"""What a verb prints: text in aligned columns for people, or exactly one JSON document for programs."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["accept_any_text", "columns", "decoded", "emit", "note", "plain", "size", "to_json"]


def emit(data: object, text: str, *, as_json: bool) -> None:
    """Print `data` as JSON or `text` as it is, on standard output. Everything else that a verb says goes to standard error."""
    print(to_json(data) if as_json else text)


def accept_any_text() -> None:
    """Write characters that a pipe or console cannot show (cp1252 has no arrows) as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def note(message: str) -> None:
    """Tell the person who waits what is going on, on standard error."""
    print(message, file=sys.stderr, flush=True)


def plain(value: Any) -> Any:
    """Return `value` with numpy scalars and arrays, paths, tuples and datasets as plain JSON values; NaN and infinity become
    None.

    >>> plain({"a": np.float32(0.5), "b": (None, float("nan"))})
    {'a': 0.5, 'b': [None, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def decoded(value: Any) -> Any:
    """Return a value of a trace's attributes; nested ones are kept as JSON text in the store.

    >>> decoded('{"torch": "2.13"}'), decoded("a red circle")
    ({'torch': '2.13'}, 'a red circle')
    """
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def to_json(data: object) -> str:
    """Return one JSON document; readable where the output is UTF-8, in ASCII where it is not."""
    unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
    return json.dumps(plain(data), indent=2, ensure_ascii=not unicode, allow_nan=False)


def columns(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Lay rows out under headers, in columns as wide as their widest cell; numbers to the right.

    >>> print(columns([["a", 1], ["bb", 10]], ["name", "n"]))
    name   n
    a      1
    bb    10
    """
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[index]) for line in [list(headers), *texts]) for index in range(len(headers))]
    right = [bool(rows) and all(isinstance(row[index], (int, float, np.number)) for row in rows) for index in range(len(headers))]
    lines = [list(headers), *texts]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.3f}" if math.isfinite(value) else "-"
    return "-" if value is None else str(value)


def size(count: float) -> str:
    """Write a number of bytes for people.

    >>> size(1234567)
    '1.2 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
