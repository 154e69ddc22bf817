"""Does balancing help, by how much, at which cost: every objective, flow, baseline and null on the same prompts and seeds.

The bundled model generates two-object prompts (and single-object ones, which balancing must leave alone) under every condition;
the exact judge says what each clip shows. Settings are chosen on one set of prompts (``--split choose``) and reported on another
that was not looked at (``--split report``). Differences are paired, clip by clip, with bootstrap intervals over prompt-seed
pairs.

    python -m benchmarks.study run --split report --pairs 200
    python -m benchmarks.study table --split report

Runs are kept in ``runs/study`` (resumable: run the same line again); tables go to ``benchmarks/results/study-SPLIT.{json,md}``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

import vico_lens as vl
from vico_lens.balancing import FixedRms, RandomDirection, Schedule
from vico_lens.sweep import load_sweep, sweep
from vico_lens.tinyworld import judge, parse_prompt, sample_prompts

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CONDITIONS", "compare_pairs", "score_clip", "tabulate"]

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/study")
SPLITS = {"choose": 101, "report": 202}
FIRST_SEED = {"choose": 10_000, "report": 20_000}
SHARES = ("all_correct", "subjects_correct", "all_present", "attributes")
EARLY = Schedule(stop=0.4, iterations=1, threshold=0.01)


def _at(size: float, **settings: Any) -> dict[str, Any]:
    return {"step": FixedRms(size), "schedule": EARLY, **settings}


CONDITIONS: dict[str, Mapping[str, Any] | None] = {
    "plain": None,
    "default": {"preset": "default"},
    "vico": {"preset": "vico"},
    "weakest, hard flow": _at(0.03, objective="weakest", kind="hard"),
    "weakest, soft flow": _at(0.03, objective="weakest", kind="soft"),
    "weakest, sum flow": _at(0.03, objective="weakest", kind="sum"),
    "variance, hard flow": _at(0.03, objective="variance", kind="hard"),
    "equal, sum flow": _at(0.03, objective="equal", kind="sum"),
    "equal, rollout": _at(0.03, objective="equal", flow="rollout"),
    "equal, cross-attention": _at(0.03, objective="equal", flow="cross_attention"),
    "attend and excite": _at(0.03, objective="attend_and_excite"),
    "random direction": {"step": RandomDirection(FixedRms(0.03)), "schedule": EARLY, "objective": "equal", "kind": "sum"},
    "best of 2 seeds": {"baseline": "best_of", "count": 2, "objective": "equal", "kind": "sum"},
    "token weight 1.5": {"baseline": "reweight", "weight": 1.5},
    "composed concepts": {"baseline": "compose"},
}
"""Name to settings, as `vico_lens.sweep` takes them."""


def score_clip(frames: np.ndarray, prompt: str) -> dict[str, Any]:
    """What the judge says of one clip, in plain values."""
    verdict = judge(frames, parse_prompt(prompt))
    return {
        "all_correct": bool(verdict.all_correct),
        "subjects_correct": bool(verdict.subjects_correct),
        "all_present": all(verdict.present),
        "attributes": float(np.mean([value for each in verdict.attributes for value in each.values()])),
        "failure": verdict.failure or "",
    }


def compare_pairs(condition: np.ndarray, plain: np.ndarray, resamples: int = 5000, seed: int = 0) -> dict[str, Any]:
    """Mean of paired differences, with a 95 % bootstrap interval over pairs; how many pairs were gained and lost.

    Examples
    --------
    >>> result = compare_pairs(np.array([1, 1, 0, 1]), np.array([0, 1, 1, 1]))
    >>> result["difference"], result["gained"], result["lost"]
    (0.0, 1, 1)
    """
    difference = condition.astype(float) - plain.astype(float)
    drawn = np.random.default_rng(seed).integers(0, len(difference), (resamples, len(difference)))
    low, high = np.quantile(difference[drawn].mean(1), [0.025, 0.975])
    return {
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "gained": int((difference > 0).sum()),
        "lost": int((difference < 0).sum()),
    }


def tabulate(index: xr.Dataset) -> list[dict[str, Any]]:
    """One row a condition: shares of clips, paired differences to plain, cost in denoiser forwards relative to plain.

    Only pairs that have a plain clip count, and for every condition only its own pairs.
    """
    by: dict[str, dict[tuple[str, int], int]] = {}
    for place, (name, prompt, seed) in enumerate(
        zip(index.condition.values, index.prompt.values, index.seed.values, strict=True)
    ):
        by.setdefault(str(name), {})[str(prompt), int(seed)] = place
    rows = []
    for name, places in by.items():
        pairs = [pair for pair in places if pair in by["plain"]]
        own, plain = [places[pair] for pair in pairs], [by["plain"][pair] for pair in pairs]
        failures, counts = np.unique(index.failure.values[own], return_counts=True)
        rows.append(
            {
                "condition": name,
                "pairs": len(pairs),
                **{
                    kind: float(index[kind].values[own].mean())
                    for kind in ("all_correct", "subjects_correct", "all_present", "attributes")
                },
                **compare_pairs(index.all_correct.values[own], index.all_correct.values[plain]),
                "cost": float(index.row_forwards.values[own].mean() / index.row_forwards.values[plain].mean()),
                "failures": {str(kind): int(count) for kind, count in zip(failures, counts, strict=True) if kind},
            }
        )
    return rows


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| condition | pairs | all right | against plain (95 %) | gained / lost | both present | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        change = (
            ""
            if row["condition"] == "plain"
            else f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
        )
        lines.append(
            f"| {row['condition']} | {row['pairs']} | {100 * row['all_correct']:.1f} % | {change} | "
            f"{row['gained']} / {row['lost']} | {100 * row['all_present']:.1f} % | {row['cost']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def run(split: str, pairs: int, objects: int, names: list[str], steps: int | None, model: str | None) -> None:
    """Generate what is missing."""
    import torch

    torch.set_num_threads(1)
    pipe = vl.load_pipeline(model) if model else vl.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    prompts = sample_prompts(pairs, objects=objects, seed=SPLITS[split])
    seeds = range(FIRST_SEED[split], FIRST_SEED[split] + pairs)
    call = {} if steps is None else {"num_inference_steps": steps}
    chosen = {name: CONDITIONS[name] for name in names}
    with tqdm(total=pairs * len(chosen), unit="clip") as bar:
        sweep(
            pipe, prompts, seeds, chosen, _folder(split, objects), call=call, score=score_clip, pairs=True,
            model=model or "bundled", progress=lambda done, _: bar.update(done - bar.n),
        )  # fmt: skip


def _folder(split: str, objects: int) -> Path:
    return RUNS / f"{split}-{objects}"


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--split", choices=sorted(SPLITS), default="report")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS), metavar="NAME")
    parser.add_argument("--steps", type=int, help="denoising steps; the model's default otherwise")
    parser.add_argument("--model", help="folder or id of another model than the bundled one")
    asked = parser.parse_args(arguments)
    if asked.action == "run":
        run(asked.split, asked.pairs, asked.objects, asked.conditions, asked.steps, asked.model)
    rows = tabulate(load_sweep(_folder(asked.split, asked.objects)))
    RESULTS.mkdir(exist_ok=True)
    place = RESULTS / f"study-{asked.split}-{asked.objects}"
    place.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    place.with_suffix(".md").write_text(_markdown(rows))
    print(_markdown(rows))


if __name__ == "__main__":
    main()
