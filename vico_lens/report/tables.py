"""The numbers of a report as tables: shares, verdicts, certificates of exact flow, rates, provenance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import xarray as xr

from vico_lens.plot.wording import number, percent, percent_range
from vico_lens.report.markup import Markup, el, foreign, join
from vico_lens.report.story import Run, Story

__all__ = ["facts", "flow_table", "grid_table", "rates_table", "shares_table", "verdict_table"]

_LONGEST = 2000  # characters of one provenance value; a foreign trace may hold megabytes


def grid_table(
    head: Sequence[Any], rows: Sequence[Sequence[Any]], *, title: str = "", note: str = "", numeric: Sequence[int] = ()
) -> Markup:
    """Lay rows out; the first cell of each is its header, columns named in `numeric` are set flush right."""
    right = set(numeric)

    def cell(tag: str, i: int, content: Any) -> Markup:
        return el(tag, content, class_="n" if i in right else None, scope="row" if tag == "th" else None)

    caption = el("caption", el("strong", title), f" {note}" if note else None) if title else None
    top = el(
        "thead", el("tr", [el("th", content, class_="n" if i in right else None, scope="col") for i, content in enumerate(head)])
    )
    body = el("tbody", [el("tr", [cell("td" if i else "th", i, content) for i, content in enumerate(row)]) for row in rows])
    return el("div", el("table", caption, top, body), class_="scroll")


def shares_table(story: Story) -> Markup:
    """Share of each concept, its interval, and the share after balancing."""
    head: list[Any] = ["concept", "share", "95 % interval"] + (["balanced", "change, points"] if story.after else [])
    rows = []
    for name in story.names:
        row = story.before.shares.sel(concept=name)
        known = bool(np.isfinite([row["low"], row["high"]]).all())
        cells: list[Any] = [
            [el("span", class_="swatch", style=f"--tint:{story.colours[name]}"), foreign(name)],
            percent(float(row["share"]), 1),
            percent_range(float(row["low"]), float(row["high"])) if known else "–",
        ]
        if story.after:
            change = 100 * (story.after.share(name) - story.before.share(name))
            cells += [
                percent(story.after.share(name), 1),
                f"{'+' if change > 0 else '−' if change < 0 else ''}{abs(change):.1f}",
            ]
        rows.append(cells)
    runs = [run for run in (story.before, story.after) if run]
    note = "; ".join(
        f"{label}: evenness {float(run.dominance['evenness']):.3f}, Gini {float(run.dominance['gini']):.3f}"
        for label, run in zip(("plain", "balanced"), runs, strict=False)
    )
    return grid_table(head, rows, title="Shares of the influence.", note=f"{note}.", numeric=range(1, len(head)))


def verdict_table(objects: Sequence[Any] | None, names: Sequence[str], runs: Mapping[str, Run]) -> Markup | None:
    """What was asked for, object by object, and which attributes each run got right; None without a judge."""
    judged = {
        label: run.ruling
        for label, run in runs.items()
        if run.ruling is not None and (run.ruling.attributes or run.ruling.present)
    }
    if not judged:
        return None
    asked = [_fields(one) for one in objects] if objects else []
    count = max(max(len(r.attributes), len(r.present)) for r in judged.values())
    rows = []
    for i in range(count):
        words = " ".join(str(asked[i][key]) for key in ("size", "colour", "shape") if asked[i].get(key)) if i < len(asked) else ""
        label = words or (names[i] if i < len(names) else f"object {i + 1}")
        motion = str(asked[i].get("motion") or "") if i < len(asked) else ""
        row: list[Any] = [foreign(f"{label}, {motion}" if motion else label)]
        for found in judged.values():
            row.append(
                _marks(
                    found.present[i] if i < len(found.present) else None, found.attributes[i] if i < len(found.attributes) else {}
                )
            )
        rows.append(row)
    verdict: list[Any] = [
        "whole clip",
        *[el("b", "all correct" if found.correct else found.failure) for found in judged.values()],
    ]
    return grid_table(["asked for", *judged], [*rows, verdict], title="What the judge saw.", note="✓ right, ✗ wrong.")


def _marks(present: bool | None, attributes: Mapping[str, bool]) -> Markup:
    parts = [] if present is None else [_mark("present", present)]
    parts += [_mark(name, good) for name, good in attributes.items()] if present is not False else []
    return join([item for part in parts for item in (part, " ")])


def _mark(name: str, good: bool) -> Markup:
    return el("span", f"{'✓' if good else '✗'}\u00a0{name}", class_="yes" if good else "no")


def flow_table(flow: xr.Dataset | xr.DataArray) -> Markup:
    """Exact flow of each concept with its certificate: value, gap, how often it is saturated, and what that means in words."""
    data = flow.to_dataset(name="value") if isinstance(flow, xr.DataArray) else flow
    data = data.reset_coords([str(c) for c in data.coords if str(c) != "concept" and "concept" in data[c].dims])
    rows = []
    for i, name in enumerate(np.atleast_1d(data["concept"].values)):
        one = data.isel(concept=i)
        gap = number(float(abs(one["gap"]).max())) if "gap" in one else "–"
        states = [str(state) for state in np.ravel(one["saturated"].values)] if "saturated" in one else []
        rows.append([foreign(name), number(float(one["value"].sum())), gap, _saturation(states)])
    sinks = set(map(str, data["gap"].dims if "gap" in data else data["value"].dims))
    each = "Each place of the video is" if {"y", "x"} & sinks else "Each frame of the video is" if "frame" in sinks else ""
    each = f"{each} a sink of its own. " if each else "The whole video is one sink. " if "gap" in data else ""
    note = f"{each}Flow is summed over sinks and steps. The largest relative gap between flow and cut certifies it: 0 is exact."
    return grid_table(["concept", "flow", "gap", "where it is cut"], rows, title="Exact maximum flow.", note=note, numeric=(1, 2))


_CUT_AT = {
    "sink": "at the video, where the sink is full: the value is the sink's capacity and says nothing of the concept",
    "source": "at the text: the value is the summed cross-attention and says nothing more",
    "mixed": "in some layer groups at the text or at the video, in others inside",
    "no": "inside the network: the layers between text and video hold the flow back",
}


def _saturation(states: Sequence[str]) -> str:
    parts = [(states.count(state), said) for state, said in _CUT_AT.items() if state in states]
    if not parts:
        return "–"
    if len(parts) == 1:
        said = parts[0][1]
        return f"{said[0].upper()}{said[1:]}."
    return "; ".join(f"{count} of {len(states)} flows {said}" for count, said in parts) + "."


def rates_table(story: Story) -> Markup:
    """How often such prompts come out right, with Wilson intervals."""
    grouped = any(row["group"] for row in story.rates)
    rows = []
    for row in story.rates:
        known = math.isfinite(row["low"])
        value = percent(row["value"], 1) if row["rate"] else number(row["value"])
        spread = (
            "–"
            if not known
            else percent_range(row["low"], row["high"])
            if row["rate"]
            else f"{number(row['low'])} to {number(row['high'])}"
        )
        cells = [foreign(row["label"]), *([foreign(row["group"])] if grouped else []), value, spread, row["trials"] or "–"]
        rows.append(cells)
    head = ["prompts", *(["run"] if grouped else []), "all correct", "95 % interval", "clips"]
    first = 2 if grouped else 1
    return grid_table(head, rows, title="How often.", note="Wilson score intervals.", numeric=range(first, first + 3))


def facts(values: Mapping[str, Any], title: str = "") -> Markup:
    """Two columns: name and value; JSON inside strings is opened, long values are cut with their length told."""
    rows = [
        el("tr", el("th", foreign(str(key).replace("_", " ")), scope="row"), el("td", foreign(_told(value))))
        for key, value in values.items()
    ]
    return el(
        "div",
        el("table", el("caption", el("strong", title)) if title else None, el("tbody", rows), class_="facts"),
        class_="scroll",
    )


def _told(value: Any) -> str:
    if isinstance(value, str) and value[:1] in "{[":
        try:
            value = json.loads(value)
        except ValueError:
            return _short(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return _short("; ".join(f"{key}: {_told(part)}" for key, part in value.items()) or "none")
    if isinstance(value, list | tuple):
        return _short(", ".join(map(_told, value)) or "none")
    return _short("" if value is None else str(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} characters)"


def _fields(one: Any) -> dict[str, Any]:
    return asdict(one) if is_dataclass(one) and not isinstance(one, type) else dict(one)
