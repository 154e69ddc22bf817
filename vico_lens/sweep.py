"""A grid of runs, prompts x seeds x conditions, that can be stopped anywhere and goes on where it was.

Every run is a file of its own, named by a hash of all that determines it, written beside its place and then moved into it. So a
file that exists is a run that is finished, whatever killed the process; and a grid that grew, or was cut into pieces for several
machines, repeats nothing. Serial by default; with a `dask.distributed` client the same function runs on its workers, one pipeline
a worker.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from vico_lens.errors import InputError, StoreError, VicoLensError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Run", "load_sweep", "run_of", "sample_run", "sweep"]

Score = Callable[[np.ndarray, str], Mapping[str, Any]]
Sample = Callable[[Any, "Run"], tuple[np.ndarray, dict[str, Any]]]

# A pipeline is loaded once a process and sweep, and called by one thread at a time: its scheduler has a state.
_pipelines: dict[str, Any] = {}
_turn = threading.RLock()


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the grid: all that determines a video.

    Attributes
    ----------
    prompt : str
        Of the pipeline's call.
    seed : int
        Of its generator, drawn on the CPU.
    condition : str
        Name of the condition.
    settings : mapping or None
        Arguments of `vico_lens.balance`; or of a baseline, named by ``baseline`` ("reweight", "compose", "best_of"); None is the
        plain call.
    call : mapping
        Further arguments of the pipeline's call.
    model : str
        What identifies the pipeline.
    """

    prompt: str
    seed: int
    condition: str
    settings: Mapping[str, Any] | None
    call: Mapping[str, Any]
    model: str = ""

    @property
    def key(self) -> str:
        """Hash of the run: equal for equal runs, in any process. It holds what a preset stands for, not its name alone.

        Examples
        --------
        >>> Run("a red circle", 0, "plain", None, {}).key == Run("a red circle", 0, "plain", None, {}).key
        True
        """
        from vico_lens.provenance import lasting_text

        told = _fields(self) | {"preset": _preset_of(self.settings)}
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=lasting_text).encode()).hexdigest()[:24]


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
    if client is not None and not _is_loader(pipe):
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
    todo = [run for key, run in dict(zip(keys, runs, strict=True)).items() if not _place(folder, key).exists()]
    make = functools.partial(
        run_of, folder=str(folder), pipe=pipe, score=score, keep_videos=keep_videos, session=uuid.uuid4().hex
    )
    finished = _on_workers(client, make, todo, retries) if client is not None else map(make, todo)
    for done, _ in enumerate(finished, start=len(runs) - len(todo) + 1):
        if progress:
            progress(done, len(runs))
    _remove_drafts(folder, set(keys))
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


def run_of(
    run: Run,
    *,
    folder: str,
    pipe: Any,
    score: Score | None = None,
    keep_videos: bool = False,
    sample: Sample | None = None,
    session: str = "",
) -> str:
    """Make one run unless its record is there, and write that; returns its key.

    `sample` takes the place of `sample_run`; a loader `pipe` is called once a process and `session`.

    Examples
    --------
    >>> import tempfile
    >>> frames = np.zeros((2, 8, 8, 3), np.uint8)
    >>> run = Run("a cat", 0, "plain", None, {})
    >>> key = run_of(run, folder=tempfile.mkdtemp(), pipe=None, sample=lambda pipe, run: (frames, {"seconds": 0.0}))
    >>> key == run.key
    True
    """
    key = run.key
    place = _place(Path(folder), key)
    with _turn:
        if place.exists():
            return key
        video, told = (sample or sample_run)(_loaded(pipe, session), run)
        record = _fields(run) | {"settings": repr(run.settings), "call": repr(run.call)} | told
        if score is not None:
            scores = {name: _plain(value) for name, value in score(video, run.prompt).items()}
            taken = sorted(set(scores) & set(record))
            if taken:
                raise InputError(
                    f"expected scores under names of their own; got {', '.join(taken)}, which a record holds already."
                )
            record |= scores
        if keep_videos:
            _write(place.with_suffix(".npz"), lambda file: np.savez_compressed(file, rgb=video))
        _write(place, lambda file: file.write(json.dumps(record, allow_nan=True).encode()))
    return key


