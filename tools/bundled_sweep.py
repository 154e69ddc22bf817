"""The bundled sweep: twelve held-out prompts and two seeds, plainly and balanced, judged; the Runs page opens on it.

``python -m tools.bundled_sweep`` makes the folder again with the bundled model, in some minutes. The prompts
are drawn at random and not chosen by their result.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from vico_lens.runs.request import quiet_pipeline
from vico_lens.runs.sweeps import sweep
from vico_lens.tinyworld.demonstration import SWEEP_FOLDER
from vico_lens.tinyworld.judge import judge_clip
from vico_lens.tinyworld.prompts import sample_prompts

__all__ = ["CONDITIONS", "make"]

CONDITIONS: dict[str, dict[str, Any] | None] = {"plain": None, "balanced": {"preset": "default"}}


def make(folder: Path = SWEEP_FOLDER) -> None:
    """Run the sweep again and replace `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    prompts = sample_prompts(12, objects=2, seed=60_000, held_out=True)
    sweep(quiet_pipeline(), prompts, [0, 1], CONDITIONS, folder, score=judge_clip, keep_videos=True)


if __name__ == "__main__":
    make()
