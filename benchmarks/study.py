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
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

import vico_lens as vl
from benchmarks.conditions import CONDITIONS, SINGLE, sample_batch
from vico_lens.sweep import Run, load_sweep, run_of
from vico_lens.tinyworld import TinyPrompt, judge, parse_prompt, sample_prompts

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CONDITIONS", "compare_pairs", "run_of_cell", "score_clip", "tabulate"]

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/study")
SPLITS = {"choose": 101, "report": 777}
FIRST_SEED = {"choose": 10_000, "report": 50_000}
SHARES = ("all_correct", "subjects_correct", "all_present")


def score_clip(frames: np.ndarray, prompt: str) -> dict[str, Any]:
    """What the judge says of one clip, in plain values."""
    verdict = judge(frames, parse_prompt(prompt))
    return {
        "all_correct": bool(verdict.all_correct),
        "subjects_correct": bool(verdict.subjects_correct),
        "motions_correct": all(each["motion"] for each in verdict.attributes),
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


def run(split: str, pairs: int, objects: int, names: Sequence[str], batch: int) -> None:
    """Generate what is missing, a batch of pairs under all conditions before the next, so that a table of the first is paired."""
    import torch

    torch.set_num_threads(1)
    pipe = vl.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    folder = folder_of(split, objects)
    folder.mkdir(parents=True, exist_ok=True)
    cells = list(zip(sample_prompts(pairs, objects=objects, seed=SPLITS[split]), itertools.count(FIRST_SEED[split])))
    with tqdm(total=pairs * len(names), unit="clip") as bar:
        for start, name in itertools.product(range(0, pairs, batch), names):
            runs = [run_of_cell(prompt, seed, name) for prompt, seed in cells[start : start + batch]]
            missing = [run for run in runs if not (folder / f"{run.key}.json").exists()]
            for one, made in zip(missing, sample_batch(pipe, missing) if missing else (), strict=True):
                run_of(
                    one,
                    folder=str(folder),
                    pipe=pipe,
                    score=score_clip,
                    keep_videos=True,
                    sample=lambda _pipe, _run, made=made: made,
                )
            bar.update(len(runs))


def run_of_cell(prompt: TinyPrompt, seed: int, name: str) -> Run:
    """The run of one prompt-seed pair under one condition; balanced are the objects that the prompt names."""
    settings = CONDITIONS[name]
    named = None if settings is None else {"concepts": list(prompt.concepts), **settings}
    return Run(str(prompt), seed, name, named, {}, "bundled")


def folder_of(split: str, objects: int) -> Path:
    """Where the runs of a split are kept."""
    return RUNS / f"{split}-{objects}"


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--split", choices=sorted(SPLITS), default="report")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), metavar="NAME")
    parser.add_argument("--batch", type=int, default=10, help="clips a pipeline call")
    asked = parser.parse_args(arguments)
    if asked.action == "run":
        names = asked.conditions or (SINGLE if asked.objects == 1 else list(CONDITIONS))
        run(asked.split, asked.pairs, asked.objects, names, asked.batch)
    rows = tabulate(load_sweep(folder_of(asked.split, asked.objects)))
    RESULTS.mkdir(exist_ok=True)
    place = RESULTS / f"study-{asked.split}-{asked.objects}"
    place.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    place.with_suffix(".md").write_text(_markdown(rows))
    print(_markdown(rows))


if __name__ == "__main__":
    main()
