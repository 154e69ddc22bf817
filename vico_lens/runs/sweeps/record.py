"""The record of a run: written once, whole or not at all, and read back as one line of the sweep's index."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from vico_lens.errors import InputError, StoreError
from vico_lens.runs.sweeps.grid_cell import Run
from vico_lens.runs.sweeps.sampling import loaded, sample_run

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Sample", "Score", "load_sweep", "place_of", "remove_drafts", "run_of"]

Score = Callable[[np.ndarray, str], Mapping[str, Any]]
Sample = Callable[[Any, Run], tuple[np.ndarray, dict[str, Any]]]

# A pipeline is called by one thread at a time: its scheduler has a state.
_turn = threading.RLock()


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
    place = place_of(Path(folder), key)
    with _turn:
        if place.exists():
            return key
        video, costs = (sample or sample_run)(loaded(pipe, session), run)
        if keep_videos:  # before a score that may fail
            _write(place.with_suffix(".npz"), lambda file: np.savez_compressed(file, rgb=video))
        record = run.fields() | {"settings": repr(run.settings), "call": repr(run.call)} | costs
        if score is not None:
            scores = {name: _plain(value) for name, value in score(video, run.prompt).items()}
            taken = sorted(set(scores) & set(record))
            if taken:
                raise InputError(
                    f"expected scores under names of their own; got {', '.join(taken)}, which a record holds already."
                )
            record |= scores
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

    places = [place_of(Path(folder), key) for key in keys] if keys is not None else sorted(Path(folder).glob("[!.]*.json"))
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


def place_of(folder: Path, key: str) -> Path:
    """Where the record of a run lies.

    Examples
    --------
    >>> place_of(Path("sweep"), "0f").name
    '0f.json'
    """
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


def remove_drafts(folder: Path, keys: Collection[str]) -> None:
    """Remove what killed processes left of runs that are finished now."""
    for draft in folder.glob(".*.part"):
        if draft.name.split(".")[1] in keys:
            draft.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