def load_sweep(folder: str | os.PathLike[str], keys: Sequence[str] | None = None) -> xr.Dataset:
    """Read the index of a sweep: one entry a finished run.

    Parameters
    ----------
    folder : path
        Of the sweep.
    keys : sequence of str, optional
        Runs to read, in this order; all by default.

    Returns
    -------
    Dataset
        Over ``run``: ``prompt, seed, condition, key`` as coordinates; scores, cost and evenness as variables, NaN (or an empty
        string) where a run has none.

    Raises
    ------
    StoreError
        If there is no run, or a record cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "0f.json").write_text('{"prompt": "a cat", "seed": 0, "condition": "plain", "score": 1.0}')
    >>> load_sweep(folder).score.item()
    1.0
    """
    import pandas as pd
    import xarray as xr

    places = [_place(Path(folder), key) for key in keys] if keys is not None else sorted(Path(folder).glob("[!.]*.json"))
    if not places:
        raise StoreError(f"expected finished runs in {folder}, got none; has the sweep started?")
    rows = []
    for place in places:
        try:
            record = json.loads(place.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(
                f"expected the record of a finished run, got {error} at {place}; delete it and run the sweep again."
            ) from None
        lost = {"prompt", "seed", "condition"} - set(record) if isinstance(record, dict) else {"everything"}
        if lost:
            raise StoreError(
                f"expected the record of a run in {place}, got JSON without {', '.join(sorted(lost))}; name a sweep's folder."
            )
        rows.append({name: value for name, value in record.items() if _single(value)} | {"key": place.stem})
    table = pd.DataFrame(rows)
    text = table.columns[[values.map(lambda value: isinstance(value, str)).any() for _, values in table.items()]]
    table[text] = table[text].fillna("").astype(str)
    index = xr.Dataset({str(name): ("run", np.asarray(values.tolist())) for name, values in table.items()})
    return index.set_coords(["prompt", "seed", "condition", "key"])


def _single(value: Any) -> bool:
    """Whether an entry of a record is one value, as the columns of an index are."""
    return value is None or isinstance(value, (str, int, float))


def _complete(settings: Mapping[str, Any] | None, prompt: Any) -> dict[str, Any] | None:
    """Settings with the prompt's own concepts, where it knows them and the condition names none."""
    if settings is None:
        return None
    concepts = getattr(prompt, "concepts", None)
    known = {} if concepts is None or "concepts" in settings else {"concepts": [str(concept) for concept in concepts]}
    return known | dict(settings)


def sample_run(pipe: Any, run: Run) -> tuple[np.ndarray, dict[str, Any]]:
    """The video of a run, and what its session tells.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> call = {name: value for name, value in tiny.kwargs.items() if name not in ("prompt", "generator")}
    >>> video, told = sample_run(tiny.pipe, Run(tiny.prompt, 0, "plain", None, call))
    >>> video.dtype.name, sorted(told)
    ('uint8', ['row_forwards', 'seconds'])
    """
    import torch

    from vico_lens.balancing import balance, best_of, compose, reweight
    from vico_lens.balancing.session import Session
    from vico_lens.families import denoisers

    call = {"prompt": run.prompt, **run.call}
    settings = dict(run.settings or {})
    concepts, baseline = settings.pop("concepts", None), settings.pop("baseline", None)
    if baseline == "best_of":
        count = settings.pop("count", 2)
        best = best_of(pipe, concepts, [run.seed + 1_000_000 * index for index in range(count)], call=call, **settings)
        return best.video, _told(best.cost)
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
    return session.video, _told(session.cost) | more


def _told(cost: Any) -> dict[str, Any]:
    return {"row_forwards": float(cost.row_forwards), "seconds": float(cost.seconds)}


def _fields(run: Run) -> dict[str, Any]:
    """Fields by name; not by `asdict`, which would turn step rules and schedules into mappings without a class."""
    return {field.name: getattr(run, field.name) for field in fields(run)}


def _preset_of(settings: Mapping[str, Any] | None) -> str:
    """What the preset named in a run's settings stands for, so that a record is not taken for a run under another one."""
    if settings is None or settings.get("baseline") in ("compose", "reweight"):
        return ""
    from vico_lens.balancing import presets

    preset = settings.get("preset", "observe" if "baseline" in settings else "default")
    return repr(presets[preset] if isinstance(preset, str) else preset)


def _is_loader(pipe: Any) -> bool:
    """Whether this is a function that loads a pipeline; pipelines can be called too."""
    return inspect.isroutine(pipe) or inspect.isclass(pipe) or isinstance(pipe, functools.partial)


def _loaded(pipe: Any, session: str) -> Any:
    """The pipeline itself, or what its loader returns; that of an earlier sweep is let go, it may fill the device."""
    if not _is_loader(pipe):
        return pipe
    if session not in _pipelines:
        _pipelines.clear()
        _pipelines[session] = pipe()
    return _pipelines[session]


def _place(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"


def _write(place: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write beside the place and move into it: a file at its place is whole."""
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex}.part")
    try:
        with draft.open("wb") as file:
            write(file)
        os.replace(draft, place)
    except FileNotFoundError:
        if not place.exists():  # else another process made the same run, and removed our draft with its own
            raise
    finally:
        draft.unlink(missing_ok=True)


def _remove_drafts(folder: Path, keys: Collection[str]) -> None:
    """Remove what killed processes left of runs that are finished now."""
    for draft in folder.glob(".*.part"):
        if draft.name.split(".")[1] in keys:
            draft.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
