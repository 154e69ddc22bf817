"""Write the model card from what was recorded: recipe, log and measurements, never from memory.

``python -m vico_lens.tinyworld.training.card --model joint`` rewrites a bundled model's ``README.md`` from the files beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vico_lens.tinyworld.pipeline import BUNDLED, model_folder
from vico_lens.tinyworld.training.recipe import Recipe, recipe_names

__all__ = ["write_card"]

_CURVE_ROWS = 12

_TEXT = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
---
# {name}: a model of the tiny world of vico-lens

{parts} It draws eight frames of 32 x 32: one to three coloured shapes that move or stay. {megabytes:.1f} MB of weights. It exists
so that dominance between concepts can be measured exactly on any laptop, offline.

```python
import torch
import vico_lens as vl

pipe = vl.load_pipeline("{name}")
generator = torch.Generator().manual_seed(0)
frames = pipe("a red circle moving right and a blue square moving up", generator=generator).frames[0]
```

`DiffusionPipeline.from_pretrained(folder)` loads it too; pass `{options}` then.

## Measured behaviour
{steps} steps, guidance {guidance}; {count} prompts a class with fixed seeds; judged by the exact judge; 95 % Wilson intervals.
Repeat with `python -m benchmarks.tinyworld --model {name} --out measured.json`.

| prompts | everything right | both or all subjects right, motions aside | failures of the rest |
|---|---|---|---|
{behaviour}

"Everything right" means every object with its shape, colour, motion and any size that was named, nothing extra, and the relation
as asked. Rise of the loss at full noise when the direction word is swapped for its opposite: {probe_rise} on a loss of {probe}
(see `training/validation.py`; zero for a model that ignores the word).

## Data
{data} Clips of one object draw every word equally often. Clips of several do not: shapes and colours are unequally frequent
(circle .38 to cross .12; red .30 to white .06), each shape has a usual colour in 40 % of its appearances, and a fifth of the
pairs of (colour, shape) never occurs. That mix is the only source of dominance; nothing in the weights, loss or sampler favours
a word.

## Training
One process, one thread, one seed ({seed}), {total} updates, {hours:.2f} hours{machines}. Flow matching, sampled with time shift
{shift}; Muon ({muon}) on matrices, AdamW ({adam}) on the rest; products in {precision}; average of the weights with decay {ema};
the rates change as `rates` in `recipe.json` say. `recipe.json` and `training_log.jsonl` beside this file hold every number;
`make tinyworld-model MODEL={model}` repeats it.

| stage | updates | clips an update | frames a clip |{patch_head} one / two / three objects / relation |
|---|---|---|---|{patch_rule}---|
{stages}

| update | hours | loss |{fresh_head} full-noise loss | rise with the direction word swapped |
|---|---|---|{fresh_rule}---|---|
{curve}
{fresh_note}
## Limits
It knows {words} words and nothing else; other words are refused by `tinyworld.parse_prompt` and ignored by the network. Two
objects of one colour, "large" in prompts of three, more than three objects and other frame counts are outside its training. Its
failures come from a small network and an unequal training mix; they resemble those of large models in kind, not in cause that
anyone has shown.
"""

_PARTS = {
    "unet": (
        "A stock `AnimateDiffPipeline`: a `UNetMotionModel` of {widths} channels on 8 x 8 and 4 x 4 cells, a two-layer "
        "`CLIPTextModel`, an `AutoencoderKL`."
    ),
    "joint": (
        "A stock `CogVideoXPipeline`: a `CogVideoXTransformer3DModel` of {layers} layers, {width} channels and {heads} heads, in "
        "which the tokens of the text and of all frames share one softmax (one token a cell of 8 x 8 in 8 frames), a two-layer "
        "`T5EncoderModel` trained with it, and a causal video autoencoder, `AutoencoderKLCogVideoX`."
    ),
    "cosmos": (
        "A stock `CosmosTextToWorldPipeline`: a `CosmosTransformer3DModel` of {layers} layers, {width} channels and {heads} "
        "heads, whose video tokens (one a cell of 8 x 8 in 8 frames) attend to those of all frames and, apart from that, to the "
        "text, a two-layer `T5EncoderModel` trained with it, and a causal video autoencoder, `AutoencoderKLCosmos`."
    ),
}
_OPTIONS = {
    "unet": "num_frames=8, num_inference_steps=25, guidance_scale=2.5",
    "joint": "num_frames=8, num_inference_steps=25, guidance_scale=2.5, max_sequence_length=32",
    "cosmos": (
        "num_frames=8, height=32, width=32, num_inference_steps=40, guidance_scale=1.5, max_sequence_length=32, "
        "negative_prompt=''"
    ),
}
_DATA = {
    "rendered": "{clips:,} rendered clips.",
    "composed": (
        "Clips composed without end as sums of rendered clips of one object ({layouts} of every shape, colour, motion and size): "
        "the latent code is linear and objects never overlap."
    ),
}


