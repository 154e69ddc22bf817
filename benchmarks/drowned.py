"""Does the concept that never appears hold the smaller share? Attribution against the judge, on the reliability clips.

Of the 200 plain clips of `benchmarks.reliability`, those in which exactly one of the two objects is missing are sampled again,
with the same prompts and seeds, and traced at a few steps. A method scores if the missing object has the smaller share. One guess
that looks at no model stands beside: the second object of the prompt. The first 50 clips that show both objects are the controls:
how often is the smaller share of a clip that lacks an object below that of a clip that does not (0.5 is chance)?

    python -m benchmarks.drowned
    python -m benchmarks.drowned --table
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vico_lens as vl
from benchmarks.reliability import COUNT, FIRST_SEED, SEED
from benchmarks.reliability import RAW as RELIABILITY
from vico_lens.attribution.judging.faithfulness import concept_shares
from vico_lens.plot import wilson
from vico_lens.tinyworld import judge, sample_prompts

RAW = Path(__file__).parent / "results" / "drowned.jsonl"
TABLE = RAW.with_suffix(".json")
CONTROLS = 50
STEPS = (0, 4, 8, 12, 16, 20)
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "cross_attention": ("cross_attention", {}),
    "rollout": ("rollout", {}),
    "subgraph_flow hard": ("subgraph_flow", {"kind": "hard"}),
    "subgraph_flow sum": ("subgraph_flow", {"kind": "sum"}),
    "leave_one_out": ("leave_one_out", {}),
}


def run() -> None:
    """Append one row a clip; clips that are there already are left."""
    pipe = vl.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    plain = [json.loads(line) for line in RELIABILITY.read_text().splitlines()]
    plain = [row for row in plain if row["condition"] == "plain"]
    complete = sorted(row["seed"] for row in plain if all(row["present"]))[:CONTROLS]
    chosen = {row["seed"] for row in plain if sum(row["present"]) == 1} | set(complete)
    chosen -= {row["seed"] for row in rows()}
    prompts = sample_prompts(COUNT, objects=2, seed=SEED)
    for seed in sorted(chosen):
        prompt = prompts[seed - FIRST_SEED]
        with vl.trace(pipe, capture=vl.Capture(steps=list(STEPS))) as traced:
            frames = pipe(str(prompt), generator=torch.Generator().manual_seed(seed)).frames[0]
        verdict = judge(frames, prompt)
        row: dict[str, Any] = {"seed": seed, "present": list(verdict.present), "failure": verdict.failure}
        for label, (method, options) in METHODS.items():
            influence = vl.attribute(traced.tree, method, list(prompt.concepts), pipe=pipe, **options)
            row[label] = [round(float(value), 5) for value in concept_shares(influence).isel(concept=0).values]
        with RAW.open("a") as file:
            file.write(json.dumps(row) + "\n")


def rows() -> list[dict[str, Any]]:
    """Rows measured so far."""
    return [json.loads(line) for line in RAW.read_text().splitlines()] if RAW.exists() else []


def table() -> dict[str, Any]:
    """How often the missing object is the one of the smaller share, with 95 % Wilson intervals, by step and over all steps."""
    clips, controls = [[row for row in rows() if sum(row["present"]) == count] for count in (1, 2)]
    missing = [row["present"].index(False) for row in clips]
    found: dict[str, Any] = {
        "of_clips": COUNT,
        "exactly_one_missing": len(clips),
        "controls": len(controls),
        "steps": list(STEPS),
    }
    found["second_of_the_prompt_is_missing"] = sum(missing)
    found["methods"] = {}
    for label in METHODS:
        shares, others = (
            np.array([row[label] for row in part]) for part in (clips, controls)
        )  # clip, step; of the first concept
        of_missing = np.where(np.array(missing)[:, None] == 0, shares, 1 - shares)
        hits = int((of_missing.mean(1) < 0.5).sum())
        low, high = wilson(hits, len(clips))
        smaller, usual = (np.minimum(part.mean(1), 1 - part.mean(1)) for part in (shares, others))
        found["methods"][label] = {
            "smaller_share_is_missing": hits,
            "trials": len(clips),
            "low": round(low, 3),
            "high": round(high, 3),
            "by_step": (of_missing < 0.5).sum(0).tolist(),
            "median_share_of_the_missing": round(float(np.median(of_missing.mean(1))), 3),
            "median_smaller_share_of_controls": round(float(np.median(usual)), 3),
            "below_a_control": round(float((smaller[:, None] < usual).mean()), 3),
        }
    return found


def main() -> None:
    """Measure, or print the table and write it beside the raw rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only print the table")
    asked = parser.parse_args()
    if not asked.table:
        run()
    found = table()
    TABLE.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
