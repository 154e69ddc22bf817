"""The table of known models against their own classes: sizes, steps, layers are read from diffusers, and run without weights."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from transformers import CLIPTextConfig

from vico_lens.tracing.cost.published_models import NATIVE, Native
from vico_lens.tracing.tracer import observe

Size = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Row:
    """The classes of a model, and what of it differs from their defaults, as `Native.source` has it."""

    pipeline: str
    model: str
    config: dict[str, Any] = field(default_factory=dict)
    video: Size = (None, None, None)
    """Frames, height and width where they are not the pipeline's defaults."""


ROWS = {
    "CogVideoX-2b": Row("CogVideoXPipeline", "CogVideoXTransformer3DModel"),
    "CogVideoX-5b": Row(
        "CogVideoXPipeline",
        "CogVideoXTransformer3DModel",
        {"num_layers": 42, "num_attention_heads": 48, "use_rotary_positional_embeddings": True},
    ),
    "Wan 2.1 1.3B": Row("WanPipeline", "WanTransformer3DModel", {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}),
    "Wan 2.1 14B": Row("WanPipeline", "WanTransformer3DModel", video=(None, 720, 1280)),
    "HunyuanVideo": Row("HunyuanVideoPipeline", "HunyuanVideoTransformer3DModel"),
    "LTX-Video 2B": Row("LTXPipeline", "LTXVideoTransformer3DModel"),
    "Mochi 1": Row("MochiPipeline", "MochiTransformer3DModel", video=(163, None, None)),
    "AnimateDiff (SD 1.5)": Row(
        "AnimateDiffPipeline", "UNetMotionModel", {"sample_size": 64, "cross_attention_dim": 768, "num_attention_heads": 8}
    ),
    "ZeroScope v2": Row(
        "TextToVideoSDPipeline",
        "UNet3DConditionModel",
        {"attention_head_dim": 64, "cross_attention_dim": 1024},
        video=(24, 320, 576),
    ),
}


