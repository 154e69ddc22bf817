"""When a concept dominates: shares by frame as a ribbon, shares by denoising step as lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.basis import SHARE, basis_of
from vico_lens.plot.colours import GREY, concept_colours, rgba
from vico_lens.plot.reading import concept_names, influence_maps, shares_over
from vico_lens.plot.theme import Theme, finish, label_ends, label_room, new_figure
from vico_lens.plot.wording import percent, plain, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["share_by_frame", "share_by_frame_numbers", "share_by_step", "share_by_step_numbers"]


def share_by_frame_numbers(data: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return the shares of the concepts in every frame, dims ``concept frame``; NaN where nothing arrives.

    Parameters
    ----------
    data : DataArray with dims ``concept [step] frame y x``, or a dominance Dataset with ``share_by_frame``

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> share_by_frame_numbers(influence).dims
    ('concept', 'frame')
    """
    return _over(data, "frame")


def share_by_step_numbers(data: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return the shares of the concepts at every denoising step, dims ``concept step``; NaN where nothing arrives.

    Raises
    ------
    InputError
        If the influence was summed over steps already.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> share_by_step_numbers(influence).dims
    ('concept', 'step')
    """
    return _over(data, "step")


def _over(data: xr.DataArray | xr.Dataset, dim: str) -> xr.DataArray:
    if isinstance(data, xr.Dataset):
        name = f"share_by_{dim}"
        if name not in data:
            raise InputError(
                f"expected a dominance Dataset with {name}(concept, {dim}), got the variables {sorted(map(str, data.data_vars))}."
            )
        return data[name].transpose("concept", dim)
    influence_maps(data)
    if dim not in data.dims:
        raise InputError("this influence was summed over steps; attribute with several steps kept (concept, step, frame, y, x).")
    return shares_over(data, (dim,)).transpose("concept", dim)


def share_by_frame(
    data: xr.DataArray | xr.Dataset, *, colours: Mapping[str, str] | None = None, theme: Theme = "light"
) -> Figure:
    """Draw the shares of all concepts in each frame as a ribbon that always adds up to 100 %.

    Parameters
    ----------
    data : see `share_by_frame_numbers`
    colours, theme
        Fixed colours by concept; ``"light"`` or ``"dark"``.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> type(share_by_frame(influence)).__name__
    'Figure'
    """
    numbers = share_by_frame_numbers(data)
    names, frames = concept_names(numbers), np.arange(numbers.sizes["frame"])
    colour = concept_colours(names, colours)
    fig = new_figure(theme)
    for i, name in enumerate(names):
        fig.add_scatter(
            x=frames,
            y=numbers.values[i],
            stackgroup="share",
            mode="lines",
            name=plain(name),
            line={"color": colour[name], "width": 0.5},
            fillcolor=rgba(colour[name], 0.82),
            hovertemplate="frame %{x}: %{y:.1%}",
        )
    fig.add_hline(y=0.5, line={"color": GREY, "width": 1, "dash": "dot"})
    fig.update_xaxes(
        title_text="frame of the video",
        tickmode="auto",
        nticks=min(len(frames), 12) + 1,
        tickformat="d",
        showgrid=False,
        range=[0, max(len(frames) - 1, 1)],
    )
    fig.update_yaxes(title_text="share of the influence", tickformat=".0%", range=[0, 1], dtick=0.25)
    fig.update_layout(showlegend=False, hovermode="x unified")
    last = numbers.values[:, -1]
    middles = np.cumsum(last) - last / 2
    ends = [(plain(n), float(frames[-1]), float(y), colour[n]) for n, y in zip(names, middles, strict=True) if np.isfinite(y)]
    label_ends(fig, ends)
    return finish(
        fig,
        _frame_finding(names, numbers.values),
        f"{basis_of(data)} {SHARE}".strip(),
        theme=theme,
        height=300,
        right=label_room(names),
    )


def share_by_step(data: xr.DataArray | xr.Dataset, *, colours: Mapping[str, str] | None = None, theme: Theme = "light") -> Figure:
    """Draw the share of each concept over the denoising steps, from noise to video.

    Parameters
    ----------
    data : see `share_by_step_numbers`
    colours, theme
        Fixed colours by concept; ``"light"`` or ``"dark"``.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> type(share_by_step(influence)).__name__
    'Figure'
    """
    numbers = share_by_step_numbers(data)
    names, steps = (
        concept_names(numbers),
        numbers["step"].values if "step" in numbers.coords else np.arange(numbers.sizes["step"]),
    )
    colour = concept_colours(names, colours)
    fig = new_figure(theme)
    for i, name in enumerate(names):
        fig.add_scatter(
            x=steps,
            y=numbers.values[i],
            mode="lines+markers" if len(steps) <= 40 else "lines",
            name=plain(name),
            line={"color": colour[name], "width": 2.4},
            marker={"size": 6},
            hovertemplate="step %{x}: %{y:.1%}",
        )
    fig.add_hline(y=1 / len(names), line={"color": GREY, "width": 1, "dash": "dot"})
    margin = 0.02 * max(1, int(steps[-1]) - int(steps[0]))  # labels at the ends of the lines would widen the axis
    fig.update_xaxes(
        title_text="denoising step (0 = pure noise)",
        showgrid=False,
        tickformat="d",
        nticks=min(len(steps), 10) + 1,
        range=[int(steps[0]) - margin, int(steps[-1]) + margin],
    )
    fig.update_yaxes(title_text="share of the influence", tickformat=".0%", rangemode="tozero")
    fig.update_layout(showlegend=False, hovermode="x unified")
    last = numbers.values[:, -1]
    ends = [(plain(n), float(steps[-1]), float(y), colour[n]) for n, y in zip(names, last, strict=True) if np.isfinite(y)]
    label_ends(fig, ends, room=float(np.nanmax(numbers.values, initial=1 / len(names))))
    note = f"{basis_of(data)} Dotted: the even share. {SHARE}".strip()
    return finish(fig, _step_finding(names, numbers.values, steps), note, theme=theme, height=300, right=label_room(names))


def _leads(values: np.ndarray) -> np.ndarray:
    """Return where each concept has a larger share than any other, ``concept time``; nobody leads where two have the most."""
    most = np.nanmax(np.where(np.isfinite(values), values, -1.0), axis=0)
    first = np.isfinite(values) & (values >= most - 0.005)
    return np.asarray(first & (first.sum(axis=0) == 1))


def _frame_finding(names: list[str], values: np.ndarray) -> str:
    if not np.isfinite(values).any() or len(names) == 1:
        return "Share of the influence by frame"
    leads = _leads(values)
    top = int(leads.sum(axis=1).argmax())
    count = int(leads[top].sum())
    if count == 0:
        return "No concept leads in any frame"
    if count == values.shape[1]:
        low, high = float(np.nanmin(values[top])), float(np.nanmax(values[top]))
        return f"{quoted(names[top])} leads in every frame, with {percent(low)} to {percent(high)}"
    return f"{quoted(names[top])} leads in {count} of {values.shape[1]} frames"


def _step_finding(names: list[str], values: np.ndarray, steps: np.ndarray) -> str:
    if not np.isfinite(values).all() or len(names) == 1 or len(steps) < 2:
        return "Share of the influence by denoising step"
    leads = _leads(values)
    start, end = (int(leads[:, place].argmax()) if leads[:, place].any() else -1 for place in (0, -1))
    if start < 0 or end < 0:
        top = int(leads.sum(axis=1).argmax())
        return f"{quoted(names[top])} leads at {int(leads[top].sum())} of {len(steps)} denoising steps"
    if start != end:
        return f"{quoted(names[start])} leads at the first step, {quoted(names[end])} at the last"
    count = int(leads[end].sum())
    if count == len(steps):
        first, last = (percent(float(values[end, k])) for k in (0, -1))
        return f"{quoted(names[end])} leads from the first step ({first}) to the last ({last})"
    return f"{quoted(names[end])} leads at {count} of {len(steps)} denoising steps, the first and the last among them"
