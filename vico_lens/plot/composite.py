"""Influence painted over video frames, as plain numpy images.

The frame under a map is turned grey and drawn towards the middle, so that a concept's colour is never confused with an
object of that colour, and the map's opacity alone carries the amount. Figures, exports and the report all paint with the
functions here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vico_lens.errors import InputError
from vico_lens.plot.colours import concept_colours, rgb
from vico_lens.plot.reading import influence_maps

__all__ = ["Frames", "Scale", "as_frames", "composite", "enlarge", "grey", "overlay", "spans"]

Frames = NDArray[np.uint8]
Scale = Literal["shared", "each"]


def as_frames(video: Any) -> Frames:
    """Bring a video to one form.

    Parameters
    ----------
    video : array or sequence
        ``frame, row, column, channel`` in uint8 or in floats from 0 to 1, as numpy, torch or xarray; or a list of PIL images.

    Returns
    -------
    ndarray of uint8, shape ``frame row column 3``

    Raises
    ------
    InputError
        If the shape or the values are not those of a video.
    """
    if isinstance(video, list | tuple):
        video = np.stack([np.asarray(frame.convert("RGB") if hasattr(frame, "convert") else frame) for frame in video])
    if hasattr(video, "detach"):
        video = video.detach().float().cpu().numpy()
    frames = np.asarray(video)
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(f"a video must have the shape (frame, row, column, 3), got {frames.shape}.")
    if frames.dtype == np.uint8:
        return np.ascontiguousarray(frames)
    if (
        not np.issubdtype(frames.dtype, np.floating)
        or not np.isfinite(frames).all()
        or frames.min() < -1e-3
        or frames.max() > 1 + 1e-3
    ):
        raise InputError(
            f"a video must be uint8 or floats from 0 to 1, got {frames.dtype} from {frames.min()} to {frames.max()}."
        )
    return np.ascontiguousarray((np.clip(frames, 0, 1) * 255).round().astype(np.uint8))


def enlarge(frames: Frames, factor: int) -> Frames:
    """Repeat every pixel `factor` times in both directions: small videos stay sharp instead of being blurred by the viewer."""
    if factor < 1:
        raise InputError(f"an enlargement must be 1 or more, got {factor}.")
    return np.ascontiguousarray(frames.repeat(factor, axis=1).repeat(factor, axis=2))


def spans(maps: xr.DataArray, scale: Scale = "shared") -> NDArray[np.float64]:
    """Return for each concept the values painted clear and opaque, shape ``concept 2``.

    The floor that softmax leaves under every map is painted clear, or it would hide where a concept acts. ``"shared"`` gives all
    concepts the same span, so that a starved concept looks starved; ``"each"`` shows where each acts, however weak.
    """
    if scale not in ("shared", "each"):
        raise InputError(f"scale must be 'shared' or 'each', got {scale!r}.")
    low, high = (
        np.asarray(extreme, dtype=np.float64) for extreme in (maps.min(("frame", "y", "x")), maps.max(("frame", "y", "x")))
    )
    if scale == "shared":
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    return np.stack([low, np.where(high > low, high, low + 1.0)], axis=1)


def grey(frames: Frames) -> Frames:
    """Turn frames grey and draw them towards the middle: what lies under a map (luma weights of ITU-R BT.601)."""
    luma = 105 + 0.52 * (frames @ np.array([0.299, 0.587, 0.114]))
    return np.repeat(luma[..., None], 3, axis=-1).round().astype(np.uint8)


def overlay(
    frames: Frames | None, values: NDArray[np.floating], colour: str, span: NDArray[np.float64], *, strength: float = 0.9
) -> Frames:
    """Paint one concept's maps over the frames.

    Parameters
    ----------
    frames : ndarray of uint8, shape ``frame row column 3``, or None
        None paints on white, one pixel a cell.
    values : ndarray, shape ``frame y x``
        Influence; a frame of the map covers as many frames of the video as it takes (latent frames are often fewer).
    colour : str
        The concept's colour.
    span : array of two
        Value painted clear, and value painted with opacity `strength`; see `spans`.
    """
    amount = np.clip((values - span[0]) / (span[1] - span[0]), 0, 1) * strength
    if frames is None:
        base = np.full((*values.shape, 3), 255.0)
    else:
        base = grey(frames).astype(np.float64)
        pick = (np.arange(len(frames)) * len(values)) // len(frames)
        rows = (np.arange(frames.shape[1]) * values.shape[1]) // frames.shape[1]
        columns = (np.arange(frames.shape[2]) * values.shape[2]) // frames.shape[2]
        amount = amount[pick][:, rows][:, :, columns]
    painted = base * (1 - amount[..., None]) + np.array(rgb(colour)) * amount[..., None]
    return painted.round().astype(np.uint8)


def composite(
    influence: xr.DataArray,
    video: Any,
    *,
    colours: Mapping[str, str] | None = None,
    scale: Scale = "shared",
    concepts: Sequence[str] | None = None,
    size: int = 256,
    gap: int = 8,
) -> Frames:
    """Set the video and every concept's map over it side by side, ready for `save_mp4` and its siblings.

    Parameters
    ----------
    influence : DataArray, dims ``concept [step] frame y x``
    video : see `as_frames`
    size : int
        Least height of a panel in pixels; small videos are enlarged by a whole factor.
    gap : int
        White columns between panels, in pixels.

    Returns
    -------
    ndarray of uint8, shape ``frame row column 3``
        Panels from left to right: the video, then the concepts in order, each with a bar of its colour along the top.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> import numpy as np
    >>> video = np.zeros((4, 16, 16, 3), np.uint8)
    >>> composite(influence, video, size=32).shape
    (4, 36, 112, 3)
    """
    maps = abs(influence_maps(influence))
    if concepts is not None:
        maps = maps.sel(concept=list(concepts))
    named = concept_colours(influence["concept"].values, colours)
    frames = as_frames(video)
    factor = max(1, -(-size // frames.shape[1]))
    bar = max(4, size // 40)
    panels = [np.pad(enlarge(frames, factor), ((0, 0), (bar, 0), (0, 0), (0, 0)), constant_values=255)]
    for name, values, span in zip(maps["concept"].values, maps.values, spans(maps, scale), strict=True):
        painted = enlarge(overlay(frames, values, named[str(name)], span), factor)
        strip = np.broadcast_to(np.array(rgb(named[str(name)]), dtype=np.uint8), (len(painted), bar, painted.shape[2], 3))
        panels += [
            np.full((len(painted), bar + painted.shape[1], gap, 3), 255, np.uint8),
            np.concatenate([strip, painted], axis=1),
        ]
    return np.concatenate(panels, axis=2)
