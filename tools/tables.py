"""Tables of the documentation that come from code or from results: written into the pages, and checked by a test.

A page holds a table between two comments, ``<!-- table: NAME -->`` and ``<!-- end of table -->``. ``python -m tools.tables``
brings all of them up to date; ``python -m tools.tables --check`` only lists the pages that are not.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import vico_lens as vl
from tools.setups import table as setups_table
from vico_lens.cli.output import size
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.cost.published_models import NATIVE, native_sizes
from vico_lens.tracing.families.listing import as_markdown

__all__ = ["TABLES", "current", "outdated"]

DOCS = Path(__file__).parents[1] / "docs"

_PLACE = re.compile(r"(<!-- table: (?P<name>\w+) -->\n)(?P<body>.*?)(<!-- end of table -->)", re.DOTALL)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def memory() -> str:
    """Bytes of tracing well-known models at their native size: one step in each form, and useful captures of a whole run."""
    step = native_sizes(Capture(steps=0))
    tenth = native_sizes(Capture(steps=slice(0, None, 10)))
    cross = native_sizes(Capture(steps=slice(0, None, 10), kinds=("cross", "joint")))
    rows = []
    for model in NATIVE:
        one, some, text = (table.sel(model=model.name) for table in (step, tenth, cross))
        rows.append(
            [
                model.name,
                model.size.replace("x", "×"),
                str(int(one.sites)),
                size(float(one.weights_bytes)),
                size(float(one.factors_bytes)),
                f"{float(one.ratio):.0f}",
                f"{size(float(some.stored_bytes))} ({int(some.steps)} steps)",
                size(float(text.stored_bytes)),
            ]
        )
    head = (
        "Model",
        "Video",
        "Sites",
        "One step as maps",
        "One step as factors",
        "Ratio",
        "Every 10th step, smaller form",
        "… text only",
    )
    return markdown(head, rows)


def methods() -> str:
    """What each attribution method declares."""
    rows = []
    for name, method in vl.methods().items():
        marks = ["yes" if mark else "" for mark in (method.exact, method.differentiable, method.needs_pipe)]
        options = ", ".join(f"`{option}`" for option in method.options) or "none"
        rows.append([f"`{name}`", method.summary.rstrip("."), *marks, method.cost, options, method.references])
    return markdown(("Method", "Gives", "Exact", "Gradient", "Runs the model", "Cost", "Options", "Reference"), rows)


def reliability() -> str:
    """How often balancing helps on held-out prompts, as the demo's report quotes it."""
    told = json.loads((Path(vl.__file__).parent / "tinyworld" / "reliability.json").read_text(encoding="utf-8"))
    groups = {"plain": "plain", "random": "random update of the same size", "balanced": "balanced"}

    def rate(label: str, group: str) -> str:
        row = next(row for row in told["rows"] if row["group"] == group and row["label"] == label)
        return f"{row['successes']} of {row['trials']} ({100 * row['low']:.0f}–{100 * row['high']:.0f} %)"

    rows = [
        ["both objects right, motions aside", *(rate("two-object clips, motions aside", group) for group in groups.values())],
        ["everything right", *(rate("two-object clips", group) for group in groups.values())],
    ]
    kinds = {"missing_subject": "a subject is missing", "motion_mixing": "motions are mixed"}
    rows += [[words, *(str(told["failures"][name].get(kind, 0)) for name in groups)] for kind, words in kinds.items()]
    rows.append(["mended, broken (against plain)", "", "", f"{told['mended']}, {told['broken']}"])
    return markdown(("", "plain", "random direction", "balanced"), rows)


def saturation() -> str:
    """How exact flows of real traces are cut, by sink and depth."""
    from benchmarks.saturation import rows_of
    from benchmarks.saturation_table import by_depth

    return by_depth(rows_of(), depths=(1, 2, 4, 7))


