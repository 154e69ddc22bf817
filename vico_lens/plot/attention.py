"""One attention map, of any site, head and step, read from the trace one slice at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.colours import ACCENT, GREY, alpha_scale
from vico_lens.plot.reading import site_weights
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import number, percent, plain, quoted
from vico_lens.store.selection import group_data, select_run, text_coordinate

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["attention", "attention_numbers"]


def attention_numbers(
    tree: xr.DataTree,
    site: str,
    *,
    step: int | None = None,
    head: int | None = None,
    token: int | str | None = None,
    query: tuple[int, int, int] | None = None,
    prompt: int | None = None,
) -> xr.DataArray:
    """Return one attention map of one site.

    Parameters
    ----------
    tree : DataTree
        A trace, possibly on disk and of any size: only the slice asked for is read or computed.
    site : str
        Module path, or a group and a layer as ``"cross/8x8x8/0"`` (the first layer when left out).
    step : int, optional
        Denoising step by its number, from the end if negative; the last recorded one when None.
    head : int, optional
        Head by its number in the model; the mean over heads when None.
    token : int or str, optional
        Text token whose column is shown (cross and joint sites): its index, or a word of the prompt (its pieces are summed).
    query : tuple of int, optional
        Video token ``(frame, y, x)`` whose row is shown (self-attention sites); the middle one when None.
    prompt : int, optional
        Row of a batch; needed where the trace holds several.

    Returns
    -------
    DataArray
        ``frame y x`` for cross, space-time and joint sites, ``y x`` for spatial ones, ``frame`` for temporal ones.

    Raises
    ------
    InputError
        If the site, step, head, token or query is not in the trace.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> attention_numbers(fake_trace(), "cross/4x4x4", step=1, token=2).dims
    ('frame', 'y', 'x')
    """
    record, name = site_weights(tree, site, by_token=token is not None)
    data = group_data(tree, record.group)
    data = select_run(data, step=-1 if step is None else step, prompt=prompt, layer=record.layer, heads=head)
    kind, weights = record.kind, data[name]
    when = int(weights["step"])
    if "token" in weights.dims:
        index, label = _token_indices(tree, weights.sizes["token"], token, prompt)
        found = weights.isel(token=index)
        found = found.mean("head") if "head" in found.dims else found
        return _clean(found.sum("token"), kind=kind, token=label, step=when)
    if token is not None:
        raise InputError(f"{site!r} is a {kind} site: nothing there reads text; give query=(frame, y, x) instead of a token.")
    sizes = [weights.sizes[dim] for dim in ("frame", "y", "x")]
    place = query or tuple(size // 2 for size in sizes)
    if len(place) != 3 or any(not 0 <= p < size for p, size in zip(place, sizes, strict=True)):
        raise InputError(f"query must be (frame, y, x) below {tuple(sizes)}, got {place}.")
    found = weights.isel(frame=place[0], y=place[1], x=place[2], drop=True)
    found = found.mean("head") if "head" in found.dims else found
    found = found.rename({dim: str(dim).removeprefix("key_") for dim in found.dims})
    return _clean(found, kind=kind, query=list(place), step=when)


def attention(
    tree: xr.DataTree,
    site: str,
    *,
    step: int | None = None,
    head: int | None = None,
    token: int | str | None = None,
    query: tuple[int, int, int] | None = None,
    prompt: int | None = None,
    theme: Theme = "light",
) -> Figure:
    """Draw one attention map of one site, all frames beside each other; parameters as in `attention_numbers`.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> figure = attention(fake_trace(), "cross/4x4x4", step=1, token=2)
    >>> type(figure).__name__
    'Figure'
    """
    from plotly.subplots import make_subplots

    values = attention_numbers(tree, site, step=step, head=head, token=token, query=query, prompt=prompt)
    fig = new_figure(theme)
    who = f"{'mean over heads' if head is None else f'head {head}'}, denoising step {values.attrs['step']}"
    subject = (
        quoted(values.attrs["token"])
        if "token" in values.attrs
        else f"Frame {values.attrs['query'][0]}, row {values.attrs['query'][1]}, column {values.attrs['query'][2]}"
    )
    if values.dims == ("frame",):
        fig.add_bar(
            x=np.arange(values.size), y=values.values, marker_color=ACCENT, hovertemplate="frame %{x}: %{y:.1%}<extra></extra>"
        )
        fig.update_xaxes(title_text="frame looked at", showgrid=False, dtick=max(1, -(-values.size // 12)))
        fig.update_yaxes(title_text="attention weight", tickformat=".0%")
        best = int(values.values.argmax())
        return finish(
            fig,
            f"{subject} looks most at frame {best} ({percent(float(values.values[best]))})",
            f"{plain(site)}: {who}.",
            theme=theme,
            height=280,
        )
    volume = values.values if values.ndim == 3 else values.values[None]
    count = len(volume)
    across = min(count, 4 if count <= 8 else 6)
    down = -(-count // across)
    if count > 48:
        raise InputError(f"{count} frames are too many to lay out beside each other; select some of them, or use plot.influence.")
    titles = [f"frame {t}" for t in range(count)] if values.ndim == 3 else None
    grid = make_subplots(
        rows=down, cols=across, subplot_titles=titles, horizontal_spacing=0.012, vertical_spacing=0.1 / max(1, down)
    )
    fig.update_layout(grid.layout.to_plotly_json() | {"template": fig.layout.template})
    fig.update_annotations(font={"size": 11, "color": GREY})
    top = float(volume.max()) or 1.0
    for t, plane in enumerate(volume):
        tail = "" if t == 0 else str(t + 1)
        fig.add_heatmap(
            z=[[float(f"{value:.5g}") for value in line] for line in plane],
            zmin=0,
            zmax=top,
            colorscale=alpha_scale(ACCENT),
            showscale=t == 0,
            colorbar={"title": {"text": "attention weight", "side": "right"}},
            xaxis=f"x{tail}",
            yaxis=f"y{tail}",
            hovertemplate="row %{y}, column %{x}: %{z:.4g}<extra></extra>",
        )
    bare = {"showticklabels": False, "ticks": "", "showgrid": False, "mirror": True, "showline": True, "constrain": "domain"}
    fig.update_xaxes(**bare)
    fig.update_yaxes(**bare, autorange="reversed")
    for t in range(count):
        tail = "" if t == 0 else str(t + 1)
        fig.update_layout({f"yaxis{tail}": {"scaleanchor": f"x{tail}"}})
    peak = np.unravel_index(int(volume.argmax()), volume.shape)
    where = f"in frame {peak[0]}, row {peak[1]}, column {peak[2]}" if values.ndim == 3 else f"at row {peak[1]}, column {peak[2]}"
    verb = "is read most" if "token" in values.attrs else "looks most"
    return finish(
        fig,
        f"{subject} {verb} {where} (weight {number(float(volume.max()))})",
        f"{plain(site)}: {who}.",
        theme=theme,
        height=max(260, 176 * down if across == 4 else 130 * down),
        top=20,
    )


def _clean(values: xr.DataArray, **attrs: object) -> xr.DataArray:
    """Read the values, and nothing else of what the trace says of them."""
    dims = [dim for dim in ("frame", "y", "x") if dim in values.dims]
    return xr.DataArray(values.transpose(*dims).astype(np.float64).values, dims=dims, attrs=attrs)


def _token_indices(tree: xr.DataTree, count: int, token: int | str | None, prompt: int | None) -> tuple[list[int], str]:
    """Numbers of the tokens asked for, and what to call them."""
    pieces, words, kinds = (_text_of(tree, name, count, prompt) for name in ("token_text", "word", "token_kind"))
    if token is None:
        token = kinds.index("text") if "text" in kinds else 0
    if isinstance(token, str):
        found = [i for i in range(count) if token in (words[i], pieces[i])]
        if not found:
            raise InputError(
                f"no token reads {token!r}; the words are: {', '.join(dict.fromkeys(word for word in words if word))}."
            )
        return found, token
    if not 0 <= token < count:
        raise InputError(f"token must lie from 0 to {count - 1}, got {token}.")
    return [token], pieces[token] or str(token)


def _text_of(tree: xr.DataTree, name: str, count: int, prompt: int | None) -> list[str]:
    """Read a text coordinate of one prompt; blanks where there is none."""
    return [str(text) for text in text_coordinate(tree, name, prompt)[:count]] if name in tree.coords else [""] * count
