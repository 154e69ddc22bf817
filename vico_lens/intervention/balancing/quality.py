"""Numbers that say whether a video was harmed: sharpness, flicker, values at the limits, distance to another video.

They are proxies, cheap and without a model: a balanced video may rightly differ in all of them, because it shows something else.
A large drop of sharpness, or a rise of flicker or of clipped values, is what an update that was too strong looks like.
"""

from __future__ import annotations

import numpy as np

from vico_lens.errors import InputError
from vico_lens.tracing.video import to_rgb

__all__ = ["clipped", "distance", "flicker", "sharpness"]

_LUMINANCE = np.array([0.299, 0.587, 0.114])


def _values(frames: object) -> np.ndarray:
    return to_rgb(frames).astype(float) / 255


def sharpness(frames: object) -> float:
    """Root mean square of the Laplacian of luminance, over all frames, in units of full range.

    Examples
    --------
    >>> sharpness(np.full((2, 8, 8, 3), 0.5))
    0.0
    """
    grey = _values(frames) @ _LUMINANCE
    if min(grey.shape[1:]) < 3:
        raise InputError(f"expected frames of at least 3 rows and columns, got {grey.shape[1:]}.")
    middle = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * middle
    return float(np.sqrt(np.square(laplacian).mean()))


def flicker(frames: object) -> float:
    """Mean absolute second difference along time, in units of full range: zero for a still or steadily changing picture.

    Examples
    --------
    >>> steady = np.linspace(0, 1, 6)[:, None, None, None] * np.ones((6, 4, 4, 3))
    >>> flicker(steady) < 0.005 < flicker(steady[[0, 5, 1, 4, 2, 3]])
    True
    """
    values = _values(frames)
    if len(values) < 3:
        return 0.0
    return float(np.abs(values[2:] - 2 * values[1:-1] + values[:-2]).mean())


def clipped(frames: object) -> float:
    """Share of channel values at either end of the range, where a decoder's excess ends up.

    Examples
    --------
    >>> clipped(np.stack([np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.5)]))
    0.5
    """
    values = to_rgb(frames)
    return float(((values == 0) | (values == 255)).mean())


def distance(first: object, second: object) -> float:
    """Root mean square difference of two videos, in units of full range.

    Raises
    ------
    InputError
        If they differ in shape.

    Examples
    --------
    >>> distance(np.zeros((2, 4, 4, 3)), np.ones((2, 4, 4, 3)))
    1.0
    """
    one, other = _values(first), _values(second)
    if one.shape != other.shape:
        raise InputError(f"expected two videos of one shape (frame, row, column, channel), got {one.shape} and {other.shape}.")
    return float(np.sqrt(np.square(one - other).mean()))
