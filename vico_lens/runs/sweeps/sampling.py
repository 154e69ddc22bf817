"""The video of one run: which session its settings ask for, and the pipeline that it is sampled with."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np

from vico_lens.errors import InputError
from vico_lens.runs.sweeps.grid_cell import Run

__all__ = ["is_loader", "loaded", "sample_run"]

# A pipeline is loaded once a process and sweep.
_pipelines: dict[str, Any] = {}


def sample_run(pipe: Any, run: Run) -> tuple[np.ndarray, dict[str, Any]]:
    """Sample the video of a run; returns it with what it cost.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> call = {name: value for name, value in tiny.kwargs.items() if name not in ("prompt", "generator")}
    >>> video, costs = sample_run(tiny.pipe, Run(tiny.prompt, 0, "plain", None, call))
    >>> video.dtype.name, sorted(costs)
    ('uint8', ['row_forwards', 'seconds'])
    """
    import torch

    from vico_lens.intervention.balancing import balance, best_of, compose, reweight
    from vico_lens.intervention.balancing.session import Session
    from vico_lens.tracing.families import denoisers

    call = {"prompt": run.prompt, **run.call}
    settings = dict(run.settings or {})
    concepts, baseline = settings.pop("concepts", None), settings.pop("baseline", None)
    if baseline == "best_of":
        count = settings.pop("count", 2)
        best = best_of(pipe, concepts, [run.seed + 1_000_000 * index for index in range(count)], call=call, **settings)
        return best.video, _costs(best.cost)
    generator = torch.Generator().manual_seed(run.seed)
    if run.settings is None:
        session: Any = Session(pipe, denoisers(pipe))
    elif baseline == "compose":
        session = compose(pipe, concepts, **settings)
    elif baseline == "reweight":
        session = reweight(pipe, concepts, **settings)
    elif baseline is None:
        session = balance(pipe, concepts, **settings)
    else:
        raise InputError(
            f"expected baseline 'reweight', 'compose' or 'best_of' in the settings of {run.condition!r}, got {baseline!r}."
        )
    with session:
        pipe(**call, generator=generator)
    log = session.log
    more: dict[str, Any] = {}
    if log.sizes["update"]:
        more = {"first_loss": float(log.loss[0]), "last_loss": float(log.loss[-1]), "updates": int((log.latent_change > 0).sum())}
    return session.video, _costs(session.cost) | more


def _costs(cost: Any) -> dict[str, Any]:
    return {"row_forwards": float(cost.row_forwards), "seconds": float(cost.seconds)}


def is_loader(pipe: Any) -> bool:
    """Whether this is a function that loads a pipeline; pipelines can be called too."""
    return inspect.isroutine(pipe) or inspect.isclass(pipe) or isinstance(pipe, functools.partial)


def loaded(pipe: Any, session: str) -> Any:
    """The pipeline itself, or what its loader returns; that of an earlier sweep is let go, it may fill the device."""
    if not is_loader(pipe):
        return pipe
    if session not in _pipelines:
        _pipelines.clear()
        _pipelines[session] = pipe()
    return _pipelines[session]
