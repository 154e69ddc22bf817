"""Train the bundled model from nothing: ``make tinyworld-model``.

Every part goes on where it stopped: interrupt it, close the laptop, call it again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch

from vico_lens.tinyworld.pipeline import MODEL_FOLDER
from vico_lens.tinyworld.training.autoencoder import train_autoencoder
from vico_lens.tinyworld.training.data import make_training_data, make_training_frames
from vico_lens.tinyworld.training.export import assemble, save
from vico_lens.tinyworld.training.loop import train
from vico_lens.tinyworld.training.recipe import RECIPE
from vico_lens.tinyworld.training.tokenizer import build_tokenizer


def main() -> None:
    """Make the data, train, train the autoencoder, and write the pipeline folder."""
    from diffusers import AutoencoderKL

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/tinyworld"), help="checkpoints and logs")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="where the finished pipeline goes")
    parser.add_argument("--threads", type=int, default=1, help="the shipped weights were made with one")
    parser.add_argument("--stop-at", type=int, default=None, help="stop after this many updates, to go on later")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)

    tokenizer = build_tokenizer()
    data = make_training_data(RECIPE.clips, tokenizer, seed=RECIPE.seed)
    networks = train(RECIPE, data, tokenizer, work, stop_at=arguments.stop_at)
    if arguments.stop_at is not None and arguments.stop_at < RECIPE.steps:
        return
    if (work / "autoencoder").exists():
        autoencoder = AutoencoderKL.from_pretrained(work / "autoencoder", local_files_only=True)
    else:
        frames = make_training_frames(np.random.default_rng([RECIPE.seed, 1]))
        codes = data.code.encode(frames.float() / 255)
        autoencoder = train_autoencoder(codes, frames, seed=RECIPE.seed, log=work / "autoencoder.jsonl")
        partial = work / "autoencoder.partial"
        autoencoder.save_pretrained(partial, safe_serialization=True)
        os.replace(partial, work / "autoencoder")
    size = save(assemble(networks, autoencoder, tokenizer, RECIPE), arguments.out)
    for name in ("log.jsonl", "autoencoder.jsonl"):
        shutil.copy(work / name, arguments.out / f"training_{name}")
    (arguments.out / "recipe.json").write_text(json.dumps(RECIPE.as_dict(), indent=2) + "\n")
    print(f"wrote {arguments.out} ({size / 2**20:.1f} MiB of weights); measure it: python -m benchmarks.tinyworld --out FILE")


if __name__ == "__main__":
    main()
