"""Measurements: what `make bench` repeats (a ``bench_*.py`` each, whose ``run`` yields `Measured` rows), and the longer studies,
which are commands of their own and keep what they find in ``results/``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Measured", "bundled_call"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured number.

    Attributes
    ----------
    name : str
        What was measured, with its size ("max flow, 8x8x8, 20 sites").
    value : float
        The number.
    unit : str
        Its unit ("s", "MB", "x").
    """

    name: str
    value: float
    unit: str


def bundled_call() -> tuple[Any, Callable[[], object]]:
    """Load the bundled pipeline, and give it with a call of it on one prompt and one seed."""
    import torch

    from vico_lens.tracing.pipelines import load_pipeline

    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    prompt = "a red circle moving right and a blue square moving up"
    return pipe, lambda: pipe(prompt, output_type="latent", generator=torch.Generator().manual_seed(0))
