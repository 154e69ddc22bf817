"""Write the model card from what was recorded: recipe, log and measurements, never from memory.

``python -m vico_lens.tinyworld.training.card`` rewrites ``model/README.md`` from the files beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vico_lens.tinyworld.pipeline import MODEL_FOLDER

__all__ = ["write_card"]

_CURVE_ROWS = 12

_TEXT = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
---
# The tiny-world model of vico-lens

A stock `AnimateDiffPipeline` (`UNetMotionModel` of {widths} channels on 8 x 8 and 4 x 4 cells, a two-layer `CLIPTextModel`, an
`AutoencoderKL`) that draws eight frames of 32 x 32: one to three coloured shapes that move or stay. {megabytes:.1f} MB of float32
weights. It exists so that dominance between concepts can be measured exactly on any laptop, offline.

```python
import torch
import vico_lens as vl

pipe = vl.load_pipeline()
generator = torch.Generator().manual_seed(0)
frames = pipe("a red circle moving right and a blue square moving up", generator=generator).frames[0]
```

`DiffusionPipeline.from_pretrained(folder)` loads it too; pass `num_frames=8, num_inference_steps=25, guidance_scale=2.5` then.

## Measured behaviour
{steps} steps, guidance {guidance}; {count} prompts a class with fixed seeds; judged by the exact judge; 95 % Wilson intervals.
Repeat with `python -m benchmarks.tinyworld --out measured.json`.

| prompts | everything right | both or all subjects right, motions aside | failures of the rest |
|---|---|---|---|
{behaviour}

"Everything right" means every object with its shape, colour, motion and any size that was named, nothing extra, and the relation
as asked. Rise of the loss at full noise when the direction word is swapped for its opposite: {probe_rise} on a loss of {probe}
(see `training/probe.py`; zero for a model that ignores the word).

## Data
{clips} rendered clips, seed {seed}. Clips of one object draw every word equally often. Clips of several do not: shapes and
colours are unequally frequent (circle .38 to cross .12; red .30 to white .06), each shape has a usual colour in 40 % of its
appearances, and a fifth of the pairs of (colour, shape) never occurs. That mix is the only source of dominance; nothing in the
weights, loss or sampler favours a word.

## Training
One process, one thread, one seed, {total} updates, {hours:.2f} hours of wall time on two shared CPU cores ({machine}).
Flow matching with time shift {shift}; Muon ({muon}) on matrices, AdamW ({adam}) on the rest; average of the weights with decay
{ema}; the rates fall twice (`rates` in `recipe.json`). Stages: {stages}. `recipe.json` and `training_log.jsonl` beside this
file hold every number; `make tinyworld-model` repeats it.

| update | hours | loss | full-noise loss | rise with the direction word swapped |
|---|---|---|---|---|
{curve}

## Limits
It knows {words} words and nothing else; other words are refused by `tinyworld.parse_prompt` and ignored by the network. Two
objects of one colour, "large" in prompts of three, more than three objects and other frame counts are outside its training. Its
failures come from a small network and an unequal training mix; they resemble those of large models in kind, not in cause that
anyone has shown.
"""


def write_card(folder: Path = MODEL_FOLDER) -> Path:
    """Write ``README.md`` into the model folder and return its path.

    Parameters
    ----------
    folder : Path
        Holds ``recipe.json``, ``training_log.jsonl``, ``measured.json`` and the weights.
    """
    from vico_lens.tinyworld.vocabulary import WORDS

    recipe = json.loads((folder / "recipe.json").read_text())
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    measured = json.loads((folder / "measured.json").read_text())
    probes = [entry for entry in log if "probe" in entry]
    path = folder / "README.md"
    path.write_text(
        _TEXT.format(
            widths=" and ".join(map(str, recipe["widths"])),
            megabytes=sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 1e6,
            steps=measured["steps"],
            guidance=measured["guidance"],
            count=" or ".join(map(str, sorted({row["trials"] for row in measured["classes"].values()}, reverse=True))),
            behaviour="\n".join(_behaviour(name, row) for name, row in measured["classes"].items()),
            probe=probes[-1]["probe"],
            probe_rise=probes[-1]["probe_rise"],
            clips=f"{sum(recipe['clips'].values()):,}",
            seed=recipe["seed"],
            total=f"{log[-1]['step']:,}",
            hours=log[-1]["seconds"] / 3600,
            machine=measured.get("machine", "AMD EPYC"),
            shift=recipe["shift"],
            muon=recipe["muon_rate"],
            adam=recipe["adam_rate"],
            ema=recipe["ema"],
            stages="; ".join(f"{s['name']}, {s['steps']:,} updates of {s['batch']}" for s in recipe["stages"]),
            curve="\n".join(_curve(entry) for entry in _spread(probes)),
            words=len(WORDS),
        )
    )
    return path


def _behaviour(name: str, row: dict[str, Any]) -> str:
    cells = []
    for key in ("all_correct", "subjects_correct"):
        share = row[key]
        cells.append(f"{100 * share['share']:.1f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}] of {row['trials']}")
    failures = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in row["failures"].items()) or "none"
    return f"| {name} | {cells[0]} | {cells[1]} | {failures} |"


def _curve(entry: dict[str, Any]) -> str:
    return f"| {entry['step']:,} | {entry['seconds'] / 3600:.2f} | {entry['loss']} | {entry['probe']} | {entry['probe_rise']} |"


def _spread(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep about a dozen entries, the last one among them."""
    stride = max(1, len(entries) // _CURVE_ROWS)
    return entries[::-1][::stride][::-1]


if __name__ == "__main__":
    print(write_card())
