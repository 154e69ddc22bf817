"""The bundled demonstration: one prompt, sampled plainly and balanced, traced, and attributed, small enough to ship.

The dashboards open on it without a model and without waiting. The traces keep a few steps at half precision; influence was
computed on every step of the full traces before that. It is kept beside them, as are the faithfulness scores of each method on
this prompt. ``python -m tools.bundled_demo`` makes the folder again from ``demo.json``, in about two minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import xarray as xr

__all__ = ["FOLDER", "METHODS", "SETTINGS", "STEPS", "SWEEP_FOLDER", "Which", "demo_comparison", "demo_influence", "demo_trace"]

Which = Literal["plain", "balanced"]
FOLDER = Path(__file__).parent / "demo"
"""Traces and influences of the demonstration."""
SWEEP_FOLDER = FOLDER / "sweep"
"""The bundled sweep."""
SETTINGS = Path(__file__).parent / "demo.json"
"""Prompt, seed and balancing settings of the demonstration."""
STEPS = (0, 8, 16, 24)
METHODS = ("rollout", "subgraph_flow", "cross_attention", "widest_path")


def demo_trace(which: Which = "plain") -> Path:
    """Path of a bundled trace, for `vico_lens.open_trace`.

    Examples
    --------
    >>> demo_trace().name
    'plain.zarr.zip'
    """
    return FOLDER / f"{which}.zarr.zip"


def demo_influence(which: Which = "plain") -> xr.Dataset:
    """Influence by several methods, over all steps of the run.

    Returns
    -------
    Dataset
        One variable a method of `METHODS`, ``(concept, step, frame, y, x)``, with the attributes that `vico_lens.attribute` gave.

    Examples
    --------
    >>> demo_influence()["rollout"].dims
    ('concept', 'step', 'frame', 'y', 'x')
    """
    with xr.open_dataset(FOLDER / f"{which}.nc", engine="scipy") as stored:
        kept = stored.load()
    return kept.assign_coords(concept=[str(name) for name in kept["concept"].values])


def demo_comparison() -> xr.Dataset:
    """Agreement and faithfulness of `METHODS` on the plain run, as `vico_lens.compare` found them with the bundled model.

    Examples
    --------
    >>> "agreement" in demo_comparison()
    True
    """
    with xr.open_dataset(FOLDER / "comparison.nc", engine="scipy") as stored:
        kept = stored.load()
    return kept.assign_coords(
        {str(name): kept[name].values.astype(str) for name in kept.coords if kept[name].dtype.kind in "SUO"}
    )
