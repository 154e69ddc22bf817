"""What balancing did: its log over the updates, and the shares before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.basis import SHARE
from vico_lens.plot.colours import ACCENT, GREY, concept_colours
from vico_lens.plot.reading import concept_names
from vico_lens.plot.shares import shares_numbers
from vico_lens.plot.theme import Theme, finish, label_ends, label_room, new_figure
from vico_lens.plot.wording import number, percent, plain, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["balancing", "balancing_numbers", "before_after", "before_after_numbers"]

_ARROW = 0.03  # change of share from which an arrow is longer than its own markers


def balancing_numbers(log: xr.Dataset) -> xr.Dataset:
    """Return what `balancing` draws from a balance log.

    Parameters
    ----------
    log : Dataset
        ``balance.log``: over the dim ``update``, with ``loss``, ``step``, ``latent_change`` and ``influence(update, concept)``.

    Returns
    -------
    Dataset
        ``loss``, ``latent_change``, ``step``, all over ``update``, and ``share(update, concept)``: each concept's part of
        the influence.

    Raises
    ------
    InputError
        If the log lacks one of these or holds no update.

    Examples
    --------
    >>> from vico_lens.intervention.balancing.log import Update, log_of
    >>> log = log_of([Update(0, 0, 0, 0, 999.0, 0.5, {"cat": 0.1, "dog": 0.3}, {"cat": 0.2, "dog": 0.6})], {})
    >>> balancing_numbers(log).share.dims
    ('update', 'concept')
    """
    missing = {"loss", "influence", "latent_change", "step"} - set(map(str, log.variables))
    if missing or "update" not in log.dims or "concept" not in log["influence"].dims:
        raise InputError(
            "expected a balance log over update with loss, step, latent_change and influence(update, concept); "
            f"missing: {sorted(missing) or 'dims'}."
        )
    if log.sizes["update"] == 0:
        raise InputError("this balance log holds no update: the balancer stopped before its first one.")
    mass = abs(log["influence"].astype(np.float64)).transpose("update", "concept")
    total = mass.sum("concept")
    kept = {name: ("update", log[name].values.astype(np.float64)) for name in ("loss", "latent_change", "step")}
    return xr.Dataset({"share": mass / total.where(total > 0), **kept})


def balancing(log: xr.Dataset, *, colours: Mapping[str, str] | None = None, theme: Theme = "light") -> Figure:
    """Draw loss, shares and latent change over the updates, with the denoising steps marked.

    Parameters
    ----------
    log : see `balancing_numbers`
    colours, theme
        Fixed colours by concept; ``"light"`` or ``"dark"``.

    Examples
    --------
    >>> from vico_lens.intervention.balancing.log import Update, log_of
    >>> log = log_of([Update(0, 0, 0, 0, 999.0, 0.5, {"cat": 0.1, "dog": 0.3}, {"cat": 0.2, "dog": 0.6})], {})
    >>> type(balancing(log)).__name__
    'Figure'
    """
    from plotly.subplots import make_subplots

    numbers = balancing_numbers(log)
    names = concept_names(numbers)
    colour = concept_colours(names, colours)
    updates = np.arange(1, numbers.sizes["update"] + 1)
    grid = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.07, row_heights=[0.28, 0.44, 0.28])
    fig = new_figure(theme)
    fig.update_layout(grid.layout.to_plotly_json() | {"template": fig.layout.template})
    mode = "lines+markers" if len(updates) <= 40 else "lines"
    fig.add_scatter(
        x=updates,
        y=numbers["loss"].values,
        mode=mode,
        line={"color": ACCENT, "width": 2},
        marker_size=5,
        showlegend=False,
        hovertemplate="loss %{y:.4g}<extra></extra>",
    )
    for i, name in enumerate(names):
        fig.add_scatter(
            x=updates,
            y=numbers["share"].values[:, i],
            mode=mode,
            name=plain(name),
            line={"color": colour[name], "width": 2.4},
            marker_size=5,
            xaxis="x2",
            yaxis="y2",
            hovertemplate="%{y:.1%}",
        )
    fig.add_bar(
        x=updates,
        y=numbers["latent_change"].values,
        marker_color=GREY,
        xaxis="x3",
        yaxis="y3",
        showlegend=False,
        hovertemplate="latent change %{y:.3g}<extra></extra>",
    )
    starts = np.flatnonzero(np.diff(numbers["step"].values, prepend=np.nan) != 0)
    for start in starts[1:] if len(starts) <= 40 else []:
        fig.add_vline(x=updates[start] - 0.5, line={"color": GREY, "width": 0.6, "dash": "dot"}, opacity=0.5)
    fig.update_xaxes(showgrid=False, range=[0.5, len(updates) + 0.5])  # names at the ends of lines would widen it
    steps = numbers["step"].values
    fig.update_xaxes(
        title_text=f"update (dotted: next denoising step, {steps.min():.0f} to {steps.max():.0f})",
        tickformat="d",
        row=None,
        selector={"anchor": "y3"},
    )
    fig.update_layout(
        yaxis={"title_text": "loss", "zeroline": False},
        yaxis2={"title_text": "share", "tickformat": ".0%"},
        yaxis3={"title_text": "latent change", "rangemode": "tozero"},
        showlegend=False,
        hovermode="x unified",
    )
    last = numbers["share"].values[-1]
    ends = [(plain(n), float(updates[-1]), float(y), colour[n]) for n, y in zip(names, last, strict=True) if np.isfinite(y)]
    label_ends(fig, ends, axis="2", room=float(np.nanmax(numbers["share"].values, initial=1e-9)))
    weak = int(np.nanargmin(numbers["share"].values[0])) if np.isfinite(numbers["share"].values[0]).any() else 0
    first, last = (percent(float(numbers["share"].values[k, weak])) for k in (0, -1))
    finding = f"{quoted(names[weak])} has {first} of the influence at the first of {len(updates)} updates, {last} at the last"
    total = float(numbers["latent_change"].sum())
    flow = str(log.attrs.get("flow", "")).replace("_", " ")
    note = f"Shares by {flow}, the method that is balanced, at the step of each update. " if flow else ""
    note += f"They also change from step to step without any update. Latent change: root mean square, {number(total)} in all."
    return finish(fig, finding, note, theme=theme, height=470, right=label_room(names))


def before_after_numbers(before: xr.DataArray | xr.Dataset, after: xr.DataArray | xr.Dataset) -> xr.Dataset:
    """Return the shares of two runs and their difference.

    Parameters
    ----------
    before, after : DataArray with dims ``concept [step] frame y x``, or dominance Datasets
        The same concepts in the same order.

    Returns
    -------
    Dataset
        ``before, after, change(concept)`` and the intervals ``before_low, before_high, after_low, after_high``.

    Raises
    ------
    InputError
        If the concepts differ.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> float(abs(before_after_numbers(influence, influence).change).max())
    0.0
    """
    pair = {"before": shares_numbers(before), "after": shares_numbers(after)}
    names = {key: concept_names(numbers) for key, numbers in pair.items()}
    if names["before"] != names["after"]:
        raise InputError(f"both runs must have the same concepts; before {names['before']}, after {names['after']}.")
    variables = {}
    for key, numbers in pair.items():
        variables[key] = ("concept", numbers["share"].values)
        variables[f"{key}_low"], variables[f"{key}_high"] = (
            ("concept", numbers["low"].values),
            ("concept", numbers["high"].values),
        )
    variables["change"] = ("concept", variables["after"][1] - variables["before"][1])
    attrs = {name: pair["before"].attrs[name] for name in ("interval", "basis")}
    return xr.Dataset(variables, coords={"concept": names["before"]}, attrs=attrs)


def before_after(
    before: xr.DataArray | xr.Dataset,
    after: xr.DataArray | xr.Dataset,
    *,
    colours: Mapping[str, str] | None = None,
    theme: Theme = "light",
) -> Figure:
    """Draw each concept's share before and after balancing as a ring and a disc with an arrow between them.

    Parameters
    ----------
    before, after : see `before_after_numbers`
    colours, theme
        Fixed colours by concept; ``"light"`` or ``"dark"``.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> type(before_after(influence, influence)).__name__
    'Figure'
    """
    numbers = before_after_numbers(before, after)
    names = concept_names(numbers)
    colour = concept_colours(names, colours)
    fig = new_figure(theme)
    for i, name in enumerate(names):
        start, end = float(numbers["before"][i]), float(numbers["after"][i])
        if not np.isfinite([start, end]).all():
            raise InputError(f"{name!r} has no share in one of the runs: no influence reached that video.")
        if abs(end - start) > _ARROW:
            line = {"arrowhead": 2, "arrowwidth": 3, "arrowcolor": colour[name], "standoff": 9, "startstandoff": 7}
            fig.add_annotation(x=end, y=i, ax=start, ay=i, axref="x", ayref="y", showarrow=True, **line)
        fig.add_scatter(
            x=[start],
            y=[i],
            mode="markers",
            marker={"symbol": "circle-open", "size": 15, "color": colour[name], "line_width": 2.5},
            showlegend=False,
            hovertemplate="before: %{x:.1%}<extra></extra>",
        )
        fig.add_scatter(
            x=[end],
            y=[i],
            mode="markers",
            marker={"size": 17, "color": colour[name]},
            showlegend=False,
            hovertemplate="after: %{x:.1%}<extra></extra>",
        )
        left, right = ("right", "left") if end >= start else ("left", "right")
        for x, anchor, text in ((start, left, percent(start)), (end, right, f"<b>{percent(end)}</b>")):
            fig.add_annotation(
                x=x, y=i, text=text, showarrow=False, xanchor=anchor, xshift=14 if anchor == "left" else -14, font_size=13
            )
    even = 1 / len(names)
    fig.add_vline(x=even, line={"color": GREY, "width": 1, "dash": "dot"})
    fig.add_annotation(
        x=even,
        y=1,
        yref="paper",
        yanchor="bottom",
        text=f"even: {percent(even)}",
        showarrow=False,
        font={"color": GREY, "size": 11},
    )
    values = np.concatenate([numbers["before"].values, numbers["after"].values])
    low, high = max(0.0, float(values.min()) - 0.16), min(1.0, float(values.max()) + 0.16)
    fig.update_xaxes(title_text="share of the influence", tickformat=".0%", range=[low, high])
    fig.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(names))),
        ticktext=[plain(name) for name in names],
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
        tickfont_size=14,
    )
    spread = float(numbers["before"].max() - numbers["before"].min()), float(numbers["after"].max() - numbers["after"].min())
    points = [round(100 * value) for value in spread]
    if points[0] == points[1]:
        finding = f"Balancing leaves the gap between the concepts at {points[0]} {'point' if points[0] == 1 else 'points'}"
    else:
        word = "narrows" if points[1] < points[0] else "widens"
        finding = f"Balancing {word} the gap between the concepts from {points[0]} to {points[1]} points"
    return finish(
        fig,
        finding,
        f"{numbers.attrs['basis']} Ring: plain run. Disc: balanced run, same prompt and seed. {SHARE}".strip(),
        theme=theme,
        height=90 + 56 * len(names),
        top=14,
    )
