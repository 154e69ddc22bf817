"""What balancing costs: a pipeline call plain, balanced by the default and by the published preset, and with checkpointing.

Two models: the bundled one, whole calls; and a denoiser of Wan 2.1's 1.3B configuration with random weights in bfloat16, two
steps on a small latent, to see what a model of real size asks of memory. Each variant runs in a process of its own, so that peak
memory can be read.

    python -m benchmarks.balancing --repeats 3        # all, three times
    python -m benchmarks.balancing wan balanced       # one variant

Every run is appended to ``benchmarks/results/balancing.jsonl``; ``balancing.md`` beside it holds the medians of all rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks import Measured, bundled_call

__all__ = ["measure", "run", "tabulate"]

RAW = Path(__file__).parent / "results" / "balancing.jsonl"
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
    from vico_lens.intervention.balancing import FixedRms, Schedule, Session, balance
    from vico_lens.tracing.families import denoisers

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


def alone(model: str, variant: str) -> dict[str, float]:
    """Measure one variant in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(measure, model, variant).result()


def run() -> Iterator[Measured]:
    """Measure every model in every variant, and the ratios to plain."""
    for model, variants in VARIANTS.items():
        found = {}
        for variant in variants:
            found[variant] = alone(model, variant)
            yield Measured(f"{model}, {variant}", found[variant]["seconds"], "s")
            yield Measured(f"{model}, {variant}, peak memory", found[variant]["peak"] / 1e6, "MB")
            if variant != "plain":
                for what in ("seconds", "forwards"):
                    yield Measured(f"{model}, {variant} over plain, {what}", found[variant][what] / found["plain"][what], "x")


def tabulate(rows: Sequence[Mapping[str, Any]]) -> str:
    """Medians over the rows of each variant, and ratios of medians to plain, as Markdown."""
    lines = [
        "| model | variant | runs | processor seconds | over plain | peak memory | denoiser forwards over plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, variants in VARIANTS.items():
        median = {
            variant: {what: statistics.median(values) for what in ("seconds", "peak", "forwards")
                      if (values := [row[what] for row in rows if (row["model"], row["variant"]) == (model, variant)])}
            for variant in variants
        }  # fmt: skip
        for variant, own in median.items():
            if not own:
                continue
            runs = sum((row["model"], row["variant"]) == (model, variant) for row in rows)
            plain = median["plain"]
            over = [f"{own[what] / plain[what]:.2f}" if plain else "" for what in ("seconds", "forwards")]
            lines.append(
                f"| {model} | {variant} | {runs} | {own['seconds']:.2f} | {over[0]} | {own['peak'] / 1e6:,.0f} MB | {over[1]} |"
            )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure what is named, append a row for each run, and write the table of all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=list(VARIANTS), help="default: both")
    parser.add_argument("variant", nargs="?", help="one of the model's; default: all")
    parser.add_argument("--repeats", type=int, default=1, help="how often")
    parser.add_argument("--table", action="store_true", help="measure nothing, only write the table")
    asked = parser.parse_args(arguments)
    chosen = {asked.model: VARIANTS[asked.model]} if asked.model else VARIANTS
    if asked.variant:
        if asked.variant not in chosen.get(asked.model, ()):
            parser.error(f"no variant {asked.variant} of {asked.model}; there are {', '.join(chosen[asked.model])}")
        chosen = {asked.model: (asked.variant,)}
    cells = [(model, variant) for model, variants in chosen.items() for _ in range(asked.repeats) for variant in variants]
    for model, variant in () if asked.table else cells:
        found = alone(model, variant)
        row = {
            "model": model,
            "variant": variant,
            "seconds": round(found["seconds"], 3),
            **{w: found[w] for w in ("peak", "forwards")},
        }
        with RAW.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{model}, {variant}: {found['seconds']:.2f} s, {found['peak'] / 1e6:.0f} MB", flush=True)
    rows = [json.loads(line) for line in RAW.read_text(encoding="utf-8").splitlines()]
    text = f"# What balancing costs\n\n`python -m benchmarks.balancing --repeats 3`; medians, one thread.\n\n{tabulate(rows)}"
    RAW.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{tabulate(rows)}")


if __name__ == "__main__":
    main()
