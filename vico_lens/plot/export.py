"""Frames to files: PNG, animated GIF and WebP through Pillow, MP4 through the ffmpeg of imageio-ffmpeg. No browser takes part.

Each writer takes what `composite.as_frames` takes; small videos are enlarged by a whole factor so that players do not blur them.
Files appear whole or not at all: they are written beside their place and renamed.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vico_lens.errors import InputError
from vico_lens.plot.composite import Frames, as_frames, enlarge

__all__ = ["filmstrip", "mp4_bytes", "place_of", "save_gif", "save_mp4", "save_png", "save_webp", "webp_bytes", "write_whole"]


def save_mp4(video: Any, path: str | os.PathLike[str], fps: float = 8.0, *, scale: int | None = None) -> Path:
    """Write H.264 in an MP4 that browsers and phones play.

    Parameters
    ----------
    video : see `composite.as_frames`
    path : path
        Ends in ``.mp4``.
    fps : float
        Frames a second.
    scale : int, optional
        Whole enlargement; when None, small videos are brought near 256 rows.

    Raises
    ------
    InputError
        If the video, the speed or the place is not usable.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> path = save_mp4(np.zeros((4, 16, 16, 3), np.uint8), f"{tempfile.mkdtemp()}/clip.mp4")
    >>> path.name
    'clip.mp4'
    """
    frames = _prepared(video, fps, scale)
    return write_whole(place_of(path, ".mp4"), lambda place: _encode_mp4(frames, place, fps))


def save_gif(video: Any, path: str | os.PathLike[str], fps: float = 8.0, *, scale: int | None = None) -> Path:
    """Write an endless animated GIF (256 colours a frame, delays in hundredths of a second).

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> path = save_gif(np.zeros((4, 16, 16, 3), np.uint8), f"{tempfile.mkdtemp()}/clip.gif")
    >>> path.name
    'clip.gif'
    """
    frames = _prepared(video, fps, scale)
    return write_whole(place_of(path, ".gif"), lambda place: _encode_animation(frames, place, fps, "GIF"))


def save_webp(video: Any, path: str | os.PathLike[str], fps: float = 8.0, *, scale: int | None = None) -> Path:
    """Write an endless animated WebP, lossless.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> path = save_webp(np.zeros((4, 16, 16, 3), np.uint8), f"{tempfile.mkdtemp()}/clip.webp")
    >>> path.name
    'clip.webp'
    """
    frames = _prepared(video, fps, scale)
    return write_whole(place_of(path, ".webp"), lambda place: _encode_animation(frames, place, fps, "WEBP"))


def save_png(video: Any, path: str | os.PathLike[str], *, scale: int | None = None, columns: int | None = None) -> Path:
    """Write all frames as one PNG, in reading order; `columns` frames a row (all in one row when None).

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> path = save_png(np.zeros((4, 16, 16, 3), np.uint8), f"{tempfile.mkdtemp()}/clip.png")
    >>> path.name
    'clip.png'
    """
    from PIL import Image

    strip = filmstrip(_prepared(video, 1.0, scale), columns=columns)
    return write_whole(place_of(path, ".png"), lambda place: Image.fromarray(strip).save(place, format="PNG", optimize=True))


def filmstrip(frames: Frames, *, columns: int | None = None, gap: int = 4) -> np.ndarray:
    """Lay frames out in reading order with white gaps; returns ``row column 3`` in uint8.

    Examples
    --------
    >>> import numpy as np
    >>> filmstrip(np.zeros((4, 16, 16, 3), np.uint8)).shape
    (16, 76, 3)
    """
    count, rows, width, _ = frames.shape
    across = min(columns or count, count)
    down = -(-count // across)
    sheet = np.full((down * rows + (down - 1) * gap, across * width + (across - 1) * gap, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        top, left = (i // across) * (rows + gap), (i % across) * (width + gap)
        sheet[top : top + rows, left : left + width] = frame
    return sheet


def mp4_bytes(video: Any, fps: float = 8.0, *, scale: int | None = None, crf: int = 14) -> bytes:
    """Encode as `save_mp4` does and return the file's bytes; a higher `crf` (up to 51) is smaller and coarser."""
    frames = _prepared(video, fps, scale)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "video.mp4"
        _encode_mp4(frames, place, fps, crf)
        return place.read_bytes()


def webp_bytes(image: np.ndarray, *, quality: int | None = None) -> bytes:
    """Encode one image (``row column 3``) as WebP, lossless unless a quality from 0 to 100 is given."""
    from PIL import Image

    buffer = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if quality is None else {"quality": quality}
    Image.fromarray(image).save(buffer, format="WEBP", method=4, **options)
    return buffer.getvalue()


def _prepared(video: Any, fps: float, scale: int | None) -> Frames:
    if not 0 < fps <= 240:
        raise InputError(f"frames a second must lie between 0 and 240, got {fps}.")
    frames = as_frames(video)
    return enlarge(frames, scale if scale is not None else max(1, 256 // frames.shape[1]))


def place_of(path: str | os.PathLike[str], *endings: str) -> Path:
    """Check that a file can be written here, before the work for it is done: its ending is one of these, its folder is there.

    Examples
    --------
    >>> place_of("clip.mp4", ".mp4").name
    'clip.mp4'
    """
    place = Path(path)
    if place.suffix.lower() not in endings:
        raise InputError(f"expected a file name ending in {endings[0]}, got {place.name!r}.")
    if not place.parent.is_dir():
        raise InputError(f"the folder {str(place.parent)!r} does not exist; make it first.")
    return place


def write_whole(place: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` write beside the place, then move the file there: what stands at its place is whole.

    Examples
    --------
    >>> import tempfile
    >>> write_whole(Path(tempfile.mkdtemp()) / "a.txt", lambda place: place.write_text("whole")).read_text()
    'whole'
    """
    partial = place.with_name(f".{place.stem}.partial{place.suffix}")
    try:
        write(partial)
        os.replace(partial, place)
    except OSError as error:
        raise InputError(f"cannot write {str(place)!r}: {error.strerror or error}.") from None
    finally:
        partial.unlink(missing_ok=True)
    return place


def _encode_mp4(frames: Frames, place: Path, fps: float, crf: int = 14) -> None:
    import imageio_ffmpeg

    odd_rows, odd_columns = frames.shape[1] % 2, frames.shape[2] % 2  # 4:2:0 video has even sides only
    frames = np.pad(frames, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
    writer = imageio_ffmpeg.write_frames(
        str(place),
        (frames.shape[2], frames.shape[1]),
        fps=fps,
        codec="libx264",
        quality=None,
        pix_fmt_out="yuv420p",
        macro_block_size=1,
        ffmpeg_log_level="error",
        output_params=["-crf", str(crf), "-preset", "medium", "-tune", "animation", "-movflags", "+faststart", "-threads", "1"],
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


def _encode_animation(frames: Frames, place: Path, fps: float, form: str) -> None:
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    options: dict[str, Any] = {"lossless": True, "method": 4} if form == "WEBP" else {"optimize": False, "disposal": 1}
    pictures[0].save(place, format=form, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, **options)
