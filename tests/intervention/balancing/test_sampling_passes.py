"""Calls that go through their timesteps more than once, and AnimateDiff's variants with residuals for every frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from vico_lens.intervention.balancing import FixedRms, Schedule, balance
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline
from vico_lens.testing.pipelines.parts import clip_of_images

NAMES = ["red circle", "blue square"]
FRAMES, ROWS, COLUMNS = 4, 16, 24


def test_every_iteration_of_freeinit_is_balanced() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    tiny.pipe.enable_free_init(num_iters=2, method="gaussian")
    plain = tiny.run()
    with balance(tiny.pipe, NAMES, schedule=Schedule(steps=[0], iterations=1)) as session:
        frames = tiny.run()
    log = session.log
    assert list(zip(log.run.values.tolist(), log.step.values.tolist(), strict=True)) == [(0, 0), (1, 0)]
    assert (log.latent_change > 0).all() and not np.array_equal(frames, plain)
    np.testing.assert_array_equal(tiny.run(), plain)


def test_every_chunk_of_helios_is_balanced() -> None:
    tiny = tiny_pipeline("helios-t2v")
    with balance(tiny.pipe, NAMES, schedule=Schedule(steps=[0, 1]), objective="equal") as session:
        tiny.run()
    found = list(zip(session.log.run.values.tolist(), session.log.step.values.tolist(), strict=True))
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1)]


def _controlnet() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = diffusers.ControlNetModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            in_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=2,
            conditioning_embedding_out_channels=(4, 4),
        )
        for parameter in net.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return net.eval().requires_grad_(False)


def _sparse_controlnet() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = diffusers.SparseControlNetModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            in_channels=4,
            conditioning_channels=3,
            down_block_types=("CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=2,
            conditioning_embedding_out_channels=(4, 4),
            motion_num_attention_heads=2,
            use_simplified_condition_embedding=False,
        )
        for parameter in net.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return net.eval().requires_grad_(False)


def _with(pipeline: str, controlnet: Any, **call: Any) -> TinyPipeline:
    tiny = tiny_pipeline("animatediff-t2v")
    parts = {name: part for name, part in tiny.pipe.components.items() if part is not None}
    pipe = getattr(diffusers, pipeline)(**parts, controlnet=controlnet)
    pipe.set_progress_bar_config(disable=True)
    kwargs = tiny.kwargs
    if "VideoToVideo" in pipeline:
        kwargs = {name: value for name, value in kwargs.items() if name != "num_frames"}
    return TinyPipeline(pipe, kwargs | call, tiny.shape)


def _clip() -> list[Any]:
    return clip_of_images(FRAMES, ROWS, COLUMNS)


VARIANTS: dict[str, Callable[[], TinyPipeline]] = {
    "controlnet": lambda: _with("AnimateDiffControlNetPipeline", _controlnet(), conditioning_frames=_clip()),
    "several controlnets": lambda: _with(
        "AnimateDiffControlNetPipeline", [_controlnet(), _controlnet()], conditioning_frames=[_clip(), _clip()]
    ),
    "video to video": lambda: _with(
        "AnimateDiffVideoToVideoControlNetPipeline", _controlnet(), video=_clip(), conditioning_frames=_clip(), strength=0.8
    ),
    "sparse controlnet": lambda: _with(
        "AnimateDiffSparseControlNetPipeline",
        _sparse_controlnet(),
        conditioning_frames=_clip()[:1],
        controlnet_frame_indices=[0],
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_residuals_for_every_frame_go_with_the_conditional_rows(variant: str) -> None:
    tiny = VARIANTS[variant]()
    plain = tiny.run()
    settings: dict[str, Any] = {"objective": "equal", "schedule": Schedule(stop=1.0, iterations=2), "step": FixedRms(0.002)}
    with balance(tiny.pipe, NAMES, preset="observe", objective="equal") as watched:
        np.testing.assert_array_equal(tiny.run(), plain)
    with balance(tiny.pipe, NAMES, **settings) as session:
        frames = tiny.run()
    first = session.log.where((session.log.step == 0), drop=True).loss.values
    assert first[0] == pytest.approx(float(watched.log.loss[0]), rel=1e-5) and first[1] < first[0]
    assert np.isfinite(frames).all() and not np.array_equal(frames, plain)
