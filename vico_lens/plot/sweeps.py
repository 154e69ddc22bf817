"""Many runs at once: a rate or a mean for each setting, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.colours import PALETTE
from vico_lens.plot.intervals import bootstrap_mean, wilson
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import number, percent, percent_range, plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["sweep", "sweep_numbers"]

_GROUP_COLOURS = tuple(PALETTE[name] for name in ("blue", "vermillion", "green", "violet", "orange", "sky"))


def sweep_numbers(table: Sequence[Mapping[str, Any]] | xr.DataArray, by: str | None = None) -> list[dict[str, Any]]:
    """Return one row a setting with its estimate and interval.

    Parameters
    ----------
    table : sequence of mappings, or DataArray
        Rows ``{"label", "successes", "trials"[, "group"]}`` become rates with Wilson intervals; rows ``{"label", "value"[,
        "low", "high", "trials", "group"]}`` are taken as they are. A DataArray is reduced over all dims but `by`: yes-or-no
        values to rates with Wilson intervals, other numbers to means with bootstrap intervals.
    by : str, optional
        Dim of the DataArray whose labels are the settings.

    Returns
    -------
    list of dict
        ``label, group, value, low, high, trials, rate`` (`rate` says that the value is a share from 0 to 1).

    Examples
    --------
    >>> row = sweep_numbers([{"label": "plain", "successes": 5, "trials": 10}])[0]
    >>> row["value"], round(row["low"], 2), round(row["high"], 2)
    (0.5, 0.24, 0.76)
    """
    if isinstance(table, xr.DataArray):
        if by not in table.dims:
            raise InputError(f"by must be one of the dims {tuple(map(str, table.dims))}, got {by!r}.")
        table = [_reduced(str(label), table.isel({by: i}).values.ravel()) for i, label in enumerate(table[by].values)]
    rows = []
    for row in table:
        if "successes" in row and "trials" in row:
            low, high = wilson(int(row["successes"]), int(row["trials"]))
            values = {"value": row["successes"] / row["trials"], "low": low, "high": high, "rate": True}
        elif "value" in row:
            values = {
                "value": float(row["value"]),
                "low": float(row.get("low", math.nan)),
                "high": float(row.get("high", math.nan)),
                "rate": bool(row.get("rate", False)),
            }
        else:
            raise InputError(f"a row needs successes and trials, or value; got the keys {sorted(row)}.")
        rows.append(
            {
                "label": str(row.get("label", "")),
                "group": str(row.get("group", "")),
                "trials": int(row.get("trials", 0)),
                **values,
            }
        )
    if not rows:
        raise InputError("expected at least one row, got none.")
    return rows


def sweep(
    table: Sequence[Mapping[str, Any]] | xr.DataArray,
    by: str | None = None,
    *,
    quantity: str = "rate",
    finding: str = "",
    theme: Theme = "light",
) -> Figure:
    """Draw a point and an interval for each setting, groups in colours.

    Parameters
    ----------
    table, by : see `sweep_numbers`
    quantity : str
        What is measured, for the axis and the title.
    finding : str
        Title, instead of the one made from the numbers.
    theme : {"light", "dark"}
    """
    rows = sweep_numbers(table, by)
    labels = list(dict.fromkeys(row["label"] for row in rows))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    rate = all(row["rate"] for row in rows)
    fig = new_figure(theme)
    for g, group in enumerate(groups):
        mine = [row for row in rows if row["group"] == group]
        shift = 0.0 if len(groups) == 1 else 0.36 * (g / (len(groups) - 1) - 0.5)
        low, high = ([row[key] if math.isfinite(row[key]) else row["value"] for row in mine] for key in ("low", "high"))
        colour = _GROUP_COLOURS[g % len(_GROUP_COLOURS)]
        values = [row["value"] for row in mine]
        fig.add_scatter(
            x=values,
            y=[labels.index(row["label"]) + shift for row in mine],
            mode="markers",
            name=plain(group),
            showlegend=len(groups) > 1,
            marker={"color": colour, "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": np.subtract(high, values),
                "arrayminus": np.subtract(values, low),
                "color": colour,
                "thickness": 2,
                "width": 0,
            },
            customdata=[[plain(row["label"]), _told(row)] for row in mine],
            hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
        )
    fig.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(labels))),
        ticktext=[plain(label) for label in labels],
        range=[len(labels) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
        tickfont_size=13,
    )
    fig.update_xaxes(
        title_text=plain(quantity), **({"tickformat": ".0%", "range": [0, 1.03]} if rate else {"rangemode": "tozero"})
    )
    fig.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0})
    trials = sorted({row["trials"] for row in rows if row["trials"]})
    counted = f", {trials[0]}{f' to {trials[-1]}' if len(trials) > 1 else ''} runs each" if trials else ""
    note = f"Points: estimates; lines: 95 % intervals ({'Wilson' if rate else 'bootstrap'}){counted}."
    head = 26 if len(groups) > 1 else 0
    return finish(fig, plain(finding) or _finding(rows, quantity), note, theme=theme, height=70 + 44 * len(labels), top=head)


def _finding(rows: Sequence[Mapping[str, Any]], quantity: str) -> str:
    """Name the setting in which two groups differ most, or the best of all settings."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    if len(groups) == 2:
        table = {(row["label"], row["group"]): row for row in rows}
        both = [label for label, group in table if group == groups[0] and (label, groups[1]) in table]
        if both:
            label = max(both, key=lambda name: abs(table[name, groups[1]]["value"] - table[name, groups[0]]["value"]))
            first, second = (table[label, group] for group in groups)
            return f"{plain(label)}: {plain(quantity)} {_told(second)} {plain(groups[1])}, {_told(first)} {plain(groups[0])}"
    best = max(rows, key=lambda row: float(row["value"]))
    name = " ".join(part for part in (best["label"], f"({best['group']})" if best["group"] else "") if part)
    return f"Highest {plain(quantity)}: {plain(name)}, {_told(best)}"


def _reduced(label: str, values: np.ndarray) -> dict[str, Any]:
    if values.dtype == bool:
        return {"label": label, "successes": int(values.sum()), "trials": values.size}
    finite = values[np.isfinite(values)]
    low, high = bootstrap_mean(finite)
    return {
        "label": label,
        "value": float(finite.mean()) if finite.size else math.nan,
        "low": low,
        "high": high,
        "trials": finite.size,
    }


def _told(row: Mapping[str, Any]) -> str:
    value = percent(row["value"]) if row["rate"] else number(row["value"])
    if not math.isfinite(row["low"]):
        return value
    spread = percent_range(row["low"], row["high"]) if row["rate"] else f"{number(row['low'])} to {number(row['high'])}"
    return f"{value} ({spread})"