class Published:
    """A model and its pipeline as they are published, without weights: what diffusers gives as defaults, and the row's own."""

    def __init__(self, row: Row) -> None:
        with torch.device("meta"):
            self.model = getattr(diffusers, row.model)(**row.config).eval()
        self.config: Any = self.model.config
        stock = getattr(diffusers, row.pipeline)
        takes = inspect.signature(stock.__init__).parameters
        self.flat = "unet" in takes
        name = "unet" if self.flat else "transformer"
        nothing = {part for part, value in takes.items() if value.default is value.empty and part != "self"} - {name}
        self.pipe = stock(**{name: self.model}, **dict.fromkeys(nothing))
        self.defaults = {key: value.default for key, value in inspect.signature(stock.__call__).parameters.items()}
        spatial, temporal = self._ratio("spatial"), 1 if self.flat else self._ratio("temporal")
        sample = {key: value * spatial for key in ("height", "width") if (value := self._sample(key)) is not None}
        stated = dict(zip(("num_frames", "height", "width"), row.video, strict=True))
        self.video = tuple(
            value or self.defaults[key] or sample.get(key) or getattr(self.pipe, f"default_{key}", self._sample("frames"))
            for key, value in stated.items()
        )
        frames, height, width = self.video
        self.latents = ((frames - 1) // temporal + 1, height // spatial, width // spatial)
        self.text = CLIPTextConfig().max_position_embeddings if self.flat else self.defaults["max_sequence_length"]

    def _ratio(self, axis: str) -> int:
        """How many pixels or frames a latent stands for, as the pipeline of that model has it."""
        found = {value for name, value in vars(self.pipe).items() if name.startswith("vae_") and self._counts(name, axis)}
        (ratio,) = found
        return int(ratio)

    @staticmethod
    def _counts(name: str, axis: str) -> bool:
        return (axis in name or name == "vae_scale_factor") and ("factor" in name or "ratio" in name)

    def _sample(self, axis: str) -> int | None:
        """Frames, or latent rows or columns, of the videos the model was trained on, if its configuration says so."""
        value: int | None = self.config.get(f"sample_{axis}", self.config.get("sample_size"))
        return value

    def inputs(self) -> dict[str, Any]:
        """Arguments of one forward of the denoiser."""
        channels, config = self.config.in_channels, self.config
        names = ("text_embed_dim", "text_dim", "caption_channels", "cross_attention_dim")
        width = next(value for name in names if (value := config.get(name)))
        frames, rows, columns = self.latents
        inputs: dict[str, Any] = {"timestep": torch.zeros(1)}
        takes = inspect.signature(self.model.forward).parameters
        kind = type(self.model).__name__
        batch = frames if kind == "UNetMotionModel" else 1
        inputs["encoder_hidden_states"] = torch.zeros(batch, self.text, width)
        if "encoder_attention_mask" in takes:
            inputs["encoder_attention_mask"] = torch.zeros(1, self.text)
        if self.flat:
            return inputs | {"sample": torch.zeros(1, channels, *self.latents)}
        if kind.startswith("LTX"):
            sizes = {"num_frames": frames, "height": rows, "width": columns}
            return inputs | sizes | {"hidden_states": torch.zeros(1, frames * rows * columns, channels)}
        if kind.startswith("CogVideoX"):
            return inputs | {"hidden_states": torch.zeros(1, frames, channels, rows, columns)}
        if kind.startswith("Wan"):
            inputs["timestep"] = torch.zeros(1, dtype=torch.int64)
        if kind.startswith("Hunyuan"):
            inputs |= {"pooled_projections": torch.zeros(1, config.pooled_projection_dim), "guidance": torch.zeros(1)}
        return inputs | {"hidden_states": torch.zeros(1, channels, *self.latents)}


def named(name: str) -> Native:
    return next(native for native in NATIVE if native.name == name)


@pytest.mark.parametrize("name", ROWS)
def test_size_and_steps_are_those_of_the_pipeline(name: str) -> None:
    published, native = Published(ROWS[name]), named(name)
    assert native.size == " x ".join(map(str, published.video))
    assert native.steps == published.defaults["num_inference_steps"]
    by_default = any(words in native.source for words in ("size: the defaults of the pipeline", "size: sample_frames"))
    assert by_default == (not any(ROWS[name].video))


@pytest.mark.parametrize("name", [name for name in ROWS if name != "Mochi 1"])
def test_sites_are_those_of_the_class(name: str) -> None:
    published = Published(ROWS[name])
    pipe = SimpleNamespace(**{"unet" if published.flat else "transformer": published.model})
    with torch.device("meta"), torch.no_grad(), observe(pipe, step=0, timestep=0.0) as calls:
        published.model(**published.inputs())
    listed = Counter((s.kind, s.grid, s.heads, s.head_size, s.tokens) for s in named(name).sites)
    assert Counter((c.site.kind, c.site.grid, c.site.heads, c.site.head_size, c.site.tokens) for c in calls) == listed


def test_mochi_has_the_layers_heads_and_grid_of_its_class() -> None:
    """Its forward looks into the text mask, so it cannot run without numbers."""
    published = Published(ROWS["Mochi 1"])
    config, sites = published.config, named("Mochi 1").sites
    frames, rows, columns = published.latents
    grid = (frames, rows // config.patch_size, columns // config.patch_size)
    assert len(sites) == len(published.model.transformer_blocks)
    assert published.text == config.max_sequence_length
    assert {(s.kind, s.heads, s.head_size, s.tokens, s.grid) for s in sites} == {
        ("joint", config.num_attention_heads, config.attention_head_dim, published.text, grid)
    }


def test_every_row_is_checked_and_says_where_it_is_from() -> None:
    assert list(ROWS) == [native.name for native in NATIVE]
    assert all(native.source for native in NATIVE)
