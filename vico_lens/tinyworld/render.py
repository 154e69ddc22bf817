"""Ground truth: an anti-aliased renderer with object masks, and the layouts it draws.

The world is not symmetric, on purpose: a moving object starts near the centre line across its way and moves *outward*. So the
word "right" says something about where the object is (right of the centre, on average) as well as how it moves, which is what
lets a small network learn motion words in minutes instead of never.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vico_lens.errors import InputError
from vico_lens.tinyworld.prompts import TinyObject, TinyPrompt, parse_prompt
from vico_lens.tinyworld.vocabulary import BACKGROUND, COLOURS, FRAMES, MOTIONS, RADII, RELATIONS, SHAPES, SIDE, SPEED

__all__ = ["Clip", "Layout", "coverage", "draw", "fits", "render", "sample_layout", "sample_path"]

FloatArray = NDArray[np.float32]

# Distances in units of the radius. Chosen so that the four shapes have similar areas and silhouettes that differ at a radius of
# 3.3 px.
_SQUARE_HALF_SIDE = 0.92
_CROSS_ARM, _CROSS_WIDTH = 1.15, 0.42
_TRIANGLE_HEIGHT = 0.68  # from the centroid to the base; the apex is twice as far

_EDGE = 1.25  # radii that an object keeps from the border
_GAP = 1.05, 0.5  # least distance of two objects: factor on the sum of radii, plus pixels
_TRIES = 400


@dataclass(frozen=True, slots=True)
class Layout:
    """Where objects are: centres ``[object, frame, (x, y)]`` in pixels and radii ``[object]`` in pixels.

    Examples
    --------
    >>> from vico_lens.tinyworld import parse_prompt
    >>> layout = render(parse_prompt("a red circle moving right"), seed=0).layout
    >>> layout.centres.shape, bool(layout.centres[0, -1, 0] > layout.centres[0, 0, 0])
    ((1, 8, 2), True)
    """

    centres: FloatArray
    radii: FloatArray


@dataclass(frozen=True, slots=True)
class Clip:
    """A rendered clip.

    `frames` is uint8 ``[frame, row, column, rgb]``; `masks` is float32 ``[object, frame, row, column]``, the share covered.

    Examples
    --------
    >>> from vico_lens.tinyworld import parse_prompt
    >>> clip = render(parse_prompt("a red circle moving right"), seed=0)
    >>> clip.frames.shape, clip.masks.shape
    ((8, 32, 32, 3), (1, 8, 32, 32))
    """

    frames: NDArray[np.uint8]
    masks: FloatArray
    layout: Layout


def coverage(shape: str, centre_x: FloatArray, centre_y: FloatArray, radius: FloatArray, side: int = SIDE) -> FloatArray:
    """Share of every pixel that a shape covers, by signed distance to its outline.

    Parameters
    ----------
    shape : str
        One of `vocabulary.SHAPES`.
    centre_x, centre_y, radius : ndarray
        Broadcastable ``[...]`` in pixels; pixel centres lie at half-integers.
    side : int
        Rows and columns.

    Returns
    -------
    ndarray
        float32 ``[..., row, column]`` in 0..1.
    """
    grid = np.arange(side, dtype=np.float32) + 0.5
    centre_x, centre_y, radius = (np.asarray(a, np.float32)[..., None, None] for a in (centre_x, centre_y, radius))
    x, y = grid[None, :] - centre_x, grid[:, None] - centre_y
    if shape == "circle":
        distance = np.hypot(x, y) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - _SQUARE_HALF_SIDE * radius
    elif shape == "triangle":  # equilateral, point up, centroid at the centre
        height = _TRIANGLE_HEIGHT * radius
        distance = np.maximum(y - height, 0.8660254 * np.abs(x) - 0.5 * y - height)
    elif shape == "cross":
        arm, width = _CROSS_ARM * radius, _CROSS_WIDTH * radius
        across = np.maximum(np.abs(x) - arm, np.abs(y) - width)
        upright = np.maximum(np.abs(y) - arm, np.abs(x) - width)
        distance = np.minimum(across, upright)
    else:
        raise InputError(f"unknown shape {shape!r}: known are {', '.join(SHAPES)}.")
    return np.clip(0.5 - distance, 0.0, 1.0).astype(np.float32)


def draw(objects: Sequence[TinyObject], layout: Layout, side: int = SIDE) -> tuple[FloatArray, FloatArray]:
    """Paint objects in order over the background.

    Returns
    -------
    frames : ndarray
        float32 ``[frame, row, column, rgb]`` in 0..1.
    masks : ndarray
        float32 ``[object, frame, row, column]``: the share of each pixel where the object is seen.
    """
    masks = np.stack(
        [
            coverage(item.shape, centres[:, 0], centres[:, 1], np.broadcast_to(radius, centres.shape[:1]), side)
            for item, centres, radius in zip(objects, layout.centres, layout.radii, strict=True)
        ]
    )
    frames = np.broadcast_to(np.asarray(BACKGROUND, np.float32), (*masks.shape[1:], 3)).copy()
    for index, (item, mask) in enumerate(zip(objects, masks, strict=True)):
        frames += mask[..., None] * (np.asarray(COLOURS[item.colour], np.float32) - frames)
        masks[:index] *= 1 - mask
    return frames, masks


def sample_layout(prompt: TinyPrompt, rng: np.random.Generator) -> Layout | None:
    """Draw places and speeds for the objects of a prompt, or ``None`` if they found no room in many tries."""
    for _ in range(_TRIES):
        radii = np.array([_radius(item, len(prompt.objects), rng) for item in prompt.objects], np.float32)
        centres = np.stack([sample_path(item.motion, radius, rng) for item, radius in zip(prompt.objects, radii, strict=True)])
        if fits(centres, radii, prompt.relation):
            return Layout(centres.astype(np.float32), radii)
    return None


def render(prompt: TinyPrompt | str, *, seed: int = 0) -> Clip:
    """Draw a prompt as it should look.

    Parameters
    ----------
    prompt : TinyPrompt or str
        What to draw.
    seed : int
        Places, speeds and unnamed sizes; the same seed gives the same clip.

    Returns
    -------
    Clip
        Frames, object masks and the layout.

    Raises
    ------
    InputError
        If the prompt is not one of the tiny world, or its objects found no room.

    Examples
    --------
    >>> clip = render("a red circle moving right and a blue square moving up", seed=0)
    >>> clip.frames.shape, clip.masks.shape
    ((8, 32, 32, 3), (2, 8, 32, 32))
    """
    asked = parse_prompt(prompt) if isinstance(prompt, str) else prompt
    layout = sample_layout(asked, np.random.default_rng(seed))
    if layout is None:
        raise InputError(f"no room for {str(asked)!r} with seed {seed}: try another seed, or smaller objects.")
    frames, masks = draw(asked.objects, layout)
    return Clip((frames * 255).round().astype(np.uint8), masks, layout)


def _radius(item: TinyObject, objects: int, rng: np.random.Generator) -> float:
    # Three large objects do not fit; unnamed sizes of three are small.
    size = item.size or ("small" if objects == 3 else ("small", "large")[int(rng.integers(2))])
    return float(rng.uniform(*RADII[size]))


def sample_path(motion: str, radius: float, rng: np.random.Generator) -> FloatArray:
    """Centres ``[frame, (x, y)]`` of one object."""
    low, high = radius * _EDGE + 0.5, SIDE - radius * _EDGE - 0.5
    time = np.arange(FRAMES, dtype=np.float32)
    step = MOTIONS[motion]
    if step == (0, 0):
        return np.tile(rng.uniform(low, high, 2), (FRAMES, 1)).astype(np.float32)
    speed = rng.uniform(*SPEED)
    latest = high - SIDE / 2 - speed * (FRAMES - 1)  # start beyond which the object would leave the frame
    along = rng.uniform(-3.0, max(-2.5, latest)) + speed * time
    across = np.full(FRAMES, rng.uniform(low, high))
    sign = step[0] + step[1]
    outward = SIDE / 2 + sign * along
    return np.stack([outward, across] if step[0] else [across, outward], axis=1).astype(np.float32)


def fits(centres: FloatArray, radii: FloatArray, relation: str | None = None) -> NDArray[np.bool_]:
    """Whether objects keep apart in every frame and stand in the relation that was asked for.

    Parameters
    ----------
    centres : ndarray
        ``[..., object, frame, (x, y)]`` in pixels.
    radii : ndarray
        ``[..., object]`` in pixels.
    relation : str, optional
        One of `vocabulary.RELATIONS`, between the first object and the second.

    Returns
    -------
    ndarray
        bool ``[...]``.
    """
    good = np.ones(radii.shape[:-1], bool)
    for first in range(radii.shape[-1]):
        for second in range(first):
            distance = np.abs(centres[..., first, :, :] - centres[..., second, :, :]).max(axis=-1).min(axis=-1)
            good &= distance >= _GAP[0] * (radii[..., first] + radii[..., second]) + _GAP[1]
    if relation is not None:
        offset = centres[..., 0, 0, :] - centres[..., 1, 0, :]
        axis = 0 if RELATIONS[relation][0] else 1
        good &= -offset[..., axis] >= np.abs(offset[..., 1 - axis])
    return good
