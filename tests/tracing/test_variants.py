"""The same families called in other ways: several prompts and videos, halves of guidance, half precision, fused projections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pytest
import torch
import xarray as xr

from vico_lens.errors import TracingError
from vico_lens.store.layout import attention_groups
from vico_lens.testing import TinyPipeline, tiny_pipeline
from vico_lens.testing.pipelines.releases import older_than
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.recording import trace
from vico_lens.vocabulary.schema import KEY_DIMS

OTHER = "a blue star still and a green triangle moving left"


def traced(tiny: TinyPipeline, capture: Capture | None = None, **overrides: Any) -> xr.DataTree:
    """Trace a call, hold its output against the untraced one, and its rows against 1."""
    with tiny.context():
        plain = tiny.run(**overrides)
        with trace(tiny.pipe, capture=capture) as run:
            frames = tiny.run(**overrides)
    np.testing.assert_array_equal(frames, plain)
    assert np.isfinite(plain).all()
    tree = run.tree
    coverage = tree.attrs["coverage"]
    assert coverage, "a trace says what it covers"
    for _, kind, _, node in attention_groups(tree):
        if kind == "joint":
            sums = total(node["video_text"], ("token",)) + total(node["video_video"], KEY_DIMS["spacetime"])
        else:
            sums = total(node["weights"], KEY_DIMS[kind])
        np.testing.assert_allclose(sums, 1, atol=5e-3)
    return tree


def total(weights: xr.DataArray, dims: Iterable[str]) -> np.ndarray:
    values = weights.astype(np.float64)
    assert not np.isnan(values).any()
    return np.asarray(values.sum(list(dims)).values)


def negatives(tiny: TinyPipeline, count: int) -> dict[str, Any]:
    name = "negative_prompt"
    return {name: [tiny.kwargs[name]] * count} if name in tiny.kwargs else {}


@pytest.mark.parametrize(
    "name",
    [
        "animatediff-t2v",
        "easyanimate-t2v",
        "hunyuan-t2v",
        "kandinsky5-t2v",
        "ltx-t2v",
        "mochi-t2v",
        "motif-t2v",
        "sana-t2v",
        "wan22-t2v",
    ],
)
def test_two_prompts(name: str) -> None:
    tiny = tiny_pipeline(name)
    tree = traced(tiny, prompt=[tiny.prompt, OTHER], **negatives(tiny, 2))
    assert tree.attrs["prompt"] == [tiny.prompt, OTHER]
    words = tree.coords["word"]
    assert words.dims == ("prompt", "token")
    assert "triangle" in words.values[1] and "triangle" not in words.values[0]


@pytest.mark.parametrize("name", ["latte-t2v", "mochi-t2v", "skyreels-v2-df", "wan21-t2v"])
def test_two_videos_a_prompt(name: str) -> None:
    tiny = tiny_pipeline(name)
    several = "num_images_per_prompt" if name == "latte-t2v" else "num_videos_per_prompt"
    tree = traced(tiny, **{several: 2})
    assert all(node.sizes["prompt"] == 2 for _, _, _, node in attention_groups(tree))


@pytest.mark.parametrize(
    "name", ["animatediff-t2v", "cosmos-t2w", "hunyuan15-t2v", "kandinsky5-t2v", "ltx-t2v", "mochi-t2v", "wan22-t2v"]
)
def test_both_branches_of_guidance_differ(name: str) -> None:
    tree = traced(tiny_pipeline(name), Capture(branch="both", steps=-1))
    _, kind, _, node = next(iter(attention_groups(tree)))
    weights = node["video_text" if kind == "joint" else "weights"]
    assert list(weights.coords["branch"].values) == ["cond", "uncond"]
    assert not np.array_equal(weights.sel(branch="cond").values, weights.sel(branch="uncond").values)


@pytest.mark.parametrize("name", ["allegro-t2v", "cogvideox-t2v", "latte-t2v", "wan21-t2v"])
def test_without_guidance_all_is_conditional(name: str) -> None:
    tree = traced(tiny_pipeline(name), guidance_scale=1.0)
    assert "branch" not in tree.dims and tree.coords["branch"].item() == "cond"


@pytest.mark.parametrize("branch", ["both", "uncond"])
@pytest.mark.parametrize(("name", "off"), [("hunyuan-t2v", {}), ("latte-t2v", {"guidance_scale": 1.0})])
def test_a_branch_that_is_not_computed_is_refused(name: str, off: dict[str, Any], branch: Literal["both", "uncond"]) -> None:
    tiny = tiny_pipeline(name)
    with pytest.raises(TracingError, match="computes no uncond branch"), trace(tiny.pipe, capture=Capture(branch=branch)):
        tiny.run(**off)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["cogvideox-t2v", "ltx-t2v", "mochi-t2v", "wan21-t2v"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    tiny = tiny_pipeline(name)
    tiny.pipe.to(dtype)
    traced(tiny)


@pytest.mark.parametrize("name", ["animatediff-t2v", "cogvideox-t2v", "hunyuan-t2v", "wan21-t2v"])
def test_fused_projections_give_the_same_maps(name: str) -> None:
    tiny = tiny_pipeline(name)
    apart = traced(tiny, Capture(steps=0))
    for denoiser in tiny.denoisers.values():
        if not hasattr(denoiser, "fuse_qkv_projections") and older_than("0.36"):
            pytest.skip("diffusers 0.35 cannot fuse the projections of this model")
        denoiser.fuse_qkv_projections()
    fused = traced(tiny, Capture(steps=0))
    for group, _, _, node in attention_groups(apart):
        for variable in node.data_vars:
            if variable in ("weights", "video_text", "video_video"):
                np.testing.assert_allclose(fused[group][variable].values, node[variable].values, atol=1e-4)


@pytest.mark.parametrize("name", ["cogvideox-t2v", "ltx-t2v"])
def test_maps_kept_in_half_size_are_the_maps(name: str) -> None:
    """Weights of a softmax over many keys are far below 1; narrowing them must not change their scale."""
    tiny = tiny_pipeline(name)
    half = traced(tiny, Capture(store="weights", dtype="float16", steps=0))
    full = traced(tiny, Capture(store="weights", steps=0))
    for group, kind, _, node in attention_groups(full):
        variable = "video_video" if kind == "joint" else "weights"
        np.testing.assert_allclose(half[group][variable].values, node[variable].values, rtol=2e-3, atol=1e-6)
