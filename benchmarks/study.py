"""Does balancing help, by how much, at which cost: every objective, flow, baseline and null on the same prompts and seeds.

The bundled model generates two-object prompts (and single-object ones, which balancing must leave alone) under every condition;
the exact judge says what each clip shows. Settings are chosen on one set of prompts (``--split choose``) and reported on another
that was not looked at (``--split report``). Differences are paired, clip by clip, with bootstrap intervals over prompt-seed
pairs.

    python -m benchmarks.study run --pairs 200
    python -m benchmarks.study run --pairs 100 --objects 1
    python -m benchmarks.study collect && python -m benchmarks.study_table

Runs are kept in ``runs/study`` (resumable: run the same line again). The report split is that of `benchmarks.reliability`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import vico_lens as vl
from benchmarks.conditions import CONDITIONS, SINGLE, sample_batch
from benchmarks.study_table import KEPT, RAW
from vico_lens.runs.sweeps import Run, load_sweep, run_of
from vico_lens.tinyworld import TinyPrompt, judge, parse_prompt, sample_prompts

__all__ = ["run_of_cell", "score_clip"]

RUNS = Path("runs/study")
SPLITS = {"choose": 101, "report": 777}
FIRST_SEED = {"choose": 10_000, "report": 50_000}


def score_clip(frames: np.ndarray, prompt: str) -> dict[str, Any]:
    """What the judge says of one clip, in plain values."""
    verdict = judge(frames, parse_prompt(prompt))
    return {
        "all_correct": bool(verdict.all_correct),
        "subjects_correct": bool(verdict.subjects_correct),
        "motions_correct": all(each["motion"] for each in verdict.attributes),
        "all_present": all(verdict.present),
        "failure": verdict.failure or "",
    }


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


def run_of_cell(prompt: TinyPrompt, seed: int, name: str, call: Mapping[str, Any] | None = None) -> Run:
    """The run of one prompt-seed pair under one condition; balanced are the objects that the prompt names."""
    settings = CONDITIONS[name]
    named = None if settings is None else {"concepts": list(prompt.concepts), **settings}
    return Run(str(prompt), seed, name, named, dict(call or {}), "bundled")


def folder_of(split: str, objects: int) -> Path:
    """Where the runs of a split are kept."""
    return RUNS / f"{split}-{objects}"


def collect() -> None:
    """Bring the judged runs of the report split into one file, one line a clip."""
    found = []
    for objects in (2, 1):
        folder = folder_of("report", objects)
        if folder.exists():
            found.append(load_sweep(folder).to_dataframe().reset_index().assign(objects=objects))
    clips = pd.concat(found)
    clips = clips[clips.condition.isin(CONDITIONS)].sort_values(["objects", "condition", "seed"])
    clips[list(KEPT)].to_csv(RAW, index=False)


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "collect"])
    parser.add_argument("--split", choices=sorted(SPLITS), default="report")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), metavar="NAME")
    parser.add_argument("--batch", type=int, default=10, help="clips a pipeline call")
    asked = parser.parse_args(arguments)
    if asked.action == "collect":
        collect()
        return
    names = asked.conditions or (SINGLE if asked.objects == 1 else list(CONDITIONS))
    run(asked.split, asked.pairs, asked.objects, names, asked.batch)


if __name__ == "__main__":
    main()
