"""Balancing with a cache of diffusers: forwards that balancing makes itself are not counted by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from vico_lens.intervention.balancing import FixedRms, Schedule, balance
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline
from vico_lens.tracing.model_caches import has_cache

NAMES = ["red circle", "blue square"]


def _config(name: str, **settings: Any) -> Callable[[Any], Any]:
    def make(pipe: Any) -> Any:
        callback = {"current_timestep_callback": lambda: pipe.current_timestep} if "Pyramid" in name or "Faster" in name else {}
        return getattr(diffusers, name)(**settings, **callback)

    return make


BLOCKS = ("blocks", "transformer_blocks")
EVERY_STEP = (-1, 10_000)
CACHES = {
    "first block": _config("FirstBlockCacheConfig", threshold=0.5),
    "pyramid": _config(
        "PyramidAttentionBroadcastConfig",
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=EVERY_STEP,
        cross_attention_block_skip_range=2,
        cross_attention_timestep_skip_range=EVERY_STEP,
        spatial_attention_block_identifiers=BLOCKS,
        cross_attention_block_identifiers=BLOCKS,
    ),
    "taylorseer": _config(
        "TaylorSeerCacheConfig", cache_interval=2, disable_cache_before_step=1, cache_identifiers=[".*attn1", ".*attn2"]
    ),
    "faster": _config(
        "FasterCacheConfig",
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=EVERY_STEP,
        unconditional_batch_skip_range=2,
        unconditional_batch_timestep_skip_range=EVERY_STEP,
        tensor_format="BFCHW",
        spatial_attention_block_identifiers=BLOCKS,
    ),
    "mag": _config("MagCacheConfig", num_inference_steps=6, retention_ratio=0.2, threshold=5.0, mag_ratios=[1.0] * 6),
    "sea": _config("SeaCacheConfig", threshold=0.5),
}


def cached(pipeline: str, cache: str) -> TinyPipeline:
    if not hasattr(diffusers, CACHE_CLASSES[cache]):
        pytest.skip(f"diffusers {diffusers.__version__} has no {CACHE_CLASSES[cache]}")
    tiny = tiny_pipeline(pipeline)
    tiny.pipe.transformer.enable_cache(CACHES[cache](tiny.pipe))
    assert has_cache(tiny.pipe.transformer)
    return tiny


CACHE_CLASSES = {
    "first block": "FirstBlockCacheConfig",
    "pyramid": "PyramidAttentionBroadcastConfig",
    "taylorseer": "TaylorSeerCacheConfig",
    "faster": "FasterCacheConfig",
    "mag": "MagCacheConfig",
    "sea": "SeaCacheConfig",
}


@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")  # diffusers' own, in FasterCache
@pytest.mark.parametrize(
    ("name", "cache"),
    [
        *(("wan21-t2v", cache) for cache in ("first block", "pyramid", "taylorseer", "mag", "sea")),
        *(("cogvideox-t2v", cache) for cache in ("first block", "faster")),
        ("ltx-t2v", "taylorseer"),
        ("hunyuan-t2v", "mag"),
        ("latte-t2v", "pyramid"),
    ],
)
def test_watching_changes_no_bit_of_a_cached_run(name: str, cache: str) -> None:
    plain = cached(name, cache).run(num_inference_steps=6)
    if cache != "sea":  # diffusers' own pipelines do not yet tell it the step, and it then computes everything
        assert not np.array_equal(plain, tiny_pipeline(name).run(num_inference_steps=6))
    tiny = cached(name, cache)
    with balance(tiny.pipe, NAMES, preset="observe") as session:
        watched = tiny.run(num_inference_steps=6)
    np.testing.assert_array_equal(watched, plain)
    assert session.log.sizes["update"] == 6 and np.isfinite(session.log.loss).all()


def test_what_is_measured_is_the_model_without_its_cache() -> None:
    noise = torch.randn(1, 16, 3, 4, 8, generator=torch.Generator().manual_seed(1))
    losses = []
    for tiny in (tiny_pipeline("wan21-t2v"), cached("wan21-t2v", "first block")):
        with balance(tiny.pipe, NAMES, schedule=Schedule(steps=[0], iterations=2), step=FixedRms(0.05)) as session:
            tiny.run(latents=noise)
        losses.append(session.log.loss.values)
    np.testing.assert_array_equal(*losses)


def test_a_forward_that_fails_leaves_the_cache_in_place() -> None:
    tiny = cached("wan21-t2v", "first block")
    plain = tiny.run(num_inference_steps=6)
    with pytest.raises(ZeroDivisionError), balance(tiny.pipe, NAMES, objective=_Broken()):
        tiny.run(num_inference_steps=6)
    tiny.pipe.transformer._reset_stateful_cache()
    np.testing.assert_array_equal(tiny.run(num_inference_steps=6), plain)


class _Broken:
    per_token = False
    flow = None

    def __call__(self, influences: Any) -> Any:
        raise ZeroDivisionError
