"""Train a bundled model from nothing: ``make tinyworld-model MODEL=joint``.

Every part goes on where it stopped: interrupt it, close the laptop, call it again.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

import torch

from vico_lens.tinyworld.training.loop import make_source, train
from vico_lens.tinyworld.training.recipe import load_recipe, recipe_names
from vico_lens.tinyworld.training.validation import make_validation


def main() -> None:
    """Make the data, train, train the autoencoder, and write the pipeline folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=recipe_names(), default="unet", help="which recipe to follow")
    parser.add_argument("--work", type=Path, default=None, help="checkpoints and logs (default: runs/MODEL)")
    parser.add_argument("--threads", type=int, default=1, help="the shipped weights were made with one")
    parser.add_argument("--stop-at", type=int, default=None, help="stop after this many updates, to go on later")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = load_recipe(arguments.model)
    work: Path = arguments.work or Path("runs") / arguments.model

    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    source = make_source(recipe)
    validation = make_validation(source.code, seed=recipe.seed, shift=recipe.shift)
    train(recipe, source, work, validation=validation, stop_at=arguments.stop_at, interrupted=lambda: bool(asked))


if __name__ == "__main__":
    main()
