"""Influence maps over the video: of one run, of several methods, before and after balancing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.basis import SHARE, basis_of
from vico_lens.plot.colours import concept_colours
from vico_lens.plot.composite import Frames, Scale, as_frames, spans
from vico_lens.plot.panels import MapRow, panel_grid
from vico_lens.plot.reading import concept_names, influence_maps, shares_over
from vico_lens.plot.theme import Theme, finish
from vico_lens.plot.wording import join, level, percent, plain, quoted

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["influence", "influence_numbers", "method_maps", "method_maps_numbers", "side_by_side"]


def influence_numbers(influence: xr.DataArray, *, step: int | None = None) -> xr.Dataset:
    """Return what `influence` draws.

    Parameters
    ----------
    influence : DataArray, dims ``concept [step] frame y x``
    step : int, optional
        One denoising step; the mean over steps when None.

    Returns
    -------
    Dataset
        ``maps(concept, frame, y, x)``, ``share(concept)`` of the total, and ``peak_frame``, ``peak_y``,
        ``peak_x(concept)``: the cell with the strongest influence.

    Examples
    --------
    >>> a = xr.DataArray([[[[3.0]]], [[[1.0]]]], dims=("concept", "frame", "y", "x"), coords={"concept": ["cat", "dog"]})
    >>> influence_numbers(a)["share"].values
    array([0.75, 0.25])
    """
    maps = influence_maps(influence, step)
    strongest = np.abs(maps.values).reshape(maps.sizes["concept"], -1).argmax(axis=1)
    frame, y, x = np.unravel_index(strongest, maps.shape[1:])
    peaks = {"peak_frame": ("concept", frame), "peak_y": ("concept", y), "peak_x": ("concept", x)}
    return xr.Dataset({"maps": maps, "share": shares_over(maps), **peaks})


def influence(
    influence: xr.DataArray,
    video: Any = None,
    *,
    step: int | None = None,
    scale: Scale = "shared",
    fps: float = 8.0,
    most: int = 48,
    colours: Mapping[str, str] | None = None,
    theme: Theme = "light",
) -> Figure:
    """Draw each concept's influence over the video, one panel a concept, with a frame slider and a play button.

    Parameters
    ----------
    influence : DataArray, dims ``concept [step] frame y x``
    video : see `composite.as_frames`, optional
        The video that was traced. It is shown beside the maps, and in grey under them; without it the maps lie on the bare page.
    step : int, optional
        One denoising step; the mean over steps when None.
    scale : {"shared", "each"}
        One opacity scale for all concepts, so that their strengths compare, or each its own, so that a weak one can be located.
    fps : float
        Speed of the play button, in frames a second.
    most : int
        Frames shown at most, evenly spread.
    colours, theme
        Fixed colours by concept; ``"light"`` or ``"dark"``.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> maps = attribute(fake_trace(), "cross_attention")
    >>> type(influence(maps)).__name__
    'Figure'
    """
    numbers = influence_numbers(influence, step=step)
    names = concept_names(numbers)
    row = _row("", numbers, scale, None if video is None else as_frames(video))
    fig = panel_grid([row], names, concept_colours(names, colours), fps=fps, most=most, theme=theme)
    note = _note(basis_of(influence, step), _scale_note(scale, video is not None))
    return finish(fig, _finding(names, numbers["share"].values), note, theme=theme, height=250, top=26, bottom=80)


def method_maps_numbers(methods: Mapping[str, xr.DataArray]) -> xr.Dataset:
    """Return what `method_maps` draws: ``share(method, concept)`` and ``leader(method)``, the concept with the largest share.

    The leader is empty where two concepts share the first place.

    Raises
    ------
    InputError
        If there is no method, or the methods speak of different concepts.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> method_maps_numbers({"cross_attention": influence}).share.dims
    ('method', 'concept')
    """
    if not methods:
        raise InputError("expected at least one method, as {name: influence}; got none.")
    first = concept_names(next(iter(methods.values())))
    for name, values in methods.items():
        if concept_names(values) != first:
            raise InputError(f"all methods must have the concepts {first}; {name!r} has {concept_names(values)}.")
    shares = xr.concat(
        [shares_over(influence_maps(values)).reset_coords(drop=True) for values in methods.values()],
        dim="method",
        coords="minimal",
    )
    shares = shares.assign_coords(method=list(methods))
    return xr.Dataset({"share": shares, "leader": ("method", [_leader(first, line) for line in shares.values])})


def _leader(names: list[str], share: np.ndarray) -> str:
    """Name the concept of the largest share; empty where there is none, or another has as much."""
    if not np.isfinite(share).all():
        return ""
    top = int(share.argmax())
    return "" if sum(level(value, share[top]) for value in share) > 1 else names[top]


def method_maps(
    methods: Mapping[str, xr.DataArray],
    video: Any = None,
    *,
    fps: float = 8.0,
    most: int = 48,
    colours: Mapping[str, str] | None = None,
    theme: Theme = "light",
) -> Figure:
    """Draw method against method: one row a method, one column a concept, all frames moving together.

    Parameters
    ----------
    methods : mapping
        ``{method name: influence}`` over the same concepts. Each method has its own opacity scale, because their units differ.
    video : see `composite.as_frames`, optional
    fps, most, colours, theme
        As in `influence`.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> type(method_maps({"cross_attention": influence})).__name__
    'Figure'
    """
    numbers = method_maps_numbers(methods)
    names = concept_names(numbers)
    frames = None if video is None else as_frames(video)
    rows = [_row(plain(name.replace("_", " ")), influence_numbers(values), "shared", frames) for name, values in methods.items()]
    fig = panel_grid(rows, names, concept_colours(names, colours), film=False, fps=fps, most=most, theme=theme)
    leaders = numbers["leader"].values.tolist()
    finding = _votes([name.replace("_", " ") for name in methods], leaders, names)
    bases = {basis_of(values, method=False) for values in methods.values()}
    note = _note(bases.pop() if len(bases) == 1 else "", "Percentages: shares.", SHARE, "Clear = least, opaque = most influence,")
    note += " each method on its own scale."
    return finish(fig, finding, note, theme=theme, height=210 * len(rows), top=26, bottom=80, left=36)


def _votes(methods: list[str], leaders: list[str], names: list[str]) -> str:
    """Say how many methods give which concept the largest share."""
    if len(names) == 1:
        return f"Where {quoted(names[0])} acts, by {len(methods)} method{'s' if len(methods) > 1 else ''}"
    clear = [leader for leader in leaders if leader]
    if not clear:
        return "No method gives one concept a larger share than the others"
    top = max(dict.fromkeys(clear), key=clear.count)
    if leaders.count(top) == len(methods):
        return f"All {len(methods)} methods give {quoted(top)} the largest share" if len(methods) > 1 else f"{quoted(top)} leads"
    others = [name for name, leader in zip(methods, leaders, strict=True) if leader != top]
    count = leaders.count(top)
    finding = f"{count} of {len(methods)} methods {'give' if count > 1 else 'gives'} {quoted(top)} the largest share; "
    return finding + f"{plain(join(others))} {'does' if len(others) == 1 else 'do'} not"


def side_by_side(
    before: xr.DataArray,
    after: xr.DataArray,
    videos: tuple[Any, Any] | None = None,
    *,
    scale: Scale = "shared",
    fps: float = 8.0,
    most: int = 48,
    colours: Mapping[str, str] | None = None,
    theme: Theme = "light",
) -> Figure:
    """Draw two runs one above the other with linked frames; what is equal in both runs looks equal, so that a gain can be seen.

    Parameters
    ----------
    before, after : DataArray, dims ``concept [step] frame y x``
        Influence in the plain and in the balanced run, by the same method.
    videos : pair, optional
        Their videos; see `composite.as_frames`.
    scale : {"shared", "each"}
        One opacity scale for all concepts, or each its own; in both cases the same for both runs.
    fps, most, colours, theme
        As in `influence`.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> type(side_by_side(influence, influence)).__name__
    'Figure'
    """
    names = list(method_maps_numbers({"before": before, "after": after})["concept"].values.astype(str))
    pair = [influence_numbers(before), influence_numbers(after)]
    first, last = (spans(abs(numbers["maps"]), scale) for numbers in pair)
    both = np.stack([np.minimum(first[:, 0], last[:, 0]), np.maximum(first[:, 1], last[:, 1])], axis=1)
    rows = []
    for label, numbers, video in zip(("plain", "balanced"), pair, videos or (None, None), strict=True):
        row = _row(label, numbers, "shared", None if video is None else as_frames(video))
        rows.append(MapRow(row.label, row.maps, both, row.titles, row.frames))
    fig = panel_grid(rows, names, concept_colours(names, colours), fps=fps, most=most, theme=theme)
    shares = [numbers["share"].values for numbers in pair]
    weak = int(np.nanargmin(shares[0])) if np.isfinite(shares[0]).any() else 0
    before_, after_ = (percent(float(share[weak])) for share in shares)
    finding = f"{quoted(names[weak])}: {before_} of the influence before, {after_} after"
    note = _note(basis_of(before), "Percentages: shares.", SHARE, _scale_note(scale, videos is not None))
    return finish(fig, finding, note, theme=theme, height=430, top=26, bottom=80, left=36)


def _row(label: str, numbers: xr.Dataset, scale: Scale, frames: Frames | None) -> MapRow:
    maps = abs(numbers["maps"])
    titles = [
        f"<b>{plain(name)}</b>  {percent(float(share))}"
        for name, share in zip(concept_names(numbers), numbers["share"].values, strict=True)
    ]
    return MapRow(label, maps, spans(maps, scale), titles, frames)


def _finding(names: list[str], shares: np.ndarray) -> str:
    if not np.isfinite(shares).all():
        return "No influence reaches the video"
    if len(names) == 1:
        return f"Where {quoted(names[0])} acts, frame by frame"
    top = int(shares.argmax())
    if sum(level(share, shares[top]) for share in shares) > 1:
        return f"No concept dominates: the largest share is {percent(float(shares[top]))}"
    return f"{quoted(names[top])} takes {percent(float(shares[top]))} of the influence"


def _note(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _scale_note(scale: Scale, filmed: bool) -> str:
    note = "Clear = least, opaque = most influence" + (
        ", one scale for all concepts." if scale == "shared" else ", each concept on its own scale."
    )
    return note + (" Grey: the video." if filmed else "")
