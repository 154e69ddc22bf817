from __future__ import annotations

import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from synthetic import influence, video

from vico_lens import plot
from vico_lens.errors import InputError
from vico_lens.plot.composite import enlarge
from vico_lens.plot.export import mp4_bytes


def decoded(path) -> np.ndarray:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-c:v", "ppm", "-f", "image2pipe", "-"]
    raw, frames = subprocess.run(command, check=True, capture_output=True).stdout, []
    while raw:
        _, size, _, rest = raw.split(b"\n", 3)
        width, height = map(int, size.split())
        frames.append(np.frombuffer(rest[: width * height * 3], np.uint8).reshape(height, width, 3))
        raw = rest[width * height * 3 :]
    return np.stack(frames)


def smooth(frames=5, rows=33, columns=47) -> np.ndarray:
    ramp = np.linspace(0, 255, rows * columns).reshape(1, rows, columns, 1)
    return np.clip(ramp + 10 * np.arange(frames).reshape(-1, 1, 1, 1) + np.zeros(3), 0, 255).astype(np.uint8)


def test_mp4_holds_every_frame_and_its_colours(tmp_path):
    film = smooth()
    place = plot.save_mp4(film, tmp_path / "film.mp4", fps=10, scale=1)
    back = decoded(place)
    assert back.shape == (5, 34, 48, 3)  # odd sides are padded by their edge
    assert np.abs(back[:, :33, :47].astype(int) - film).mean() < 3
    assert b"moov" in place.read_bytes()[:2000]  # the index stands first, so that a page can play it while reading


def test_small_videos_are_enlarged(tmp_path):
    assert decoded(plot.save_mp4(smooth(2, 32, 32), tmp_path / "a.mp4")).shape == (2, 256, 256, 3)
    assert len(mp4_bytes(smooth(2, 32, 32), crf=40)) < len(mp4_bytes(smooth(2, 32, 32), crf=8))


@pytest.mark.parametrize("form", ["gif", "webp"])
def test_animations_keep_frames_and_loop(tmp_path, form):
    film = smooth(4, 16, 16)
    place = getattr(plot, f"save_{form}")(film, tmp_path / f"film.{form}", fps=5, scale=2)
    with Image.open(place) as picture:
        assert picture.n_frames == 4 and picture.size == (32, 32) and picture.info["loop"] == 0
        for t in range(4):
            picture.seek(t)
            shown = np.asarray(picture.convert("RGB")).astype(int)
            assert np.abs(shown - enlarge(film, 2)[t]).max() <= (8 if form == "gif" else 0)
            assert picture.info["duration"] == 200


def test_png_strip_is_exact(tmp_path):
    film = video(frames=3, rows=8, columns=6)
    place = plot.save_png(film, tmp_path / "strip.png", scale=1, columns=2)
    sheet = np.asarray(Image.open(place))
    assert sheet.shape == (8 * 2 + 4, 6 * 2 + 4, 3)
    assert np.array_equal(sheet[:8, 10:], film[1]) and np.array_equal(sheet[12:, :6], film[2])
    assert (sheet[12:, 10:] == 255).all()


def test_maps_over_video_go_to_every_form(tmp_path):
    frames = plot.composite(influence(), video(), size=32)
    for form in ("mp4", "gif", "png"):
        assert getattr(plot, f"save_{form}")(frames, tmp_path / f"maps.{form}", scale=1).stat().st_size > 100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["maps.gif", "maps.mp4", "maps.png"]


def test_wrong_places_and_speeds_are_refused_and_leave_nothing(tmp_path):
    for place, message in ((tmp_path / "a.avi", "ending in .mp4"), (tmp_path / "no" / "a.mp4", "does not exist")):
        with pytest.raises(InputError, match=message):
            plot.save_mp4(smooth(2), place)
    with pytest.raises(InputError, match="frames a second"):
        plot.save_mp4(smooth(2), tmp_path / "a.mp4", fps=0)
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        plot.save_png(smooth(2), tmp_path / "taken.png")
    assert [p.name for p in tmp_path.iterdir()] == ["taken.png"]


def test_numbers_and_pictures_need_neither_plotly_nor_torch():
    code = (
        "import sys, numpy as np, xarray as xr; import vico_lens as vl; p = vl.plot;"
        "a = xr.DataArray(np.ones((1, 1, 2, 2)), dims=('concept', 'frame', 'y', 'x'), coords={'concept': ['a']});"
        "p.influence_numbers(a); p.shares_numbers(a); p.composite(a, np.zeros((1, 4, 4, 3), np.uint8));"
        "loaded = {'plotly', 'torch', 'diffusers', 'imageio_ffmpeg', 'streamlit'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
