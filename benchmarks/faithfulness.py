"""Which attribution method to believe: every method against leave-one-out on two-object prompts of the bundled model.

For each prompt a clip is sampled and traced at a few steps, `vico_lens.compare` scores all methods and three nulls, and the
shares of every method are kept, so that the table can say both how well a method ranks within a clip and over clips.

    python -m benchmarks.faithfulness --count 100
    python -m benchmarks.faithfulness --table

Raw scores are appended to ``benchmarks/results/faithfulness.jsonl`` clip by clip; an interrupted run goes on where it stopped.
Rows of other weights than the bundled model's are left out of the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import vico_lens as vl
from vico_lens.faithfulness import spearman
from vico_lens.tinyworld import TinyPrompt, judge, sample_prompts
from vico_lens.tinyworld.vocabulary import BACKGROUND, COLOURS

RAW = Path(__file__).parent / "results" / "faithfulness.jsonl"
TABLE = RAW.with_name("faithfulness.json")
SEED, FIRST_SEED, STEPS = 778, 70_000, (4, 12, 20)
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "cross_attention": ("cross_attention", {}),
    "rollout": ("rollout", {}),
    "subgraph_flow hard": ("subgraph_flow", {"kind": "hard"}),
    "subgraph_flow soft": ("subgraph_flow", {"kind": "soft"}),
    "subgraph_flow sum": ("subgraph_flow", {"kind": "sum"}),
    "widest_path": ("widest_path", {}),
    "max_flow frame": ("max_flow", {"sink": "frame"}),
    "max_flow video": ("max_flow", {"sink": "video"}),
    "input_x_gradient": ("input_x_gradient", {}),
    "integrated_gradients": ("integrated_gradients", {"n_steps": 8}),
    "feature_ablation": ("feature_ablation", {}),
}


def object_masks(frames: np.ndarray[Any, Any], prompt: TinyPrompt) -> np.ndarray[Any, Any]:
    """Where each object of a clip that shows them all is: pixels nearest to its colour and at least half covered."""
    background = np.asarray(BACKGROUND)
    rays = np.array([COLOURS[item.colour] for item in prompt.objects]) - background
    pixels = frames - background
    cover = np.clip(pixels @ rays.T / (rays**2).sum(1), 0, 1)
    away = np.linalg.norm(pixels[..., None, :] - cover[..., None] * rays, axis=-1)
    nearest = away.argmin(-1)
    return np.stack([(nearest == index) & (cover[..., index] > 0.5) for index in range(len(rays))]).astype(float)


def score(pipe: Any, prompt: TinyPrompt, seed: int) -> dict[str, Any]:
    """Trace one clip and score all methods on it."""
    with vl.trace(pipe, capture=vl.Capture(steps=list(STEPS))) as run:
        frames = pipe(str(prompt), generator=torch.Generator().manual_seed(seed), output_type="np").frames[0]
    verdict = judge(frames, prompt)
    masks = object_masks(frames, prompt) if verdict.subjects_correct else None
    table = vl.compare(run.tree, METHODS, concepts=list(prompt.concepts), pipe=pipe, masks=masks, seed=seed)
    causal = vl.dominance(vl.attribute(run.tree, "leave_one_out", list(prompt.concepts), pipe=pipe))["share"].values
    scores = {
        name: {str(method): float(value) for method, value in zip(table["method"].values, values.values, strict=True)}
        for name, values in table.data_vars.items()
        if values.dims == ("method",)
    }
    shares = {
        str(method): float(value) for method, value in zip(table["method"].values, table["share"].values[:, 0], strict=True)
    }
    return {
        "prompt": str(prompt),
        "seed": seed,
        "weights": run.tree.attrs["weights_hash"],
        "all_correct": verdict.all_correct,
        "subjects_correct": verdict.subjects_correct,
        "scores": scores,
        "share": shares,
        "causal_share": float(causal[0]),
    }


def run(count: int) -> None:
    """Score the clips that are missing."""
    pipe = vl.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    done = {(row["seed"], row["weights"]) for row in _rows()}
    weights = _weights(pipe)
    RAW.parent.mkdir(exist_ok=True)
    for number, prompt in enumerate(tqdm(sample_prompts(count, objects=2, seed=SEED), unit="clip")):
        if (FIRST_SEED + number, weights) not in done:
            row = score(pipe, prompt, FIRST_SEED + number)
            with RAW.open("a") as file:
                file.write(json.dumps(row) + "\n")


def table(weights: str | None = None, resamples: int = 2000) -> dict[str, Any]:
    """Mean of every score over clips with a 95 % bootstrap interval, and the rank correlation of shares over clips."""
    rows = [row for row in _rows() if weights is None or row["weights"] == weights]
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(rows), (resamples, len(rows)))
    causal = np.array([row["causal_share"] for row in rows])
    found: dict[str, Any] = {}
    for method in rows[0]["share"]:
        share = np.array([row["share"][method] for row in rows])
        over = [spearman(share[pick], causal[pick]) for pick in drawn[:500]]
        cell = {"share_correlation": [spearman(share, causal), *np.quantile(over, [0.025, 0.975]).tolist()]}
        for name in sorted({name for row in rows for name in row["scores"]}):
            values = np.array([row["scores"].get(name, {}).get(method, np.nan) for row in rows])
            values = values[np.isfinite(values)]
            if len(values):
                means = values[generator.integers(0, len(values), (resamples, len(values)))].mean(1)
                cell[name] = [float(values.mean()), *np.quantile(means, [0.025, 0.975]).tolist()]
        found[method] = cell
    return {
        "command": "python -m benchmarks.faithfulness",
        "prompts": f"{len(rows)} two-object prompts (prompt seed {SEED}, clip seeds from {FIRST_SEED}), steps {list(STEPS)}",
        "weights": rows[0]["weights"],
        "with_masks": sum(row["subjects_correct"] for row in rows),
        "methods": found,
    }


def _weights(pipe: Any) -> str:
    from vico_lens.provenance import weights_hash

    return weights_hash({"unet": pipe.unet})


def _rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RAW.read_text().splitlines()] if RAW.exists() else []


def main() -> None:
    """Score clips, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--table", action="store_true", help="write benchmarks/results/faithfulness.json from the raw scores")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.table:
        run(arguments.count)
        return
    found = table(_weights(vl.load_pipeline()))
    TABLE.write_text(json.dumps(found, indent=1) + "\n")
    for method, cell in found["methods"].items():
        print(
            f"{method:22}", "  ".join(f"{name} {value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]" for name, value in cell.items())
        )


if __name__ == "__main__":
    main()
