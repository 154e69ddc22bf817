"""Objects seen in a clip: coloured blobs in each frame, linked over time, each with a shape, a size and a motion.

The reading uses no network. Palette colours are far apart on rays from the background colour, so a pixel's colour is the ray it
lies closest to and its coverage is how far along it lies; a shape is the template (four shapes, many radii, drawn at the blob's
own sub-pixel centroid) that overlaps the blob's coverage best.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vico_lens.tinyworld.render import coverage
from vico_lens.tinyworld.vocabulary import BACKGROUND, COLOURS, MOTIONS, SHAPES, SIZE_BOUNDARY

__all__ = ["Track", "find_tracks"]

FloatArray = NDArray[np.float32]

_SOLID = 0.5  # coverage above which a pixel seeds a blob
_OFF_RAY = 0.30  # largest distance in RGB from a colour's ray
_LEAST_AREA = 8  # pixels of a blob's solid core
_LEAST_FRAMES = 5  # of eight: an object that is seen less often is a flicker
_JUMP = 5.0  # pixels that a blob may move between frames
_LEAST_OVERLAP, _LEAST_MARGIN = 0.72, 0.015  # template overlap below which, or lead below which, no shape is read
_STILL, _MOVING = 0.45, 0.60  # pixels a frame
_DIAGONAL, _ERRATIC = 0.5, 1.2  # share of the lesser axis; RMS pixels off a straight line
_WINDOW = 20  # side of the square in which shapes are compared
_RADII = np.arange(2.5, 6.6, 0.15, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Track:
    """One object as it is seen: its words as far as they can be read, and the numbers behind them.

    `shape` is ``"unreadable"`` where no template fits; `motion` is ``"other"`` off the five words. `velocity` is in pixels a
    frame, `centre` the mean ``(x, y)`` in pixels, `frames` the number of frames in which it was seen.
    """

    colour: str
    shape: str
    motion: str
    size: str
    radius: float
    overlap: float
    velocity: tuple[float, float]
    centre: tuple[float, float]
    frames: int


@dataclass(slots=True)
class _Blob:
    frame: int
    x: float
    y: float
    alpha: FloatArray  # [row, column]


def find_tracks(frames: FloatArray) -> list[Track]:
    """Read the objects of a clip ``[frame, row, column, rgb]`` in 0..1."""
    names = list(COLOURS)
    rays = np.array([COLOURS[name] for name in names], np.float32) - np.asarray(BACKGROUND, np.float32)
    pixels = frames.astype(np.float32) - np.asarray(BACKGROUND, np.float32)
    alpha = pixels @ rays.T / (rays**2).sum(axis=1)  # [frame, row, column, colour]
    off = np.linalg.norm(pixels[..., None, :] - np.clip(alpha, 0.0, 1.1)[..., None] * rays, axis=-1)
    nearest = off.argmin(axis=-1)
    tracks = []
    for index, name in enumerate(names):
        solid = (nearest == index) & (alpha[..., index] > _SOLID) & (off[..., index] < _OFF_RAY)
        soft = np.where(off[..., index] < _OFF_RAY * 1.5, np.clip(alpha[..., index], 0.0, 1.0), 0.0)
        for chain in _link([_blobs(solid[frame], soft[frame], frame) for frame in range(len(frames))]):
            if len(chain) >= _LEAST_FRAMES:
                tracks.append(_read(name, chain))
    return tracks


def _blobs(solid: NDArray[np.bool_], soft: FloatArray, frame: int) -> list[_Blob]:
    from scipy import ndimage

    labels, count = ndimage.label(solid)
    grid = np.arange(solid.shape[0], dtype=np.float32) + 0.5
    found = []
    for label in range(1, count + 1):
        core = labels == label
        if core.sum() < _LEAST_AREA:
            continue
        rim = ndimage.binary_dilation(core, iterations=1, structure=np.ones((3, 3)))
        alpha = np.where(rim & ((labels == 0) | core), soft, 0.0).astype(np.float32)
        mass = alpha.sum()
        found.append(_Blob(frame, float((alpha.sum(0) @ grid) / mass), float((alpha.sum(1) @ grid) / mass), alpha))
    return found


def _link(frames: list[list[_Blob]]) -> list[list[_Blob]]:
    """Join the blobs of one colour over frames, nearest to nearest."""
    from scipy.optimize import linear_sum_assignment

    chains: list[list[_Blob]] = []
    for blobs in frames:
        free = list(blobs)
        if chains and blobs:
            distance = np.array([[np.hypot(c[-1].x - b.x, c[-1].y - b.y) for b in blobs] for c in chains])
            allowed = np.array([[_JUMP * (b.frame - c[-1].frame) for b in blobs] for c in chains])
            rows, columns = linear_sum_assignment(np.where(distance <= allowed, distance, 1e6))
            for row, column in zip(rows, columns, strict=True):
                if distance[row, column] <= allowed[row, column]:
                    chains[row].append(blobs[column])
                    free.remove(blobs[column])
        chains.extend([blob] for blob in free)
    return chains


def _read(colour: str, chain: list[_Blob]) -> Track:
    overlaps = np.stack([_overlaps(blob) for blob in chain])  # [frame, shape, radius]
    best = overlaps.max(axis=2).mean(axis=0)
    order = np.argsort(best)
    shape_index = int(order[-1])
    readable = best[order[-1]] >= _LEAST_OVERLAP and best[order[-1]] - best[order[-2]] >= _LEAST_MARGIN
    radius = float(np.median(_RADII[overlaps[:, shape_index].argmax(axis=1)]))
    time = np.array([blob.frame for blob in chain], np.float32)
    places = np.array([(blob.x, blob.y) for blob in chain], np.float32)
    centred = time - time.mean()
    velocity = centred @ places / (centred @ centred)
    scatter = np.sqrt((((places - places.mean(0)) - centred[:, None] * velocity) ** 2).sum(1).mean())
    return Track(
        colour=colour,
        shape=SHAPES[shape_index] if readable else "unreadable",
        motion=_motion(velocity, float(scatter)),
        size="small" if radius < SIZE_BOUNDARY else "large",
        radius=radius,
        overlap=float(best[shape_index]),
        velocity=(float(velocity[0]), float(velocity[1])),
        centre=(float(places[:, 0].mean()), float(places[:, 1].mean())),
        frames=len(chain),
    )


def _motion(velocity: FloatArray, scatter: float) -> str:
    fast, slow = float(np.abs(velocity).max()), float(np.abs(velocity).min())
    if scatter > _ERRATIC:
        return "other"
    if fast < _STILL:
        return "still"
    if fast < _MOVING or slow > _DIAGONAL * fast:
        return "other"
    return max(MOTIONS, key=lambda word: float(np.dot(MOTIONS[word], velocity)))


@cache
def _centroid_offsets() -> FloatArray:
    """Centroid minus centre ``[shape, radius, (x, y)]``: templates are drawn centroid on centroid with the blob."""
    middle, side = 16.0, 32
    grid = np.arange(side, dtype=np.float32) + 0.5
    offsets = []
    for shape in SHAPES:
        alpha = coverage(shape, np.full(len(_RADII), middle), np.full(len(_RADII), middle), _RADII, side)
        mass = alpha.sum((1, 2))
        offsets.append(np.stack([alpha.sum(1) @ grid / mass - middle, alpha.sum(2) @ grid / mass - middle], axis=1))
    return np.stack(offsets).astype(np.float32)


def _overlaps(blob: _Blob) -> FloatArray:
    """Overlap (sum of minima over sum of maxima) of a blob with every template: ``[shape, radius]``."""
    left, top = round(blob.x - _WINDOW / 2), round(blob.y - _WINDOW / 2)
    padded = np.pad(blob.alpha, _WINDOW)
    window = padded[top + _WINDOW : top + 2 * _WINDOW, left + _WINDOW : left + 2 * _WINDOW]
    offsets = _centroid_offsets()
    rows = []
    for index, shape in enumerate(SHAPES):
        template = coverage(shape, blob.x - left - offsets[index, :, 0], blob.y - top - offsets[index, :, 1], _RADII, _WINDOW)
        rows.append(np.minimum(template, window).sum((1, 2)) / np.maximum(template, window).sum((1, 2)))
    return np.stack(rows)
