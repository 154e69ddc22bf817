"""What tracing costs: a pipeline call untraced, traced to disk, and with a recorder that materialises every softmax.

The recorder does what attention-map scripts do: it takes the place of the kernel, computes each softmax in full, multiplies it
with the values, and saves the map. Like the trace it goes to disk at once: neither is charged for memory that it need not hold.

    python -m benchmarks.tracing                 # prints, and writes benchmarks/results/tracing.md
    python -m benchmarks.tracing wan traced      # the memory of one variant, in a process of its own
    python -m benchmarks.tracing wan 1           # times of all variants, with one thread of torch

Times are taken in rounds, the three variants one after another in each; seconds, ratios and differences are medians over the
rounds. Processor time counts all threads, the writer's too: what tracing costs on a machine without a free core.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from benchmarks import Measured, bundled_call

__all__ = ["memory", "run", "times"]

MODELS = {
    "bundled": "bundled model, 8x8x8 tokens at most",
    "wan": "Wan-like, 2,048 tokens, 4 heads of 64",
    "cogvideox": "CogVideoX-like, 2,072 tokens, 4 heads of 64",
}
VARIANTS = ("untraced", "traced", "materialising")
RESULTS = Path(__file__).parent / "results" / "tracing.md"
ROUNDS = 5


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


_SHORT: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": 1.0, "output_type": "latent"}
_BUILD = {"bundled": bundled_call, "wan": _wan, "cogvideox": _cogvideox}


class _Materialising:
    """Takes the place of the fused kernel and saves every map."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maps = 0
        self._fused = torch.nn.functional.scaled_dot_product_attention

    def __enter__(self) -> None:
        self.folder.mkdir()
        torch.nn.functional.scaled_dot_product_attention = self._attend

    def __exit__(self, *_: object) -> None:
        torch.nn.functional.scaled_dot_product_attention = self._fused

    def _attend(self, query: Any, key: Any, value: Any, attn_mask: Any = None, *_: Any, scale: Any = None, **__: Any) -> Any:
        logits = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask, -3e38) if attn_mask.dtype == torch.bool else logits + attn_mask
        weights = logits.softmax(-1)
        torch.save(weights, self.folder / f"{self.maps}.pt")
        self.maps += 1
        return weights.to(value.dtype) @ value


def _watching(variant: str, pipe: Any, path: Path) -> Any:
    """Return what a variant wraps around the call."""
    from vico_lens.tracing.recording import trace

    return {"untraced": nullcontext, "traced": lambda: trace(pipe, path), "materialising": lambda: _Materialising(path)}[
        variant
    ]()


def _stored(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def times(model: str, threads: int, rounds: int = ROUNDS) -> dict[str, dict[str, list[float]]]:
    """Measure all variants in this process.

    Returns
    -------
    dict
        A variant: ``wall`` and ``processor`` seconds of a call in each round, and ``stored`` bytes.
    """
    import shutil

    torch.set_num_threads(threads)
    pipe, call = _BUILD[model]()
    seconds: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    stored = dict.fromkeys(VARIANTS, 0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):  # the first warms up
            for variant in VARIANTS:
                path = Path(folder) / f"{number}-{variant}"
                watching = _watching(variant, pipe, path)
                wall, busy = time.perf_counter(), time.process_time()
                with watching:
                    call()
                if number:
                    seconds[variant].append((time.perf_counter() - wall, time.process_time() - busy))
                stored[variant] = _stored(path)
                shutil.rmtree(path, ignore_errors=True)
    return {
        variant: {"wall": [pair[0] for pair in pairs], "processor": [pair[1] for pair in pairs], "stored": [stored[variant]]}
        for variant, pairs in seconds.items()
    }


def memory(model: str, variant: str) -> dict[str, float]:
    """Measure the memory of one variant in this process: ``grown``, bytes beyond the peak of an untraced call."""
    torch.set_num_threads(1)
    pipe, call = _BUILD[model]()
    call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with tempfile.TemporaryDirectory() as folder, _watching(variant, pipe, Path(folder) / "run"):
        call()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"grown": peak - before, "peak": peak}


