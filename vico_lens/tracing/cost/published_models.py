"""What tracing well-known models at their native size would take, from their published configurations alone.

No weights, no model class: the numbers of a configuration say which attention sites there are. The table answers "could I trace
this at all, and in which form?" before anything is downloaded; `vico_lens.estimate` answers it for a pipeline at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vico_lens.tracing.capture import Capture
from vico_lens.tracing.cost.budget import site_bytes
from vico_lens.vocabulary.schema import AttentionSite, Grid, Kind

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["NATIVE", "Native", "native_sizes"]


@dataclass(frozen=True, slots=True)
class Native:
    """A model at its native size.

    Attributes
    ----------
    name : str
        What people call it.
    size : str
        Frames and pixels of the video.
    steps : int
        Denoising steps of its pipeline's default.
    sites : tuple of AttentionSite
        One attention site each, in no particular order.

    Examples
    --------
    >>> NATIVE[0].name, len(NATIVE[0].sites)
    ('CogVideoX-2b', 30)
    """

    name: str
    size: str
    steps: int
    sites: tuple[AttentionSite, ...]
    source: str


def _sites(kind: Kind, count: int, grid: Grid, heads: int, head_size: int, tokens: int = 0) -> Iterator[AttentionSite]:
    for index in range(count):
        yield AttentionSite(f"{kind}.{index}", kind, grid, heads, head_size, tokens, index)


def _transformer(layers: int, grid: Grid, heads: int, head_size: int, text: int) -> tuple[AttentionSite, ...]:
    """Full self-attention and text cross-attention in every block."""
    cross = _sites("cross", layers, grid, heads, head_size, text)
    return (*_sites("spacetime", layers, grid, heads, head_size), *cross)


def _joint(layers: int, grid: Grid, heads: int, head_size: int, text: int) -> tuple[AttentionSite, ...]:
    return tuple(_sites("joint", layers, grid, heads, head_size, text))


def _animatediff() -> tuple[AttentionSite, ...]:
    """Stable Diffusion 1.5 with motion modules in every block: 8 heads, channels 320, 640, 1280, 1280, at 512 x 512."""
    sites: list[AttentionSite] = []
    for side, channels, blocks in ((64, 320, 5), (32, 640, 5), (16, 1280, 5), (8, 1280, 1)):
        grid, size = (16, side, side), channels // 8
        sites += [*_sites("spatial", blocks, grid, 8, size), *_sites("cross", blocks, grid, 8, size, 77)]
        motion = 6 if side == 8 else 5  # two in the down block, three in the up block, on the coarsest level too; one between
        sites += _sites("temporal", 2 * motion, grid, 8, size)
    return tuple(sites)


def _zeroscope() -> tuple[AttentionSite, ...]:
    """UNet3D with heads of 64 channels, at 576 x 320, and a temporal block of 8 heads in front."""
    sites = list(_sites("temporal", 2, (24, 40, 72), 8, 64))
    for rows, columns, channels, blocks in ((40, 72, 320, 5), (20, 36, 640, 5), (10, 18, 1280, 5), (5, 9, 1280, 1)):
        grid, heads = (24, rows, columns), channels // 64
        sites += [*_sites("spatial", blocks, grid, heads, 64), *_sites("cross", blocks, grid, heads, 64, 77)]
        sites += _sites("temporal", 2 * blocks, grid, heads, 64)
    return tuple(sites)


_DEFAULT = "size: the defaults of the pipeline in diffusers"

NATIVE = (
    Native(
        "CogVideoX-2b",
        "49 x 480 x 720",
        50,
        _joint(30, (13, 30, 45), 30, 64, 226),
        f"THUDM/CogVideoX-2b, transformer/config.json; {_DEFAULT}",
    ),
    Native(
        "CogVideoX-5b",
        "49 x 480 x 720",
        50,
        _joint(42, (13, 30, 45), 48, 64, 226),
        "THUDM/CogVideoX-5b, transformer/config.json; size: sample_frames, sample_height and sample_width there",
    ),
    Native(
        "Wan 2.1 1.3B",
        "81 x 480 x 832",
        50,
        _transformer(30, (21, 30, 52), 12, 128, 512),
        f"diffusers, scripts/convert_wan_to_diffusers.py, Wan-T2V-1.3B; {_DEFAULT}",
    ),
    Native(
        "Wan 2.1 14B",
        "81 x 720 x 1280",
        50,
        _transformer(40, (21, 45, 80), 40, 128, 512),
        "diffusers, scripts/convert_wan_to_diffusers.py, Wan-T2V-14B; size: its 720p form",
    ),
    Native(
        "HunyuanVideo",
        "129 x 720 x 1280",
        50,
        _joint(60, (33, 45, 80), 24, 128, 256),
        f"hunyuanvideo-community/HunyuanVideo, transformer/config.json: 20 dual and 40 single blocks; {_DEFAULT}",
    ),
    Native(
        "LTX-Video 2B",
        "161 x 512 x 704",
        50,
        _transformer(28, (21, 16, 22), 32, 64, 128),
        f"Lightricks/LTX-Video, transformer/config.json; {_DEFAULT}",
    ),
    Native(
        "Mochi 1",
        "163 x 480 x 848",
        64,
        _joint(48, (28, 30, 53), 24, 128, 256),
        "genmo/mochi-1-preview, transformer/config.json; size: that of Genmo's own command",
    ),
    Native(
        "AnimateDiff (SD 1.5)",
        "16 x 512 x 512",
        50,
        _animatediff(),
        f"guoyww/animatediff-motion-adapter-v1-5-2, config.json, with Stable Diffusion 1.5; {_DEFAULT}",
    ),
    Native(
        "ZeroScope v2",
        "24 x 320 x 576",
        50,
        _zeroscope(),
        "cerspense/zeroscope_v2_576w, unet/config.json; size: the one it was trained for",
    ),
)
"""Grids are frames x rows x columns of tokens. A test builds each model's class from its configuration and compares the sites."""


