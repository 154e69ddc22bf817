"""Latent cells that the call was given, and that no update may move: the image of image-to-video, and frames already denoised.

Pipelines keep such cells in the same tensor as the noise and leave them out of the scheduler's step. They say so in one of four
ways, all of which are read here from the running call: a timestep for each token or frame, lower where the content is known; a
table of the frames to update (diffusion forcing); channels behind the latents proper, whose last one marks the given frames
(Kandinsky 5); or by putting the image's latents in the place of the first frame (HunyuanVideo image-to-video).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vico_lens.errors import BalanceError

__all__ = ["frame_axis", "given_cells", "untouched_frames"]

_FRAME_AXES = {"BCFHW": 2, "BFCHW": 1, "BFHWC": 1}
_SPACE_AXES = {"BCFHW": (3, 4), "BFCHW": (3, 4), "BFHWC": (2, 3)}


def frame_axis(layout: str) -> int | None:
    """Axis of the latents that counts frames; None for packed latents.

    Examples
    --------
    >>> frame_axis("BFCHW"), frame_axis("packed")
    (1, None)
    """
    return _FRAME_AXES.get(layout)


def given_cells(latents: Tensor, layout: str, timestep: Any, known: Mapping[str, Any]) -> Tensor | None:
    """Which latent cells are given, and not generated, at this denoising step.

    Parameters
    ----------
    latents : Tensor [video, ...]
        As the pipeline keeps them.
    layout : str
        Order of their axes, see `vico_lens.tracing.families.Family`.
    timestep : Tensor or number
        What the denoiser is given, of the rows that are conditioned on the prompt.
    known : mapping
        Local variables of the pipeline's running call.

    Returns
    -------
    Tensor or None
        Bool, broadcastable to `latents`, True where a cell is given; None if none is.

    Raises
    ------
    BalanceError
        If the timesteps differ within a video in a way that does not fit its latents.

    Examples
    --------
    >>> latents = torch.zeros(1, 4, 3, 2, 2)
    >>> given_cells(latents, "BCFHW", torch.tensor([[0.0, 500.0, 500.0]]), {}).flatten().tolist()
    [True, False, False]
    >>> given_cells(latents, "BCFHW", torch.tensor([500.0]), {}) is None
    True
    """
    found = [
        part for part in (_by_time(latents, layout, timestep, known), _by_layout(latents, layout, known)) if part is not None
    ]
    if not found:
        return None
    given = found[0] if len(found) == 1 else found[0] | found[1]
    return given if bool(given.any()) else None


def _by_time(latents: Tensor, layout: str, timestep: Any, known: Mapping[str, Any]) -> Tensor | None:
    """Cells whose timestep, or whose place in the table of updates, says that they are not denoised now."""
    updated, index = known.get("step_update_mask"), known.get("i")
    if isinstance(updated, Tensor) and isinstance(index, int):
        return _spread(~updated[index].bool().reshape(1, -1).to(latents.device), latents, layout)
    marked = known.get("cond_mask")
    if isinstance(marked, Tensor) and marked.dim() == latents.dim():
        return marked[-latents.shape[0] :] > 0
    if not isinstance(timestep, Tensor) or timestep.numel() <= latents.shape[0]:
        return None
    times = timestep.reshape(timestep.shape[0], -1)[-latents.shape[0] :].float()
    highest = times.amax(1, keepdim=True)
    if bool((times == highest).all()):
        return None
    return _spread(times < highest, latents, layout)


def _by_layout(latents: Tensor, layout: str, known: Mapping[str, Any]) -> Tensor | None:
    """Channels behind the latents proper and the frames they mark, or a first frame that the image takes the place of."""
    if known.get("image_condition_type") == "token_replace" and layout == "BCFHW":
        first = torch.arange(latents.shape[2], device=latents.device) == 0
        return first.reshape(1, 1, -1, 1, 1)
    count = known.get("num_channels_latents")
    if layout != "BFHWC" or not isinstance(count, int) or latents.shape[-1] <= count:
        return None
    behind = torch.arange(latents.shape[-1], device=latents.device) >= count
    return behind | (latents[..., -1:] > 0)


def _spread(values: Tensor, latents: Tensor, layout: str) -> Tensor:
    """Bring values ``[video, frame]`` or ``[video, token]`` to the axes of the latents."""
    videos, count = values.shape
    axis = _FRAME_AXES.get(layout)
    if axis is None and latents.dim() == 3 and count == latents.shape[1]:
        return values[:, :, None]
    if axis is not None:
        frames = latents.shape[axis]
        rows, columns = (latents.shape[place] for place in _SPACE_AXES[layout])
        if count == frames:
            return values.reshape([videos if place == 0 else frames if place == axis else 1 for place in range(5)])
        side = math.isqrt(frames * rows * columns // count) if count else 0
        if side and count * side**2 == frames * rows * columns and rows % side == columns % side == 0:
            fine = values.reshape(videos, frames, rows // side, columns // side)
            fine = fine.repeat_interleave(side, 2).repeat_interleave(side, 3)
            channel = ({1, 2, 3, 4} - {axis, *_SPACE_AXES[layout]}).pop()
            return fine.unsqueeze(channel)
    raise BalanceError(
        f"expected one timestep a video, frame or token of latents of shape {tuple(latents.shape)} ({layout}), got {count} a "
        "video that differ; which cells the call was given is not known, so they could not be kept. Balance another pipeline."
    )


def untouched_frames(before: Tensor, after: Tensor, layout: str) -> list[int]:
    """Frames whose every value is the same before and after a scheduler step that changed others; empty for packed latents.

    Examples
    --------
    >>> before = torch.zeros(1, 1, 3, 1, 1)
    >>> untouched_frames(before, before + torch.tensor([0.0, 1.0, 1.0]).reshape(1, 1, 3, 1, 1), "BCFHW")
    [0]
    """
    axis = _FRAME_AXES.get(layout)
    if axis is None or before.shape != after.shape:
        return []
    same = (before == after).movedim(axis, 0).flatten(1).all(1)
    return [] if bool(same.all()) else same.nonzero().flatten().tolist()