def _elsewhere(*arguments: str) -> Any:
    """Run a measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.tracing", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def ratios(found: dict[str, dict[str, list[float]]], clock: str) -> tuple[float, float, float]:
    """Return traced over untraced, materialising over untraced, and time added by materialising over time added by tracing."""
    plain, traced, materialising = (found[variant][clock] for variant in VARIANTS)
    over = [statistics.median(a / b for a, b in zip(column, plain, strict=True)) for column in (traced, materialising)]
    added = [statistics.median(a - b for a, b in zip(column, plain, strict=True)) for column in (materialising, traced)]
    return over[0], over[1], added[0] / added[1]


def run() -> Iterator[Measured]:
    """Measure every model with one thread."""
    for model in MODELS:
        found = _elsewhere(model, "1")
        for variant in VARIANTS:
            yield Measured(f"{model}, {variant}", statistics.median(found[variant]["wall"]), "s")
            if variant != "untraced":
                yield Measured(f"{model}, {variant}, memory added", _elsewhere(model, variant)["grown"] / 1e6, "MB")
        for clock in ("wall", "processor"):
            traced, materialising, added = ratios(found, clock)
            yield Measured(f"{model}, traced over untraced, {clock} time", traced, "x")
            yield Measured(f"{model}, materialising over untraced, {clock} time", materialising, "x")
            yield Measured(f"{model}, added by materialising over added by tracing, {clock} time", added, "x")


def report() -> str:
    """Measure every model with one thread, and write the page."""
    cores = os.cpu_count() or 1
    lines = [
        "# What tracing costs, measured",
        "",
        f"`python -m benchmarks.tracing` on {platform.platform()}, {cores} cores, Python {platform.python_version()}, torch "
        f"{torch.__version__}; load average {os.getloadavg()[1]:.1f} at the start. Medians over {ROUNDS} rounds of seconds, of "
        "ratios within a round and of differences within a round.",
        "",
        "Untraced: the pipeline call alone. Traced: `vl.trace(pipe, to=folder)` with the default capture (every step, layer and "
        'head, `store="auto"`). Materialising: a recorder that takes the kernel\'s place, computes each softmax in full and '
        "saves it (`torch.save`). Torch has one thread. Processor time counts the writer's thread as well and hardly depends on "
        "what else the machine does; wall time does, and has the writer beside the model only where a core is free.",
        "",
        "| model | clock | untraced, s | traced, s | materialising, s | traced / untraced | materialising / untraced | "
        "added time, materialising / traced |",
        "|---|---|---|---|---|---|---|---|",
    ]
    space = [
        "",
        "| model | memory added, traced | memory added, materialising | stored, traced | stored, materialising |",
        "|---|---|---|---|---|",
    ]
    for model, title in MODELS.items():
        found = _elsewhere(model, "1")
        for clock in ("processor", "wall"):
            traced, materialising, added = ratios(found, clock)
            seconds = " | ".join(f"{statistics.median(found[variant][clock]):.2f}" for variant in VARIANTS)
            lines.append(f"| {title} | {clock} | {seconds} | {traced:.2f} | {materialising:.2f} | {added:.1f} |")
            print(lines[-1], flush=True)
        grown = " | ".join(f"{_elsewhere(model, variant)['grown'] / 1e6:.0f} MB" for variant in VARIANTS[1:])
        stored = " | ".join(f"{found[variant]['stored'][0] / 1e6:.0f} MB" for variant in VARIANTS[1:])
        space.append(f"| {title} | {grown} | {stored} |")
    return "\n".join([*lines, *space]) + "\n"


if __name__ == "__main__":
    if len(sys.argv) == 3:
        model, what = sys.argv[1:]
        print(json.dumps(times(model, int(what)) if what.isdigit() else memory(model, what)))
    else:
        RESULTS.write_text(report(), encoding="utf-8")
        print(RESULTS.read_text(encoding="utf-8"))