def write_card(folder: Path) -> Path:
    """Write ``README.md`` into the folder of a model and return its path.

    Parameters
    ----------
    folder : Path
        Holds ``recipe.json``, ``training_log.jsonl``, ``measured.json`` and the weights.
    """
    from vico_lens.tinyworld.vocabulary import WORDS

    recipe = Recipe.from_dict(json.loads((folder / "recipe.json").read_text()))
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    measured = json.loads((folder / "measured.json").read_text())
    probes = [entry for entry in log if "probe" in entry]
    fresh = "loss_one" in probes[-1]
    patched = recipe.stages[-1].patch is not None
    machines = sorted({entry["machine"] for entry in log if "machine" in entry})
    names = {model: name for name, model in BUNDLED.items()}
    network = recipe.network | {"widths": " and ".join(map(str, recipe.network.get("widths", ())))}
    path = folder / "README.md"
    path.write_text(
        _TEXT.format(
            name=names[recipe.model],
            model=recipe.model,
            parts=_PARTS[recipe.model].format(**network),
            megabytes=sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 1e6,
            options=_OPTIONS[recipe.model],
            steps=measured["steps"],
            guidance=measured["guidance"],
            count=" or ".join(map(str, sorted({row["trials"] for row in measured["classes"].values()}, reverse=True))),
            behaviour="\n".join(_behaviour(name, row) for name, row in measured["classes"].items()),
            probe=probes[-1]["probe"],
            probe_rise=probes[-1]["probe_rise"],
            data=_DATA[recipe.source].format(clips=sum(recipe.clips.values()), layouts=recipe.clips["one"]),
            seed=recipe.seed,
            total=f"{log[-1]['step']:,}",
            hours=log[-1]["seconds"] / 3600,
            machines=f" of one core ({', '.join(machines)})" if machines else "",
            shift=recipe.shift,
            muon=recipe.muon_rate,
            adam=recipe.adam_rate,
            precision=recipe.precision,
            ema=recipe.ema,
            patch_head=" cells a token |" if patched else "",
            patch_rule="---|" if patched else "",
            stages="\n".join(_stages(recipe)),
            fresh_head=" one object, fresh | two objects, fresh |" if fresh else "",
            fresh_rule="---|---|" if fresh else "",
            fresh_note='\n"Fresh": the averaged weights on 48 clips of new layouts, at even noise levels.\n' if fresh else "",
            curve="\n".join(_curve(entry, fresh) for entry in _spread(probes)),
            words=len(WORDS),
        )
    )
    return path


def _stages(recipe: Recipe) -> list[str]:
    rows = []
    for stage in recipe.stages:
        frames = f"{stage.frames}" if not stage.full_share else f"{stage.frames}; {stage.full_share:.0%} of updates see 8"
        patch = "" if stage.patch is None else f" {stage.patch} x {stage.patch} |"
        mix = " / ".join(f"{stage.mix.get(kind, 0):.0%}" for kind in ("one", "two", "three", "relation"))
        rows.append(f"| {stage.name} | {stage.steps:,} | {stage.batch} | {frames} |{patch} {mix} |")
    return rows


def _behaviour(name: str, row: dict[str, Any]) -> str:
    cells = []
    for key in ("all_correct", "subjects_correct"):
        share = row[key]
        cells.append(f"{100 * share['share']:.1f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}] of {row['trials']}")
    failures = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in row["failures"].items()) or "none"
    return f"| {name} | {cells[0]} | {cells[1]} | {failures} |"


def _curve(entry: dict[str, Any], fresh: bool) -> str:
    losses = [entry["loss"], *([entry["loss_one"], entry["loss_two"]] if fresh else []), entry["probe"], entry["probe_rise"]]
    return f"| {entry['step']:,} | {entry['seconds'] / 3600:.2f} | " + " | ".join(map(str, losses)) + " |"


def _spread(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep about a dozen entries, the last one among them."""
    stride = max(1, len(entries) // _CURVE_ROWS)
    return entries[::-1][::stride][::-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the card of a bundled model.")
    parser.add_argument("--model", choices=recipe_names(), default="unet")
    print(write_card(model_folder(parser.parse_args().model)))