def native_sizes(capture: Capture | None = None, *, itemsize: int = 2) -> xr.Dataset:
    """Say what tracing each model of `NATIVE` would take.

    Parameters
    ----------
    capture : Capture or None
        What would be recorded; None for every step and site of the conditional branch.
    itemsize : int
        Bytes a stored number has: 2 for models in half precision.

    Returns
    -------
    xarray.Dataset
        Along ``model``: ``sites``, ``steps`` recorded, ``weights_bytes``, ``factors_bytes`` and ``stored_bytes`` of a whole run,
        and ``ratio`` of the first two.

    Examples
    --------
    >>> sizes = native_sizes(Capture(steps=0))
    >>> round(sizes.ratio.sel(model="CogVideoX-2b").item())
    139
    """
    import xarray as xr

    capture = capture or Capture()
    rows = []
    for native in NATIVE:
        sites = [site for site in native.sites if capture.wants(site)]
        steps = len(capture.chosen_steps(native.steps)) * len(capture.branches)
        heads = [capture.chosen_heads(site) for site in sites]
        sizes = [site_bytes(site, itemsize, None if kept is None else len(kept)) for site, kept in zip(sites, heads, strict=True)]
        weights, factors = (steps * sum(size[form] for size in sizes) for form in (0, 1))
        chosen = {"weights": weights, "factors": factors}.get(capture.store, steps * sum(min(size) for size in sizes))
        rows.append((len(sites), steps, weights, factors, chosen, weights / max(1, factors)))
    names = ("sites", "steps", "weights_bytes", "factors_bytes", "stored_bytes", "ratio")
    columns = {name: ("model", np.array([row[index] for row in rows])) for index, name in enumerate(names)}
    sizes_of = [native.size for native in NATIVE]
    return xr.Dataset(columns, coords={"model": [native.name for native in NATIVE], "video": ("model", sizes_of)})
