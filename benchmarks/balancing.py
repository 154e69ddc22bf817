"""What balancing costs: a pipeline call plain, balanced by the default and by the published preset, and with checkpointing.

Two models: the bundled one, whole calls; and a denoiser of Wan 2.1's 1.3B configuration with random weights in bfloat16, two
steps on a small latent, to see what a model of real size asks of memory. Each variant runs in a process of its own, so that peak
memory can be read. ``python -m benchmarks.balancing`` prints all, ``python -m benchmarks.balancing wan balanced`` measures one.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch

from benchmarks import Measured, bundled_call

__all__ = ["measure", "run"]

VARIANTS = {"bundled": ("plain", "default", "vico"), "wan": ("plain", "balanced", "checkpointed")}
_NAMES = ["red circle", "blue square"]


def _wan() -> tuple[Any, Callable[[], object]]:
    """Thirty blocks of twelve heads of 128 channels, text of the tiny encoder's width, on a grid of 5 x 4 x 4 tokens."""
    from diffusers import WanTransformer3DModel

    from vico_lens.testing.pipelines import tiny_pipeline
    from vico_lens.testing.pipelines.wan import transformer_config

    tiny = tiny_pipeline("wan21-t2v")
    torch.set_default_dtype(torch.bfloat16)
    tiny.pipe.transformer = WanTransformer3DModel(
        **transformer_config(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30)
    ).eval()
    torch.set_default_dtype(torch.float32)
    tiny.pipe.text_encoder.to(torch.bfloat16)
    size = {"height": 64, "width": 64, "num_frames": 17, "num_inference_steps": 2, "output_type": "latent"}
    return tiny.pipe, lambda: tiny.call(0, **size)


def measure(model: str, variant: str) -> dict[str, float]:
    """Measure one variant in this process, on one thread.

    Returns
    -------
    dict
        ``seconds`` of processor time of a call, after a short one that warms up; ``peak``, bytes of memory in all; ``forwards``,
        denoiser forwards of one row with a backward counted as one.
    """
    from vico_lens.balancing import FixedRms, Schedule, Session, balance
    from vico_lens.families import denoisers

    torch.set_num_threads(1)
    pipe, call = {"bundled": bundled_call, "wan": _wan}[model]()
    if model == "bundled":
        with balance(pipe, _NAMES) if variant != "plain" else nullcontext():
            call()
    every = {"step": FixedRms(0.02), "schedule": Schedule(stop=1.0)}
    sessions: dict[str, Callable[[], Session]] = {
        "plain": lambda: Session(pipe, denoisers(pipe)),
        "default": lambda: balance(pipe, _NAMES),
        "vico": lambda: balance(pipe, _NAMES, preset="vico"),
        "balanced": lambda: balance(pipe, _NAMES, **every),
        "checkpointed": lambda: balance(pipe, _NAMES, checkpointing=True, **every),
    }
    began = time.process_time()
    with sessions[variant]() as session:
        call()
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "peak": peak, "forwards": session.cost.row_forwards}


def run() -> Iterator[Measured]:
    """Measure every model in every variant, and the ratios to plain."""
    for model, variants in VARIANTS.items():
        found = {}
        for variant in variants:
            command = [sys.executable, "-m", "benchmarks.balancing", model, variant]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[variant] = json.loads(done.stdout.splitlines()[-1])
            yield Measured(f"{model}, {variant}", found[variant]["seconds"], "s")
            yield Measured(f"{model}, {variant}, peak memory", found[variant]["peak"] / 1e6, "MB")
            if variant != "plain":
                for what in ("seconds", "forwards"):
                    yield Measured(f"{model}, {variant} over plain, {what}", found[variant][what] / found["plain"][what], "x")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        for row in run():
            print(f"{row.name}: {row.value:.3g} {row.unit}", flush=True)
