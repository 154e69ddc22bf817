"""What every update did, and why the updates of a step ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vico_lens.intervention.balancing.schedule import StopReason

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Update", "log_of"]


@dataclass(slots=True)
class Update:
    """One evaluation of the objective on one video, and the move that followed, if any.

    Attributes
    ----------
    run, step, iteration, video : int
        Sampling pass, denoising step, iteration in it, row of the batch.
    timestep : float
        The scheduler's.
    loss : float
        Of the objective, on the latents before the move.
    influence : dict
        Concept to mean influence over the video.
    strength : dict
        Concept to the number that the objective compares.
    gradient_norm : float
        Of the loss in the latents; NaN where none was taken.
    latent_change : float
        Root mean square of the move, in latent units; 0 without one.
    applied_change : float
        On the last row of a step: root mean square by which the pipeline's own latents changed, in their precision.
    seconds : float
        Wall time of this iteration, all videos of the batch together.
    stop : str
        Why no further update followed in this step; empty while they go on.
    """

    run: int
    step: int
    iteration: int
    video: int
    timestep: float
    loss: float
    influence: dict[str, float]
    strength: dict[str, float]
    gradient_norm: float = float("nan")
    latent_change: float = 0.0
    applied_change: float = float("nan")
    seconds: float = 0.0
    stop: StopReason = ""


_UNITS = {"timestep": "scheduler units", "latent_change": "latent units", "applied_change": "latent units", "seconds": "s"}


def log_of(updates: Sequence[Update], attrs: dict[str, Any]) -> xr.Dataset:
    """Collect updates in a dataset over `update`, in the order in which they were made.

    Returns
    -------
    Dataset
        Coordinates ``run, step, iteration, video, timestep (update)`` and ``concept``; variables ``loss, gradient_norm,
        latent_change, applied_change, seconds, stop (update)`` and ``influence, share, strength (update, concept)``. A share is
        an influence over the sum of all concepts'. Concepts that a prompt of the batch lacks are NaN.

    Examples
    --------
    >>> log = log_of([Update(0, 0, 0, 0, 999.0, 0.5, {"cat": 0.1, "dog": 0.3}, {"cat": 0.2, "dog": 0.6})], {})
    >>> log.share.sel(concept="cat").values
    array([0.25])
    """
    import numpy as np
    import xarray as xr

    names = list(dict.fromkeys(name for update in updates for name in update.influence))

    def column(name: str) -> tuple[str, Any, dict[str, str]]:
        return (
            "update",
            np.array([getattr(update, name) for update in updates]),
            {"units": _UNITS[name]} if name in _UNITS else {},
        )

    def table(name: str) -> tuple[tuple[str, str], Any]:
        rows = [[getattr(update, name).get(concept, np.nan) for concept in names] for update in updates]
        return ("update", "concept"), np.array(rows, dtype=float).reshape(len(updates), len(names))

    log = xr.Dataset(
        {
            "loss": column("loss"),
            "influence": table("influence"),
            "strength": table("strength"),
            "gradient_norm": column("gradient_norm"),
            "latent_change": column("latent_change"),
            "applied_change": column("applied_change"),
            "seconds": column("seconds"),
            "stop": ("update", np.array([update.stop for update in updates], dtype=str)),
        },
        {name: column(name) for name in ("run", "step", "iteration", "video", "timestep")}
        | {"concept": np.array(names, dtype=str)},
        attrs,
    )
    return log.assign(share=log.influence / log.influence.sum("concept"))
