"""Which method predicts leave-one-out best: the evidence for the default of `vico_lens.attribute`.

A lighter cut of `benchmarks.faithfulness`: sampling stops after the last step, the attention of two denoiser calls is read live,
and each concept's text states are replaced by padding. Two numbers a method: the rank correlation over clips of the first
concept's share with its share of the causal change, and the mean rank correlation of maps.

    python -m benchmarks.default_method --count 120
    python -m benchmarks.default_method --table
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vico_lens as vl
from vico_lens.attribution import influence_of_stages
from vico_lens.attribution.checks import live_stages
from vico_lens.attribution.replay import Sampling, record_calls
from vico_lens.faithfulness import spearman
from vico_lens.tinyworld import sample_prompts

RAW = Path(__file__).parent / "results" / "default_method.jsonl"
SEED, FIRST_SEED, STEPS = 778, 70_000, (4, 12)
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "cross": ("cross_attention", {}),
    "rollout": ("rollout", {}),
    "hard": ("subgraph_flow", {"kind": "hard"}),
    "soft": ("subgraph_flow", {"kind": "soft"}),
    "sum": ("subgraph_flow", {"kind": "sum"}),
    "sgroll": ("subgraph_flow", {"kind": "rollout"}),
    "widest": ("widest_path", {}),
}


def run(count: int) -> None:
    """Append one row a clip and step."""
    pipe = vl.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    for number, prompt in enumerate(sample_prompts(count, objects=2, seed=SEED)):
        spans = [concept.tokens for concept in vl.find_concepts(str(prompt), list(prompt.concepts), pipe.tokenizer)]
        padding = len(pipe.tokenizer(str(prompt)).input_ids)
        for step, call in record_calls(pipe, Sampling(str(prompt), FIRST_SEED + number, {}), STEPS).items():
            stages, causal = live_stages(pipe, call), []
            for span in spans:
                text = call.text
                text[list(span)] = call.text[padding]
                with torch.no_grad():
                    causal.append((call.predict(text) - call.predict(call.text)).square().mean(-1).sqrt())
            maps = torch.stack(causal)
            row: dict[str, Any] = {"n": number, "step": step, "loo": (maps[0].sum() / maps.sum()).item()}
            for label, (method, options) in METHODS.items():
                found = influence_of_stages(stages, spans, method, **options)
                ranks = [spearman(a.numpy(), b.numpy()) for a, b in zip(found, maps, strict=True)]
                row[label] = [(found[0].sum() / found.sum()).item(), float(np.mean(ranks))]
            with RAW.open("a") as file:
                file.write(json.dumps(row) + "\n")


def table() -> None:
    """Print both numbers of each method at each step, with 95 % bootstrap intervals over clips."""
    rows = [json.loads(line) for line in RAW.read_text().splitlines()]
    generator = np.random.default_rng(0)
    for step in STEPS:
        chosen = [row for row in rows if row["step"] == step]
        causal = np.array([row["loo"] for row in chosen])
        drawn = generator.integers(0, len(chosen), (1000, len(chosen)))
        print(f"step {step}, {len(chosen)} clips")
        for label in METHODS:
            share, match = (np.array([row[label][part] for row in chosen]) for part in (0, 1))
            low, high = np.quantile([spearman(share[pick], causal[pick]) for pick in drawn], [0.025, 0.975])
            ends = np.quantile(match[drawn].mean(1), [0.025, 0.975])
            print(f"{label:8} shares {spearman(share, causal):.2f} [{low:.2f}, {high:.2f}]", end="  ")
            print(f"maps {match.mean():.2f} [{ends[0]:.2f}, {ends[1]:.2f}]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table() if arguments.table else run(arguments.count)
