"""The generated video: taken from the pipeline as it hands it out, and brought to one form."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vico_lens.errors import InputError

__all__ = ["kept_frames", "to_rgb"]


Keep = Callable[[object], None]

_lock = threading.Lock()


@contextmanager
def kept_frames(pipe: object, keep: Keep) -> Iterator[None]:
    """Call `keep` with the frames that a pipeline's video processor hands out in this thread, for the time of a ``with``.

    The pipeline's return value cannot be had without wrapping its call; its last step can, on the instance. Traces that overlap
    share one wrapper, and the last of them to end takes it off.
    """
    processor: Any = getattr(pipe, "video_processor", None)
    if getattr(processor, "postprocess_video", None) is None:
        yield
        return
    mine = threading.get_ident(), keep
    with _lock:
        wrapper = vars(processor).get("postprocess_video")
        if not isinstance(wrapper, _HandingOn):
            wrapper = processor.postprocess_video = _HandingOn(processor.postprocess_video, wrapper)
        wrapper.keepers.append(mine)
    try:
        yield
    finally:
        with _lock:
            wrapper.keepers.remove(mine)
            if not wrapper.keepers:
                del processor.postprocess_video
                if wrapper.had is not None:
                    processor.postprocess_video = wrapper.had


class _HandingOn:
    """A video processor's last step, which hands its frames on to those who keep them in the thread that makes them.

    `had` is what stood in its place on the instance, if anything did.
    """

    def __init__(self, method: Callable[..., Any], had: Callable[..., Any] | None) -> None:
        self.method, self.had = method, had
        self.keepers: list[tuple[int, Keep]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        frames = self.method(*args, **kwargs)
        if frames is not None and (kwargs.get("output_type") or "pil") != "latent":
            for keep in [keep for thread, keep in self.keepers if thread == threading.get_ident()]:
                keep(frames)
        return frames


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
