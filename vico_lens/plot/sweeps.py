"""Many runs at once: a rate or a mean for each setting, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.kernels.intervals import bootstrap_mean, wilson
from vico_lens.plot.colours import PALETTE
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import number, overlap, percent, percent_range, plain

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
        "low", "high", "trials", "group"]}`` are taken as they are. A DataArray is reduced for each label of `by`, NaN left
        out: values of 0 and 1 only to rates with Wilson intervals, other numbers to means with bootstrap intervals.
    by : str, optional
        Dim of the DataArray whose labels are the settings, or a coordinate over its only dim, as in the index of a sweep:
        ``sweep(index["all_correct"], by="condition")``.

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
        table = _grouped(table, by)
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

    Examples
    --------
    >>> counts = {"plain": 9, "balanced": 12}
    >>> rows = [
    ...     {"label": "two objects", "group": name, "successes": count, "trials": 20} for name, count in counts.items()
    ... ]
    >>> type(sweep(rows)).__name__
    'Figure'
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
    """Compare the first row with the one of its kind that differs most from it, and claim a difference only where there is one.

    With groups those of the first label are compared, so that the title speaks of the same rows as a text that reads the first
    label; the first row is taken as what others are measured against (the plain run).
    """
    peers = [row for row in rows if row["label"] == rows[0]["label"]] if len({row["group"] for row in rows}) > 1 else list(rows)
    base, others = peers[0], peers[1:]

    def called(row: Mapping[str, Any]) -> str:
        return plain(row["group"] or row["label"])

    about = f"{plain(base['label'])}: {plain(quantity)}" if base["group"] else plain(quantity[:1].upper() + quantity[1:])
    if not others:
        return f"{about} {_told(base)}"
    other = max(others, key=lambda row: abs(float(row["value"]) - float(base["value"])))
    pair = f"{about} {_told(other)} {called(other)}, {_told(base)} {called(base)}"
    if any(not math.isfinite(row["low"]) for row in (base, other)):
        return pair
    unclear = overlap((base["low"], base["high"]), (other["low"], other["high"]))
    return f"{pair}; the intervals overlap" if unclear else pair


def _grouped(values: xr.DataArray, by: str | None) -> list[dict[str, Any]]:
    """One row for each label of a dim, or of a coordinate over the only dim."""
    if by in values.dims:
        parts = {str(label): values.isel({by: i}).values.ravel() for i, label in enumerate(values[by].values)}
    elif by is not None and by in values.coords and values[by].dims == values.dims:
        labels = values[by].values.astype(str)
        parts = {str(label): values.values[labels == label] for label in dict.fromkeys(labels.tolist())}
    else:
        known = [*map(str, values.dims), *(str(name) for name, coord in values.coords.items() if coord.dims == values.dims)]
        raise InputError(f"by must be one of {sorted(set(known))}, got {by!r}.")
    finite = {label: part[np.isfinite(part.astype(np.float64))] for label, part in parts.items()}
    yes_or_no = all(np.isin(part, (0, 1)).all() for part in finite.values())
    rows: list[dict[str, Any]] = []
    for label, part in finite.items():
        if part.size == 0:
            raise InputError(f"{label!r} has no finite value; leave it out.")
        if yes_or_no:
            rows.append({"label": label, "successes": int(part.sum()), "trials": part.size})
        else:
            low, high = bootstrap_mean(part)
            rows.append({"label": label, "value": float(part.mean()), "low": low, "high": high, "trials": part.size})
    return rows


def _told(row: Mapping[str, Any]) -> str:
    value = percent(row["value"]) if row["rate"] else number(row["value"])
    if not math.isfinite(row["low"]):
        return value
    spread = percent_range(row["low"], row["high"]) if row["rate"] else f"{number(row['low'])} to {number(row['high'])}"
    return f"{value} ({spread})"
