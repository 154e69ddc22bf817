"""How frames look at each other: the temporal attention matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.colours import ACCENT, alpha_scale
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import percent
from vico_lens.vocabulary.selection import Heads, Layers

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["temporal_matrix", "temporal_matrix_numbers"]

_NUMBERED = 10  # frames; up to here every cell has room for its number, beyond it a colour bar


def temporal_matrix_numbers(
    data: xr.DataTree | xr.DataArray,
    *,
    step: int | None = None,
    layers: Layers = None,
    heads: Heads = None,
    prompt: int | None = None,
) -> xr.DataArray:
    """Return the mean attention from frame to frame, as `vico_lens.store.reading.temporal_matrix` reads it.

    Parameters
    ----------
    data : DataTree or DataArray
        A trace, or an array with the dims ``frame key_frame`` and any others, which are averaged (keys ``key_y, key_x`` summed).
    step, layers, heads, prompt : optional
        What to read of a trace: as for `vico_lens.attribute`; the mean over steps when `step` is None.

    Returns
    -------
    DataArray of float64, dims ``frame key_frame``
        Rows sum to 1, or to what a joint site leaves for the video beside its text. Attributes: ``own`` (mean weight on the frame
        itself), ``even`` (the same if all frames were looked at alike) and ``reach`` (mean distance looked at, in frames).

    Raises
    ------
    InputError
        If something selected was not recorded.
    AttributionError
        If nothing in a trace connects frames.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> temporal_matrix_numbers(fake_trace(), step=1).dims
    ('frame', 'key_frame')
    """
    if isinstance(data, xr.DataTree):
        from vico_lens.store import reading  # imports torch

        weights = reading.temporal_matrix(data, step=step, layers=layers, heads=heads, prompt=prompt)
    elif (step, layers, heads, prompt) != (None, None, None, None):
        raise InputError("expected a trace to select in, got an array; select in it before, with isel or sel.")
    else:
        weights = data
    if not {"frame", "key_frame"} <= set(map(str, weights.dims)):
        raise InputError(f"expected weights with the dims frame and key_frame, got {tuple(map(str, weights.dims))}.")
    weights = weights.astype(np.float64)
    weights = weights.sum([dim for dim in ("key_y", "key_x") if dim in weights.dims], min_count=1)
    matrix = (
        weights.mean([dim for dim in weights.dims if dim not in ("frame", "key_frame")]).transpose("frame", "key_frame").values
    )
    distance = np.abs(np.subtract.outer(np.arange(len(matrix)), np.arange(matrix.shape[1])))
    total = matrix.sum()
    return xr.DataArray(
        matrix,
        dims=("frame", "key_frame"),
        attrs={
            "own": float(np.diag(matrix).mean()),
            "reach": float((matrix * distance).sum() / total),
            "even": float(total / matrix.size),
        },
    )


def temporal_matrix(
    data: xr.DataTree | xr.DataArray,
    *,
    step: int | None = None,
    layers: Layers = None,
    heads: Heads = None,
    prompt: int | None = None,
    theme: Theme = "light",
) -> Figure:
    """Draw the mean attention from frame to frame; parameters as in `temporal_matrix_numbers`.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> type(temporal_matrix(fake_trace(), step=1)).__name__
    'Figure'
    """
    matrix = temporal_matrix_numbers(data, step=step, layers=layers, heads=heads, prompt=prompt)
    fig = new_figure(theme)
    fig.add_heatmap(
        z=np.round(matrix.values, 6),
        zmin=0,
        colorscale=alpha_scale(ACCENT, 0.75),
        colorbar={"title": {"text": "weight", "side": "right"}, "tickformat": ".0%"},
        showscale=len(matrix) > _NUMBERED,
        texttemplate="%{z:.0%}" if len(matrix) <= _NUMBERED else None,
        textfont_size=11,
        xgap=1.5,
        ygap=1.5,
        hovertemplate="frame %{y} looks at frame %{x}: %{z:.1%}<extra></extra>",
    )
    ticks = {"showgrid": False, "tickmode": "linear", "dtick": max(1, -(-len(matrix) // 12)), "constrain": "domain"}
    fig.update_xaxes(title_text="frame looked at (key)", constraintoward="left", **ticks)
    fig.update_yaxes(title_text="frame looking (query)", autorange="reversed", scaleanchor="x", **ticks)
    own, even, reach = (matrix.attrs[key] for key in ("own", "even", "reach"))
    finding = f"A frame gives {percent(own)} of its temporal attention to itself (even would be {percent(even)})"
    selected = _chosen(step=step, layers=layers, heads=heads)
    note = f"{selected} Mean over everything else. Mean distance looked at: {reach:.1f} frames."
    return finish(
        fig,
        finding,
        note.strip(),
        theme=theme,
        height=380,
    )


def _chosen(**labels: object) -> str:
    """Say which step, layers and heads were selected."""
    named = ", ".join(f"{name} {label}" for name, label in labels.items() if label is not None)
    return f"{named[0].upper()}{named[1:]}." if named else ""
