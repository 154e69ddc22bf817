"""The table of known models against their own classes: built from the published configuration, run without weights."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

from vico_lens.native import NATIVE, Native
from vico_lens.tracer import observe

# What differs from the defaults of the class, as `Native.source` has it.
COG, WAN = {"sample_frames": 49}, {"text_dim": 4096, "freq_dim": 256}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "CogVideoX-2b": ("CogVideoXTransformer3DModel", COG),
    "CogVideoX-5b": (
        "CogVideoXTransformer3DModel",
        COG | {"num_layers": 42, "num_attention_heads": 48, "use_rotary_positional_embeddings": True},
    ),
    "Wan 2.1 1.3B": ("WanTransformer3DModel", WAN | {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}),
    "Wan 2.1 14B": ("WanTransformer3DModel", WAN | {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824}),
    "HunyuanVideo": ("HunyuanVideoTransformer3DModel", {}),
    "LTX-Video 2B": ("LTXVideoTransformer3DModel", {}),
    "AnimateDiff (SD 1.5)": ("UNetMotionModel", {"cross_attention_dim": 768, "num_attention_heads": 8}),
    "ZeroScope v2": ("UNet3DConditionModel", {"attention_head_dim": 64, "cross_attention_dim": 1024}),
}
INPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "CogVideoX-2b": {"hidden_states": (1, 13, 16, 60, 90), "encoder_hidden_states": (1, 226, 4096)},
    "Wan 2.1 1.3B": {"hidden_states": (1, 16, 21, 60, 104), "encoder_hidden_states": (1, 512, 4096)},
    "Wan 2.1 14B": {"hidden_states": (1, 16, 21, 90, 160), "encoder_hidden_states": (1, 512, 4096)},
    "HunyuanVideo": {
        "hidden_states": (1, 16, 33, 90, 160),
        "encoder_hidden_states": (1, 256, 4096),
        "encoder_attention_mask": (1, 256),
        "pooled_projections": (1, 768),
        "guidance": (1,),
    },
    "LTX-Video 2B": {
        "hidden_states": (1, 21 * 16 * 22, 128),
        "encoder_hidden_states": (1, 128, 4096),
        "encoder_attention_mask": (1, 128),
    },
    "AnimateDiff (SD 1.5)": {"sample": (1, 4, 16, 64, 64), "encoder_hidden_states": (16, 77, 768)},
    "ZeroScope v2": {"sample": (1, 4, 24, 40, 72), "encoder_hidden_states": (1, 77, 1024)},
}
INPUTS["CogVideoX-5b"] = INPUTS["CogVideoX-2b"]


def shape(kind: str, grid: tuple[int, ...], heads: int, size: int, tokens: int) -> tuple[Any, ...]:
    return kind, grid, heads, size, tokens


def named(name: str) -> Native:
    return next(native for native in NATIVE if native.name == name)


@pytest.mark.parametrize("name", MODELS)
def test_sites_are_those_of_the_class(name: str) -> None:
    cls, config = MODELS[name]
    with torch.device("meta"), torch.no_grad():
        model = getattr(diffusers, cls)(**config).eval()
        inputs: dict[str, Any] = {key: torch.zeros(sizes) for key, sizes in INPUTS[name].items()}
        inputs["timestep"] = torch.zeros(1)
        if cls.startswith("LTX"):
            inputs |= {"num_frames": 21, "height": 16, "width": 22}
        if "Wan" in name:
            inputs["timestep"] = torch.zeros(1, dtype=torch.int64)
        pipe = SimpleNamespace(**{"unet" if "UNet" in cls else "transformer": model})
        with observe(pipe, step=0, timestep=0.0) as calls:
            model(**inputs)
    seen = Counter(shape(c.site.kind, c.site.grid, c.site.heads, c.site.head_size, c.site.tokens) for c in calls)
    listed = Counter(shape(s.kind, s.grid, s.heads, s.head_size, s.tokens) for s in named(name).sites)
    assert seen == listed


def test_mochi_has_the_layers_and_heads_of_its_class() -> None:
    """Its forward looks into the text mask, so it cannot run without numbers."""
    with torch.device("meta"):
        model = diffusers.MochiTransformer3DModel()
    sites = named("Mochi 1").sites
    assert len(sites) == len(model.transformer_blocks) == 48
    assert {(site.heads, site.head_size, site.tokens, site.grid) for site in sites} == {
        (model.config.num_attention_heads, model.config.attention_head_dim, model.config.max_sequence_length, (28, 30, 53))
    }


def test_every_row_says_where_it_is_from() -> None:
    assert set(MODELS) | {"Mochi 1"} == {native.name for native in NATIVE}
    assert all(native.source for native in NATIVE)
