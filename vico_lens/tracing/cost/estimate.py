"""What tracing a pipeline call would take, before it runs: bytes from the shapes, seconds from one step if asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vico_lens.tracing.capture import Capture
from vico_lens.tracing.cost.budget import cost_of, halves_of, steps_of, total_bytes
from vico_lens.tracing.cost.dry_forward import dry_calls, first_moment

if TYPE_CHECKING:
    import xarray as xr

    from vico_lens.tracing.attention_calls import Pass

__all__ = ["estimate"]


def estimate(
    pipe: Any, prompt: str | list[str], *, capture: Capture | None = None, measure: bool = False, **call: Any
) -> xr.Dataset:
    """Say what tracing a pipeline call would take: bytes without running the model, and seconds from one step of it.

    Parameters
    ----------
    pipe : diffusers pipeline
        The pipeline.
    prompt : str or list of str
        As for the call.
    capture : Capture or None
        What would be recorded; None for everything.
    measure : bool
        Also run the denoiser a few times, untraced and traced to a scratch store, and multiply by the steps of the call.
    **call
        Other arguments of the call (``num_frames``, ``height``, ``num_inference_steps``).

    Returns
    -------
    xarray.Dataset
        Along ``site``: ``kind``, ``frames``, ``rows``, ``columns``, ``tokens``, ``heads``, ``head_size``, and for the whole run
        ``weights_bytes``, ``factors_bytes``, ``stored_bytes``, before compression; these are upper bounds where
        ``Capture(tokens=...)`` names words. Scalars: ``total_bytes``, ``steps``, and with `measure` ``seconds``, which the
        denoising takes if it is traced, and ``seconds_untraced``; text encoder and decoder are not in them. Attributes:
        ``capture``, and ``forward``: fake or real.

    Raises
    ------
    TracingError
        If the pipeline is not known and its attention cannot be classified.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> table = estimate(tiny.pipe, tiny.prompt, capture=Capture(steps=[0]), height=64, width=96)
    >>> sorted(set(table.kind.values.tolist())), bool(table.total_bytes == table.stored_bytes.sum())
    (['cross', 'spatial', 'temporal'], True)
    """
    import xarray as xr

    capture = capture or Capture()
    call = {"generator": torch.Generator().manual_seed(0)} | call
    moment = first_moment(pipe, lambda: pipe(prompt=prompt, **call))
    dry = dry_calls(pipe, moment, capture.branches)
    halves, steps = halves_of(moment, dry, capture), steps_of(moment, capture)
    costs = cost_of(dry.calls, capture, halves)
    columns: dict[str, list[Any]] = {
        "kind": [cost.call.site.kind for cost in costs],
        **{name: [cost.call.site.grid[axis] for cost in costs] for axis, name in enumerate(("frames", "rows", "columns"))},
        **{name: [getattr(cost.call.site, name) for cost in costs] for name in ("tokens", "heads", "head_size")},
        "weights_bytes": [cost.weights * steps for cost in costs],
        "factors_bytes": [cost.factors * steps for cost in costs],
        "stored_bytes": [cost.stored(capture.store) * steps for cost in costs],
    }
    scalars: dict[str, float] = {"total_bytes": total_bytes(costs, capture.store, steps), "steps": steps}
    if measure:
        from vico_lens.tracing.cost.timing import time_forward

        times = time_forward(pipe, moment, dry, capture)
        scalars["seconds_untraced"], scalars["seconds"] = times.of_run(_passes(pipe, moment), steps * halves)
    return xr.Dataset(
        {name: ("site", np.array(values)) for name, values in columns.items()} | scalars,
        coords={"site": [cost.call.site.module for cost in costs]},
        attrs={"capture": capture.to_json(), "forward": "real" if dry.real else "fake", "pipeline": type(pipe).__name__},
    )


def _passes(pipe: Any, moment: Pass) -> int:
    """Denoiser forwards of the whole call."""
    timesteps = None if moment.call is None else moment.call.timesteps
    halves = {label[0] for label in moment.labels if label is not None}
    guided = halves != {"cond", "uncond"} and getattr(pipe, "do_classifier_free_guidance", False) is True
    return (1 if timesteps is None else len(timesteps)) * (2 if guided else 1)
