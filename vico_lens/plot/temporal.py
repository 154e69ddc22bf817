"""How frames look at each other: the temporal attention matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.colours import ACCENT, alpha_scale
from vico_lens.plot.reading import pick, temporal_group
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import percent

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["temporal_matrix", "temporal_matrix_numbers"]

_NUMBERED = 10  # frames; up to here every cell has room for its number, beyond it a colour bar


def temporal_matrix_numbers(
    data: xr.DataTree | xr.DataArray,
    *,
    step: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    prompt: int = 0,
) -> xr.DataArray:
    """Return the mean attention from frame to frame.

    Parameters
    ----------
    data : DataTree or DataArray
        A trace, of which the finest temporal group is read (space-time attention when there is none), or an array with the dims
        ``frame key_frame`` and any others, which are averaged.
    step, layer, head : int, optional
        Labels to look at; the mean over all recorded ones when None.
    prompt : int
        Row of a batch.

    Returns
    -------
    DataArray of float64, dims ``frame key_frame``
        Rows sum to 1. Attributes: ``own`` (mean weight on the frame itself) and ``reach`` (mean distance looked at, in frames).

    Raises
    ------
    InputError
        If nothing in `data` connects frames.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> temporal_matrix_numbers(fake_trace(), step=1).dims
    ('frame', 'key_frame')
    """
    if isinstance(data, xr.DataTree):
        weights = temporal_group(data)
    else:
        weights = data
    if not {"frame", "key_frame"} <= set(map(str, weights.dims)):
        raise InputError(f"expected weights with the dims frame and key_frame, got {tuple(map(str, weights.dims))}.")
    weights = pick(weights, step=step, layer=layer, head=head, prompt=prompt)
    rest = [dim for dim in weights.dims if dim not in ("step", "layer", "frame", "key_frame")]
    matrix: np.ndarray | None = None
    outer = [dim for dim in ("step", "layer") if dim in weights.dims]
    count = int(np.prod([weights.sizes[dim] for dim in outer], dtype=int))
    keys = [dim for dim in rest if str(dim).startswith("key_")]
    for index in np.ndindex(
        *[weights.sizes[dim] for dim in outer]
    ):  # one call at a time: a trace larger than memory stays readable
        block = weights.isel(dict(zip(outer, index, strict=True))).astype(np.float64)
        part = block.sum(keys, min_count=1).mean([dim for dim in rest if dim not in keys]).transpose("frame", "key_frame").values
        matrix = part if matrix is None else matrix + part
    if matrix is None:
        raise InputError("expected recorded steps and layers, got none.")
    matrix = matrix / count
    matrix = matrix / matrix.sum(axis=1, keepdims=True)  # float16 storage leaves rows a little off 1
    distance = np.abs(np.subtract.outer(np.arange(len(matrix)), np.arange(matrix.shape[1])))
    return xr.DataArray(
        matrix,
        dims=("frame", "key_frame"),
        attrs={
            "own": float(np.diag(matrix).mean()),
            "reach": float((matrix * distance).sum(axis=1).mean()),
            "even": 1 / matrix.shape[1],
        },
    )


def temporal_matrix(
    data: xr.DataTree | xr.DataArray,
    *,
    step: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    prompt: int = 0,
    theme: Theme = "light",
) -> Figure:
    """Draw the mean attention from frame to frame; parameters as in `temporal_matrix_numbers`.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> type(temporal_matrix(fake_trace(), step=1)).__name__
    'Figure'
    """
    matrix = temporal_matrix_numbers(data, step=step, layer=layer, head=head, prompt=prompt)
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
    return finish(
        fig,
        finding,
        f"Mean over positions, heads, layers and steps not selected. Mean reach: {reach:.1f} frames.",
        theme=theme,
        height=380,
    )
