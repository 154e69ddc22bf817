"""What tracing costs: a pipeline call untraced, traced to disk, and with a recorder that materialises every softmax.

The recorder does what attention-map scripts do: it takes the kernel's place, computes each softmax in full, keeps the map, and
multiplies it with the values. Each variant runs in a process of its own, so that peak memory can be read. Seconds are processor
time of all threads, the writer's too, so that other programs do not count; the least of three calls. ``python -m
benchmarks.tracing`` prints all, ``python -m benchmarks.tracing wan traced`` measures one.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from benchmarks import Measured

__all__ = ["measure", "run"]

MODELS = ("bundled", "wan", "cogvideox")
VARIANTS = ("untraced", "traced", "materialising")
_PROMPT = "a red circle moving right and a blue square moving up"


def _bundled() -> tuple[Any, Callable[[], object]]:
    from vico_lens.pipelines import load_pipeline

    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe, lambda: pipe(_PROMPT, output_type="latent", generator=torch.Generator().manual_seed(0))


def _wan() -> tuple[Any, Callable[[], object]]:
    """Two blocks of four heads of 64 channels on a grid of 8 x 16 x 16 tokens."""
    from diffusers import WanTransformer3DModel

    from vico_lens.testing.pipelines import tiny_pipeline
    from vico_lens.testing.pipelines.wan import transformer_config

    tiny = tiny_pipeline("wan21-t2v")
    config = transformer_config(num_attention_heads=4, attention_head_dim=64, ffn_dim=1024)
    tiny.pipe.transformer = WanTransformer3DModel(**config).eval()
    return tiny.pipe, lambda: tiny.call(0, height=256, width=256, num_frames=29, **_SHORT)


def _cogvideox() -> tuple[Any, Callable[[], object]]:
    """Two blocks of four heads of 64 channels over 24 text tokens and a grid of 8 x 16 x 16."""
    from diffusers import CogVideoXTransformer3DModel

    from vico_lens.testing.pipelines import tiny_pipeline

    tiny = tiny_pipeline("cogvideox-t2v")
    config = dict(tiny.pipe.transformer.config) | {"num_attention_heads": 4, "attention_head_dim": 64}
    config |= {"sample_height": 32, "sample_width": 32, "sample_frames": 29}
    tiny.pipe.transformer = CogVideoXTransformer3DModel.from_config(config).eval()
    return tiny.pipe, lambda: tiny.call(0, height=256, width=256, num_frames=29, **_SHORT)


_SHORT: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "latent"}
_BUILD = {"bundled": _bundled, "wan": _wan, "cogvideox": _cogvideox}


class _Materialising:
    """Takes the place of the fused kernel and keeps every map in main memory."""

    def __init__(self) -> None:
        self.maps: list[torch.Tensor] = []
        self._fused = torch.nn.functional.scaled_dot_product_attention

    def __enter__(self) -> None:
        torch.nn.functional.scaled_dot_product_attention = self._attend

    def __exit__(self, *_: object) -> None:
        torch.nn.functional.scaled_dot_product_attention = self._fused

    def _attend(self, query: Any, key: Any, value: Any, attn_mask: Any = None, *_: Any, scale: Any = None, **__: Any) -> Any:
        logits = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask, -3e38) if attn_mask.dtype == torch.bool else logits + attn_mask
        weights = logits.softmax(-1)
        self.maps.append(weights.float().cpu().clone())
        return weights.to(value.dtype) @ value


def measure(model: str, variant: str, repeats: int = 3) -> dict[str, float]:
    """Measure one variant in this process.

    Returns
    -------
    dict
        ``seconds`` of processor time of a call, ``peak`` and ``grown`` (bytes of memory in all, and more than before the first
        call).
    """
    from vico_lens.recording import trace

    torch.set_num_threads(1)
    pipe, call = _BUILD[model]()
    call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(repeats):
            watching: Any = {
                "untraced": nullcontext,
                "traced": lambda index=index: trace(pipe, Path(folder) / f"{index}.zarr"),
                "materialising": _Materialising,
            }[variant]()
            start = time.process_time()
            with watching:
                call()
            seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": min(seconds), "peak": peak, "grown": peak - before}


def run() -> Iterator[Measured]:
    """Measure every model in every variant, and their ratios."""
    for model in MODELS:
        found = {}
        for variant in VARIANTS:
            command = [sys.executable, "-m", "benchmarks.tracing", model, variant]
            found[variant] = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            yield Measured(f"{model}, {variant}", found[variant]["seconds"], "s")
            yield Measured(f"{model}, {variant}, memory grown by", found[variant]["grown"] / 1e6, "MB")
        plain = found["untraced"]["seconds"]
        added = {variant: found[variant]["seconds"] - plain for variant in VARIANTS[1:]}
        yield Measured(f"{model}, traced over untraced", found["traced"]["seconds"] / plain, "x")
        yield Measured(f"{model}, materialising over untraced", found["materialising"]["seconds"] / plain, "x")
        yield Measured(f"{model}, added by materialising over added by tracing", added["materialising"] / added["traced"], "x")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        for row in run():
            print(f"{row.name}: {row.value:.3g} {row.unit}", flush=True)
