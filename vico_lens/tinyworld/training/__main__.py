"""Train a bundled model from nothing: ``make tinyworld-model MODEL=joint``.

Every part goes on where it stopped: interrupt it, close the laptop, call it again.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vico_lens.tinyworld.pipeline import model_folder
from vico_lens.tinyworld.training.architecture import architecture_of
from vico_lens.tinyworld.training.autoencoder import train_autoencoder
from vico_lens.tinyworld.training.data import fit_code, make_training_frames
from vico_lens.tinyworld.training.export import save
from vico_lens.tinyworld.training.loop import load_average, make_source, train
from vico_lens.tinyworld.training.recipe import Recipe, load_recipe, recipe_names
from vico_lens.tinyworld.training.validation import make_validation

_PARTS = ("denoiser", "autoencoder", "pipeline")


def main() -> None:
    """Train the denoiser with its text encoder, train the autoencoder, and write the pipeline folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=recipe_names(), default="unet", help="which recipe to follow")
    parser.add_argument("--part", choices=_PARTS, action="append", help="only this part (default: all, in order)")
    parser.add_argument("--work", type=Path, default=None, help="checkpoints and logs (default: runs/MODEL)")
    parser.add_argument("--out", type=Path, default=None, help="where the pipeline goes (default: into the package)")
    parser.add_argument("--threads", type=int, default=1, help="the shipped weights were made with one")
    parser.add_argument("--minutes", type=float, default=None, help="save and stop after so long, to go on later")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = load_recipe(arguments.model)
    work = arguments.work or Path("runs") / arguments.model
    work.mkdir(parents=True, exist_ok=True)
    interrupted = _stopper(arguments.minutes)
    parts = arguments.part or _PARTS
    if "denoiser" in parts:
        source = make_source(recipe)
        validation = make_validation(source.code, seed=recipe.seed, shift=recipe.shift)
        train(recipe, source, work, validation=validation, interrupted=interrupted)
    if "autoencoder" in parts and not interrupted():
        _autoencoder(recipe, work, interrupted)
    if "pipeline" in parts and not interrupted():
        _write(recipe, work, arguments.out or model_folder(arguments.model))


def _stopper(minutes: float | None) -> Callable[[], bool]:
    """Return whether it is time to save and stop: after some minutes, or when the process is told to end."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    end = None if minutes is None else time.monotonic() + 60 * minutes
    return lambda: bool(told) or (end is not None and time.monotonic() > end)


def _autoencoder(recipe: Recipe, work: Path, interrupted: Callable[[], bool] = lambda: False) -> torch.nn.Module:
    code = fit_code(np.random.default_rng(recipe.seed))
    frames = make_training_frames(np.random.default_rng([recipe.seed, 1]))
    build = type(architecture_of(recipe)).build_autoencoder
    return train_autoencoder(build, code, frames, work, seed=recipe.seed, interrupted=interrupted)


def _write(recipe: Recipe, work: Path, folder: Path) -> None:
    architecture, networks = load_average(recipe, work)
    pipe = architecture.assemble(networks, _autoencoder(recipe, work), architecture.tokenizer())
    size = save(pipe, folder, recipe)
    for name in ("log.jsonl", "autoencoder.jsonl"):
        shutil.copy(work / name, folder / f"training_{name}")
    print(f"wrote {folder} ({size / 1e6:.1f} MB of weights)")
    print(f"measure it: python -m benchmarks.tinyworld --model {folder} --out {folder}/measured.json")


if __name__ == "__main__":
    main()
