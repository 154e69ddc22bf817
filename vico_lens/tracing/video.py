"""The generated video: taken from the pipeline as it hands it out, and brought to one form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from vico_lens.errors import InputError
from vico_lens.tracing.listening import listening

__all__ = ["kept_frames", "to_rgb"]


@contextmanager
def kept_frames(pipe: object, keep: Callable[[object], None]) -> Iterator[None]:
    """Call `keep` with the frames that a pipeline's video processor returns in this thread, for the time of a ``with``.

    The return value of the pipeline itself cannot be had without wrapping its call; that of its last step can.
    """

    def take(args: tuple[Any, ...], kwargs: Mapping[str, Any], frames: object) -> None:
        if frames is not None and (kwargs.get("output_type") or "pil") != "latent":
            keep(frames)

    with listening(getattr(pipe, "video_processor", None), "postprocess_video", take):
        yield


def to_rgb(frames: object) -> np.ndarray:
    """Bring frames to uint8 ``(frame, row, column, channel)``.

    Parameters
    ----------
    frames : list of images, numpy array or torch tensor
        One video; of several in a batch the first. Arrays are uint8, or floating in [0, 1]; tensors have their channels before
        rows.

    Raises
    ------
    InputError
        If it is not a video.

    Examples
    --------
    >>> to_rgb(np.ones((1, 2, 4, 4, 3), np.float32)).shape
    (2, 4, 4, 3)
    >>> to_rgb(np.full((1, 1, 1, 3), 0.999)).max().item()  # to the nearest level, not the one below
    255
    """
    video: Any = frames
    while isinstance(video, (list, tuple)) and video and isinstance(video[0], (list, tuple)):
        video = video[0]
    channels_first = hasattr(video, "detach")
    if isinstance(video, (list, tuple)) and video and hasattr(video[0], "detach"):
        video, channels_first = video[0], True
    if channels_first:
        video = video.detach().float().cpu().numpy()
    array = np.stack([np.asarray(frame) for frame in video]) if isinstance(video, (list, tuple)) and video else np.asarray(video)
    if array.ndim == 5:
        array = array[0]
    if array.ndim == 4 and channels_first:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] not in (1, 3, 4):
        raise InputError(f"expected video frames (frame, row, column, channel), got an array {array.shape}.")
    array = np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array[..., :3]
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    return np.ascontiguousarray((np.clip(array, 0, 1) * 255).round().astype(np.uint8))