def choose() -> str:
    """What each method declares, beside its measured cost and faithfulness."""
    from benchmarks.faithfulness import METHODS
    from benchmarks.faithfulness_table import JSON, text

    found = json.loads(JSON.read_text(encoding="utf-8"))["methods"]
    declared = vl.methods()
    rows = []
    for label, scores in found.items():
        name = METHODS.get(label, (label,))[0]
        method = declared.get(name)
        marks = ["", "", ""]
        if method is not None:
            marks = [
                "the model" if method.needs_pipe else "a trace",
                *("yes" if mark else "" for mark in (method.exact or label.endswith("exact"), method.differentiable)),
            ]
        said = "" if method is None else f"`{name}`" + label.removeprefix(name)
        cost = scores.get("seconds") if label in METHODS else None
        columns = [scores.get(score) if not (label == "leave_one_out" and score != "rendered iou") else None
                   for score in ("share", "maps", "rendered iou")]  # fmt: skip
        rows.append(
            [
                said or f"*{label}*",
                *marks,
                "" if cost is None else f"{cost[0]:.2f} s",
                *(text(tuple(c) if c else None) for c in columns),
            ]
        )
    head = (
        "Method",
        "Needs",
        "Exact",
        "Gradient",
        "CPU",
        "Shares against leave-one-out",
        "Maps against leave-one-out",
        "Overlap with objects",
    )
    return markdown(head, rows)


def drowned() -> str:
    """How often the concept of the smaller share is the one that a clip lacks."""
    told = json.loads((DOCS.parent / "benchmarks" / "results" / "drowned.json").read_text(encoding="utf-8"))
    rows = [
        [
            f"`{name}`".replace(" ", "` ", 1)[:-1] if " " in name else f"`{name}`",
            f"{found['smaller_share_is_missing']} of {found['trials']} ({100 * found['low']:.0f}–{100 * found['high']:.0f} %)",
            f"{found['median_share_of_the_missing']:.2f}",
            f"{found['median_smaller_share_of_controls']:.2f}",
            f"{found['below_a_control']:.2f}",
        ]
        for name, found in told["methods"].items()
    ]
    head = (
        "Method",
        "The smaller share is the missing object's",
        "Its median share",
        "Median smaller share, nothing missing",
        "Below it",
    )
    return markdown(head, rows)


def measured(name: str, number: int = 0) -> str:
    """Return a table of ``benchmarks/results/NAME.md`` as the benchmark wrote it; `number` counts its tables from the top."""
    blocks = (DOCS.parent / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8").split("\n\n")
    return [block for block in blocks if block.startswith("|")][number]


def study_in_short() -> str:
    """Return the conditions that answer the study's question, with the columns that one reads first."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in measured("study").splitlines()]
    columns = [lines[0].index(name) for name in ("condition", "all right", "against plain", "mended / broken", "cost")]
    rows = {line[0]: [line[column] for column in columns] for line in lines[2:]}
    shown = (
        "plain",
        "default",
        "best of 3 at step 4",
        "best of 3, then default",
        "weakest, sum flow",
        "vico",
        "random direction",
    )
    return markdown([lines[0][column] for column in columns], [rows[name] for name in shown])


TABLES: dict[str, Callable[[], str]] = {
    "balancing": partial(measured, "balancing"),
    "choose": choose,
    "drowned": drowned,
    "families": as_markdown,
    "setups": setups_table,
    "memory": memory,
    "methods": methods,
    "reading": partial(measured, "factors"),
    "real_size": partial(measured, "real_size"),
    "reliability": reliability,
    "saturation": saturation,
    "study": partial(measured, "study"),
    "study_in_short": study_in_short,
    "tracing_space": partial(measured, "tracing", 1),
    "tracing_time": partial(measured, "tracing"),
}


def current(text: str) -> str:
    """Return a page with its tables brought up to date."""
    return _PLACE.sub(lambda place: f"{place[1]}\n{TABLES[place['name']]().strip()}\n\n{place[4]}", text)


def outdated() -> list[Path]:
    """Return the pages whose tables are not what the code says."""
    return [page for page in sorted(DOCS.rglob("*.md")) if current(text := page.read_text(encoding="utf-8")) != text]


def main() -> int:
    """Write the tables, or with ``--check`` only say which pages would change."""
    pages = outdated()
    for page in pages:
        if "--check" not in sys.argv[1:]:
            page.write_text(current(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(page.relative_to(DOCS.parent))
    return 1 if pages and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
