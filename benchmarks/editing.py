"""Adding an object to a given clip: inversion, then generation under a longer prompt, plain and balanced.

Sources are rendered, so that nothing about them is in doubt: one object that moves. The inversion is checked first: the clip
generated again from its latents, against the clip. Then the prompt names a second object, and the judge says whether the first is
still as it was and the second as asked. ``python -m benchmarks.editing 50`` writes ``benchmarks/results/editing.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import vico_lens as vl
from benchmarks.study_table import compare_pairs
from vico_lens.intervention.balancing.quality import distance
from vico_lens.tinyworld import judge, parse_prompt, render, sample_prompts
from vico_lens.tracing.video import to_rgb

__all__ = ["edits", "summary"]

RESULTS = Path(__file__).parent / "results" / "editing.json"
PROMPT_SEED = 404
CONDITIONS: dict[str, dict[str, Any] | None] = {"plain": None, "balanced": {"preset": "default"}}


def edits(pipe: Any, count: int) -> Iterator[dict[str, Any]]:
    """One row a clip: what comes back from its latents, and what each way of editing made of it."""
    pairs = sample_prompts(count, objects=2, seed=PROMPT_SEED)
    for index, whole in enumerate(pairs):
        first = parse_prompt(str(whole).split(" and ")[0])
        source = render(first, seed=index).frames
        latents = vl.invert(pipe, source, str(first), num_inference_steps=25)
        again = to_rgb(pipe(str(first), latents=latents, num_inference_steps=25, guidance_scale=1.0).frames[0])
        row: dict[str, Any] = {
            "prompt": str(whole),
            "error": distance(again, source),
            "came_back": bool(judge(again, first).all_correct),
        }
        for name, settings in CONDITIONS.items():
            context = nullcontext() if settings is None else vl.balance(pipe, list(whole.concepts), **settings)
            with context:
                edited = to_rgb(pipe(str(whole), latents=latents, num_inference_steps=25).frames[0])
            verdict = judge(edited, whole)
            kept, added = (all(values.values()) for values in verdict.attributes)
            row[name] = {"kept": kept, "added": added, "both": bool(verdict.all_correct), "distance": distance(edited, source)}
        yield row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of clips, and paired differences of balanced to plain with 95 % bootstrap intervals."""
    told: dict[str, Any] = {
        "clips": len(rows),
        "error_mean": float(np.mean([row["error"] for row in rows])),
        "came_back": float(np.mean([row["came_back"] for row in rows])),
    }
    for kind in ("kept", "added", "both"):
        plain, balanced = (np.array([row[name][kind] for row in rows]) for name in CONDITIONS)
        told[kind] = {"plain": float(plain.mean()), "balanced": float(balanced.mean()), **compare_pairs(balanced, plain)}
    return told


def main(count: int) -> None:
    """Measure, and write rows and summary after every clip."""
    torch.set_num_threads(1)
    pipe = vl.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    RESULTS.parent.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    for row in tqdm(edits(pipe, count), total=count, unit="clip"):
        rows.append(row)
        RESULTS.write_text(json.dumps({"summary": summary(rows), "rows": rows}, indent=1) + "\n")
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
