"""How often the bundled model does what a prompt asks: counts by the exact judge, with Wilson intervals.

``python -m benchmarks.tinyworld --out FILE.json`` repeats the table of the model card.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from vico_lens.kernels.intervals import wilson
from vico_lens.tinyworld.judge import Verdict, judge
from vico_lens.tinyworld.prompts import TinyPrompt, sample_prompts

__all__ = ["CLASSES", "generate", "summarise"]

# Prompt seeds of the published table. Other scripts that choose settings must use other seeds.
CLASSES: dict[str, dict[str, Any]] = {
    "one object": {"objects": 1, "seed": 101},
    "two objects": {"objects": 2, "seed": 102},
    "two objects, pairs kept out of training": {"objects": 2, "seed": 103, "held_out": True},
    "two still objects in a relation": {"objects": 2, "seed": 104, "relation": True},
    "three objects": {"objects": 3, "seed": 105},
}
_FIRST_SEED = 10_000


def generate(
    pipe: Any, prompts: Sequence[TinyPrompt], seeds: Sequence[int], *, batch: int = 10, **settings: Any
) -> NDArray[np.float32]:
    """Generate one clip a prompt, each from its own seed.

    Returns
    -------
    ndarray
        float32 ``[clip, frame, row, column, rgb]`` in 0..1.
    """
    clips = []
    for start in tqdm(range(0, len(prompts), batch), desc="generate", unit="batch", leave=False, mininterval=5):
        chunk = slice(start, start + batch)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[chunk]]
        clips.append(pipe([str(p) for p in prompts[chunk]], generator=generators, output_type="np", **settings).frames)
    return np.concatenate(clips)


def summarise(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Count outcomes: everything right, subjects right, motions right, and the kinds of failure."""
    trials = len(verdicts)
    rows: dict[str, Any] = {"trials": trials}
    for name, good in (
        ("all_correct", sum(v.all_correct for v in verdicts)),
        ("subjects_correct", sum(v.subjects_correct for v in verdicts)),
        ("motions_correct", sum(all(a["motion"] for a in v.attributes) for v in verdicts)),
    ):
        low, high = wilson(good, trials)
        rows[name] = {"successes": good, "share": round(good / trials, 4), "low": round(low, 4), "high": round(high, 4)}
    rows["failures"] = dict(Counter(v.failure for v in verdicts if v.failure).most_common())
    return rows


def main() -> None:
    """Measure the bundled model, or another folder of the same format."""
    from vico_lens.tinyworld.pipeline import GUIDANCE, STEPS
    from vico_lens.tracing.pipelines import load_pipeline

    parser = argparse.ArgumentParser(description="Measure a tiny-world model with the exact judge.")
    parser.add_argument("--model", default=None, help="pipeline folder (default: the bundled model)")
    parser.add_argument("--count", type=int, default=200, help="prompts a class")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=CLASSES, action="append", help="this class, and keep the others of an earlier --out")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipe = load_pipeline(arguments.model)
    pipe.set_progress_bar_config(disable=True)
    table: dict[str, Any] = {"steps": arguments.steps, "guidance": arguments.guidance, "classes": {}}
    if arguments.only and arguments.out.exists():
        table["classes"] = json.loads(arguments.out.read_text())["classes"]
    for name, options in CLASSES.items():
        if arguments.only and name not in arguments.only:
            continue
        prompts = sample_prompts(arguments.count, **options)
        start = time.perf_counter()
        clips = generate(
            pipe,
            prompts,
            range(_FIRST_SEED, _FIRST_SEED + len(prompts)),
            num_frames=8,
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.guidance,
        )
        seconds = time.perf_counter() - start
        table["classes"][name] = summarise([judge(clip, prompt) for clip, prompt in zip(clips, prompts, strict=True)])
        table["classes"][name]["seconds_a_clip"] = round(seconds / len(prompts), 3)
        print(name, json.dumps(table["classes"][name]), flush=True)
        arguments.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
