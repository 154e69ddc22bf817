"""Who dominates: each concept's share of the influence, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.basis import SHARE, basis_of
from vico_lens.plot.colours import GREY, concept_colours
from vico_lens.plot.reading import concept_names, influence_maps, resampled, shares_over
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import join, level, percent, percent_range, plain, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["shares", "shares_numbers"]


def shares_numbers(data: xr.DataArray | xr.Dataset, *, confidence: float = 0.95, draws: int = 2000, seed: int = 0) -> xr.Dataset:
    """Return each concept's share of the influence and how firmly it stands.

    Parameters
    ----------
    data : DataArray with dims ``concept [step] frame y x``, or a dominance Dataset
        A Dataset must hold ``share(concept)``; its ``share_low`` and ``share_high`` are taken over where it has them.
    confidence : float
        Level of the interval.
    draws, seed : int
        Bootstrap resamples and their seed.

    Returns
    -------
    Dataset
        ``share, low, high(concept)``; the attribute ``interval`` says over what the interval was taken, ``basis`` by which
        method, over which steps and in which branch the influence was computed. For an influence it
        resamples the denoising steps, or the frames when there is no step dim: it tells how even the share is *within this
        run*, not what another seed would give. Only several runs tell that: ``vl.dominance([influence, ...])`` has
        intervals over runs.

    Raises
    ------
    InputError
        If `data` holds no share.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> round(float(shares_numbers(influence).share.sum()), 6)
    1.0
    """
    if isinstance(data, xr.Dataset):
        if "share" not in data or "concept" not in data["share"].dims:
            raise InputError(
                f"expected a dominance Dataset with share(concept), got the variables {sorted(map(str, data.data_vars))}."
            )
        share = data["share"]
        lost = [dim for dim in share.dims if dim != "concept"]
        share = share.mean(lost) if lost else share
        blank = xr.full_like(share, np.nan)
        low, high = data.get("share_low", blank), data.get("share_high", blank)
        interval = str(data.attrs.get("note", "")) if "share_low" in data else ""
        return xr.Dataset({"share": share, "low": low, "high": high}, attrs={"interval": interval, "basis": basis_of(data)})
    influence_maps(data)
    unit = "step" if "step" in data.dims and data.sizes["step"] > 1 else "frame"
    share = shares_over(data)
    blank = xr.full_like(share, np.nan)
    if data.sizes[unit] < 2 or not bool(np.isfinite(share).all()):
        return xr.Dataset({"share": share, "low": blank, "high": blank}, attrs={"interval": "", "basis": basis_of(data)})
    mass = abs(data.astype(np.float64)).sum([d for d in data.dims if d not in ("concept", unit)]).transpose("concept", unit)
    sample = resampled(mass.values, draws, seed)
    low, high = np.nanquantile(sample, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    unit_name = "denoising steps" if unit == "step" else "frames"
    interval = f"{100 * confidence:g} % bootstrap interval over {data.sizes[unit]} {unit_name}"
    attrs = {"interval": interval, "basis": basis_of(data)}
    return xr.Dataset({"share": share, "low": ("concept", low), "high": ("concept", high)}, attrs=attrs)


def shares(data: xr.DataArray | xr.Dataset, *, colours: Mapping[str, str] | None = None, theme: Theme = "light") -> Figure:
    """Draw each concept's share as a bar with its interval, and the even share as a line.

    Parameters
    ----------
    data : see `shares_numbers`
    colours, theme
        Fixed colours by concept; ``"light"`` or ``"dark"``.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> type(shares(influence)).__name__
    'Figure'
    """
    numbers = shares_numbers(data)
    names = concept_names(numbers)
    colour = concept_colours(names, colours)
    share, low, high = (numbers[key].values for key in ("share", "low", "high"))
    known = bool(np.isfinite(low).all() and np.isfinite(high).all())
    even = 1 / len(names)
    fig = new_figure(theme)
    fig.add_bar(
        x=share,
        y=[plain(name) for name in names],
        orientation="h",
        marker_color=[colour[name] for name in names],
        marker_line_width=0,
        width=0.56,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": high - share,
            "arrayminus": share - low,
            "color": GREY,
            "thickness": 1.6,
            "width": 5,
        }
        if known
        else None,
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        showlegend=False,
    )
    for name, value, end in zip(names, share, high if known else share, strict=True):
        fig.add_annotation(
            x=float(end) if np.isfinite(end) else 0.0,
            y=plain(name),
            text=f"<b>{percent(float(value))}</b>",
            showarrow=False,
            xanchor="left",
            xshift=10,
            font_size=15,
        )
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
    top = max(float(np.nanmax(np.where(np.isfinite(high), high, share), initial=0.0)), even)
    fig.update_xaxes(title_text="share of the influence", tickformat=".0%", range=[0, min(1.18, top + 0.16)], dtick=0.2)
    fig.update_yaxes(autorange="reversed", tickfont_size=14, showgrid=False)
    lines = f"Lines: {numbers.attrs['interval']}." if known else ""
    note = " ".join(part for part in (numbers.attrs["basis"], lines, SHARE) if part)
    return finish(
        fig,
        _finding(names, share, low, high, even),
        note,
        theme=theme,
        height=90 + 46 * len(names),
        top=14,
    )


def _finding(names: list[str], share: np.ndarray, low: np.ndarray, high: np.ndarray, even: float) -> str:
    if not np.isfinite(share).all():
        return "No influence reaches the video, so no concept has a share"
    if len(names) == 1:
        return f"{quoted(names[0])} is the only concept: its share says nothing"
    top, last = int(share.argmax()), int(share.argmin())
    leaders = [name for name, value in zip(names, share, strict=True) if level(value, share[top])]
    if len(leaders) > 1:
        return f"No concept dominates: {join([quoted(name) for name in leaders])} have {percent(float(share[top]))} each"
    if np.isfinite(low).all() and low[top] <= even <= high[top]:
        return f"No concept clearly dominates: {quoted(names[top])} leads with {percent(float(share[top]))}"
    spread = f" ({percent_range(float(low[top]), float(high[top]))})" if np.isfinite(low).all() else ""
    first, second = (percent(float(share[place])) for place in (top, last))
    return f"{quoted(names[top])} takes {first}{spread} of the influence, {quoted(names[last])} {second}"
