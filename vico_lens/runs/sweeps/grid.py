"""The grid: every prompt with every seed under every condition, here or on the workers of a cluster."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vico_lens.errors import InputError, VicoLensError
from vico_lens.runs.sweeps.grid_cell import Run
from vico_lens.runs.sweeps.record import Score, load_sweep, place_of, remove_drafts, run_of
from vico_lens.runs.sweeps.sampling import is_loader

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["sweep"]


def sweep(
    pipe: Any,
    prompts: Sequence[Any],
    seeds: Iterable[int],
    conditions: Mapping[str, Mapping[str, Any] | None],
    to: str | os.PathLike[str],
    *,
    call: Mapping[str, Any] | None = None,
    score: Score | None = None,
    keep_videos: bool = False,
    pairs: bool = False,
    model: str = "",
    client: Any = None,
    retries: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Run every prompt with every seed under every condition, and leave out what is there already.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline or callable
        The pipeline, or a function without arguments that loads it; with `client` a function, called once a worker process.
    prompts : sequence
        Texts, or objects whose ``str()`` is the prompt and whose ``concepts`` are balanced (tiny-world prompts).
    seeds : iterable of int
        One generator each.
    conditions : mapping of str to mapping or None
        Name to settings, see `Run`.
    to : path
        Folder of the sweep; made if it is not there.
    call : mapping, optional
        Arguments of every pipeline call.
    score : callable, optional
        Frames (uint8) and prompt to named numbers, truth values or strings. It is asked when a run is made: records that are
        there keep the scores they have, so give another score another folder.
    keep_videos : bool
        Write every video beside its record, as ``KEY.npz``.
    pairs : bool
        Take prompts and seeds in pairs, first with first, instead of all with all.
    model : str
        What identifies the pipeline in the runs' hashes; give it if one folder is to hold runs of several models.
    client : dask.distributed.Client, optional
        Runs are submitted to its workers, which see the folder under the same path.
    retries : int
        How often a run that raised an error on a worker is tried again. Runs of a worker that died go to another one, however
        often dask allows (``distributed.scheduler.allowed-failures``).
    progress : callable, optional
        Takes finished and all runs.

    Returns
    -------
    Dataset
        The index, see `load_sweep`; of the runs asked for here.

    Raises
    ------
    InputError
        If the grid is empty, `pairs` has unequal lengths, or a client is given with a pipeline in the place of its loader.
    VicoLensError
        If a run ended every worker that it was given to.

    Examples
    --------
    >>> import tempfile
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> call = {name: value for name, value in tiny.kwargs.items() if name not in ("prompt", "generator")}
    >>> folder = tempfile.mkdtemp()
    >>> table = sweep(tiny.pipe, [tiny.prompt], [0, 1], {"plain": None}, folder, call=call)
    >>> table.sizes["run"], table.seed.values.tolist()
    (2, [0, 1])
    """
    seeds = [int(seed) for seed in seeds]
    if isinstance(prompts, str):
        raise InputError(f"expected a list of prompts; got one text, {prompts!r}. Put it in brackets.")
    if not prompts or not seeds or not conditions or (pairs and len(prompts) != len(seeds)):
        raise InputError(
            f"expected prompts, seeds and conditions, as many prompts as seeds in pairs; got {len(prompts)} prompts, "
            f"{len(seeds)} seeds, {len(conditions)} conditions, pairs={pairs}."
        )
    if client is not None and not is_loader(pipe):
        raise InputError(
            f"expected a function that loads the pipeline, which every worker calls once; got {type(pipe).__name__}. With a "
            "client hand over the function: sweep(vico_lens.load_pipeline, ..., client=client)."
        )
    folder = Path(to)
    folder.mkdir(parents=True, exist_ok=True)
    cells = list(zip(prompts, seeds, strict=True)) if pairs else [(prompt, seed) for prompt in prompts for seed in seeds]
    runs = [
        Run(str(prompt), seed, name, _complete(settings, prompt), dict(call or {}), model)
        for prompt, seed in cells
        for name, settings in conditions.items()
    ]
    keys = [run.key for run in runs]
    todo = [run for key, run in dict(zip(keys, runs, strict=True)).items() if not place_of(folder, key).exists()]
    make = functools.partial(
        run_of, folder=str(folder), pipe=pipe, score=score, keep_videos=keep_videos, session=uuid.uuid4().hex
    )
    finished = _on_workers(client, make, todo, retries) if client is not None else map(make, todo)
    for done, _ in enumerate(finished, start=len(runs) - len(todo) + 1):
        if progress:
            progress(done, len(runs))
    remove_drafts(folder, set(keys))
    return load_sweep(folder, keys=keys)


def _on_workers(client: Any, make: Callable[[Run], str], todo: Sequence[Run], retries: int) -> Iterator[str]:
    """Run on the workers of a dask client; yields keys as runs finish.

    A worker that dies loses the results it held, so dask asks for those runs again; they find their record and return at once.
    """
    from distributed import KilledWorker, as_completed

    futures = client.map(make, todo, retries=retries, pure=False)
    try:
        for future in as_completed(futures):
            yield future.result()
    except KilledWorker as error:
        raise VicoLensError(
            f"expected every run to end, but one ended its worker each time it was tried: {error}. Is there memory for one "
            "pipeline a worker? What is finished is kept; start the sweep again."
        ) from error
    finally:
        client.cancel(futures)


def _complete(settings: Mapping[str, Any] | None, prompt: Any) -> dict[str, Any] | None:
    """Settings with the prompt's own concepts, where it knows them and the condition names none."""
    if settings is None:
        return None
    concepts = getattr(prompt, "concepts", None)
    known = {} if concepts is None or "concepts" in settings else {"concepts": [str(concept) for concept in concepts]}
    return known | dict(settings)
