"""Draw the diagrams of the architecture page: the rooms, the walk of one attention call, the walk of one stored trace.

``python -m tools.diagrams`` writes them into ``docs/images``; a test compares the files with what this module draws, and checks
that the rooms are those of the import contract and that every file named in a walk exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

__all__ = ["DIAGRAMS", "ROOMS", "WALKS", "Stop", "outdated"]

IMAGES = Path(__file__).parents[1] / "docs" / "images"

# Every row holds rooms that do not import each other; a room imports only rooms in rows below it.
ROOMS: list[list[tuple[str, str]]] = [
    [("cli", "the command line, one file a verb"), ("testing", "tiny pipelines and traces, checks")],
    [("report", "the HTML report in one file")],
    [("runs", "one prompt, a pair, a job, a sweep"), ("plot", "figures, and their numbers")],
    [("intervention", "balancing/ and inversion: what changes a run")],
    [("attribution", "methods/, judging/, lab/: influence of concepts")],
    [("tracing", "model side; families/, cost/"), ("store", "data side: Zarr, xarray")],
    [("kernels", "arithmetic on plain tensors")],
    [("vocabulary", "schema, concepts, phrases, registry"), ("tinyworld", "bundled model, prompts, judge")],
    [("errors", "every error of the package")],
]

COLOUR = {
    "cli": "#7a3f12",
    "report": "#7a3f12",
    "runs": "#8a5a00",
    "plot": "#8a5a00",
    "intervention": "#8a5a00",
    "attribution": "#3c6e22",
    "tracing": "#1b5e93",
    "store": "#7d2f78",
    "kernels": "#0f6b66",
    "vocabulary": "#444444",
    "errors": "#444444",
    "testing": "#444444",
    "tinyworld": "#444444",
    "outside": "#666666",
}

STYLE = (
    ".n{font:700 16px Segoe UI,Helvetica Neue,Arial,sans-serif}.t{font:13px Segoe UI,Helvetica Neue,Arial,sans-serif;fill:#222}"
    ".m{font:12px DejaVu Sans Mono,Menlo,Consolas,monospace;fill:#222}"
)


@dataclass(frozen=True, slots=True)
class Stop:
    """One room on a walk: what happens there, file by file."""

    room: str
    files: tuple[tuple[str, str], ...]
    passes_on: str = ""
    calls: str = ""
    """What it asks of a room below, drawn beneath it."""


WALKS: dict[str, tuple[Stop, ...]] = {
    "walk-of-a-call": (
        Stop("outside", (("", "a stock pipeline calls"), ("", "scaled_dot_product_attention")), "query, key"),
        Stop(
            "tracing",
            (
                ("interception.py", "sees the call, lets it go on"),
                ("attention_calls.py", "adds step, branch, prompt"),
                ("families/reader.py", "undoes the folding of axes"),
                ("tracer.py", "keeps what the capture selects"),
            ),
            "AttentionCall",
            "vocabulary: AttentionCall, AttentionSite, Sink",
        ),
        Stop(
            "store",
            (
                ("writer.py", "takes the call"),
                ("forms.py", "weights or factors, the smaller"),
                ("background.py", "hands it to the writer thread"),
                ("gathering.py", "joins small layers of a step"),
                ("zarrfile.py", "writes the chunk"),
            ),
            "bytes",
            "kernels: softmax, where weights are stored",
        ),
        Stop("outside", (("", "one chunk of a Zarr v3 store"), ("", "cross/4x8x12/weights/c/…"))),
    ),
    "walk-of-a-trace": (
        Stop("outside", (("", "a Zarr v3 store"), ("", "run.zarr")), "path"),
        Stop(
            "store",
            (
                ("opening.py", "reads metadata only"),
                ("layout.py", "puts the tree together"),
                ("lazy_weights.py", "computes a slice when asked"),
            ),
            "DataTree",
            "kernels: softmax of query and key",
        ),
        Stop(
            "attribution",
            (
                ("facade.py", "resolves concepts, steps, grid"),
                ("trace_stages.py", "one matrix a site, in order"),
                ("methods/rollout.py", "influence of each concept"),
                ("dominance.py", "shares, dominant, weakest"),
                ("judging/comparison.py", "how far to trust the method"),
            ),
            "Dataset",
            "kernels: stages, rollout; vocabulary: concepts",
        ),
        Stop("outside", (("", "the verdict"), ("", "share of each concept, dominant, weakest"))),
    ),
}


def text(x: float, y: float, kind: str, words: str, *, anchor: str = "start", fill: str = "") -> str:
    """Return one line of text."""
    colour = f' fill="{fill}"' if fill else ""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}"{colour}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, room: str) -> str:
    """Return the frame of a room in its colour."""
    colour = COLOUR[room]
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{colour}" fill-opacity=".08" '
        f'stroke="{colour}" stroke-width="1.4"/>'
    )


def arrow(path: str) -> str:
    """Return a line with a head at its end."""
    return f'<path d="{path}" fill="none" stroke="#666" stroke-width="1.6" marker-end="url(#a)"/>'


def picture(width: float, height: float, parts: Sequence[str]) -> str:
    """Return a whole SVG on a white ground, which reads on the dark theme, too."""
    marker = (
        '<marker id="a" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#666"/></marker>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"><defs>{marker}</defs>'
        f'<style>{STYLE}</style><rect width="{width:g}" height="{height:g}" rx="8" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def rooms() -> str:
    """Draw the rooms, the highest on top."""
    parts, width, row, gap = [], 900.0, 44.0, 18.0
    for index, members in enumerate(ROOMS):
        y = 16 + index * (row + gap)
        each = (width - 14 * (len(members) - 1)) / len(members)
        for place, (name, purpose) in enumerate(members):
            x = 16 + place * (each + 14)
            parts += [box(x, y, each, row, name), text(x + 14, y + 28, "n", name, fill=COLOUR[name])]
            parts.append(text(x + each - 14, y + 27, "t", purpose, anchor="end"))
        if index + 1 < len(ROOMS):
            parts.append(arrow(f"M{16 + width / 2:g} {y + row + 2:g} v{gap - 4:g}"))
    height = 16 + len(ROOMS) * (row + gap) - gap + 16
    return picture(932, height, parts)


def walk(stops: Sequence[Stop]) -> str:
    """Draw a walk from top to bottom: a box for each room, the files in it, and what one room hands to the next."""
    parts, y, width, x = [], 16.0, 620.0, 16.0
    for index, stop in enumerate(stops):
        outside = stop.room == "outside"
        height = 44.0 if outside else 40.0 + 24 * len(stop.files)
        parts.append(box(x, y, width, height, stop.room))
        if outside:
            first, second = (words for _, words in stop.files)
            parts += [text(x + 14, y + 27, "t", first), text(x + 300, y + 27, "m", second)]
        else:
            parts.append(text(x + 14, y + 25, "n", f"{stop.room}/", fill=COLOUR[stop.room]))
            for line, (file, words) in enumerate(stop.files):
                parts += [text(x + 34, y + 50 + 24 * line, "m", file), text(x + 300, y + 50 + 24 * line, "t", words)]
        if stop.calls:
            parts.append(arrow(f"M{x + width + 2:g} {y + height / 2:g} h26"))
            for line, words in enumerate(stop.calls.replace("; ", ";\n").split("\n")):
                below, _, asked = words.partition(": ")
                top = y + height / 2 - 6 + 46 * line
                parts += [text(x + width + 34, top, "n", below, fill=COLOUR[below])]
                parts += [text(x + width + 34, top + 18, "t", asked.removesuffix(";"))]
        y += height
        if index + 1 < len(stops):
            parts += [arrow(f"M{x + 150:g} {y + 2:g} v24"), text(x + 164, y + 19, "m", stop.passes_on)]
            y += 30
    return picture(960, y + 16, parts)


def drawings() -> dict[str, str]:
    """Return every diagram by the name of its file."""
    return {"rooms.svg": rooms(), **{f"{name}.svg": walk(stops) for name, stops in WALKS.items()}}


DIAGRAMS = ("rooms.svg", *(f"{name}.svg" for name in WALKS))


def outdated() -> list[str]:
    """Return the files that differ from what this module draws."""
    current = drawings()
    return [
        name for name in DIAGRAMS if not (path := IMAGES / name).is_file() or path.read_text(encoding="utf-8") != current[name]
    ]


if __name__ == "__main__":
    for name, drawing in drawings().items():
        (IMAGES / name).write_text(drawing, encoding="utf-8")
