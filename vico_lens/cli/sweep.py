"""``vico-lens sweep``: many prompts, seeds and conditions into one folder; stopped anywhere, the same line goes on."""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr

from vico_lens.cli.files import check_input, staged
from vico_lens.cli.options import AsJson, CallOptions, Device, Download, Guidance, Model, Steps, call_of
from vico_lens.cli.output import columns, emit, note
from vico_lens.errors import InputError
from vico_lens.runs.request import check_call, check_prompt, quiet_pipeline

__all__ = ["conditions_of", "seeds_of", "sweep"]

INDEX = "index.csv"
_OURS = re.compile(rf"[0-9a-f]{{24}}\.(json|npz)|\..*\.part|{re.escape(INDEX)}")
_BASELINES = ("reweight", "compose", "best_of")


def sweep(
    prompts: Annotated[Path, typer.Argument(metavar="PROMPTS", help="Text file, a prompt a line; # starts a comment.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the sweep. One that is there goes on where it was.")],
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds of every prompt: '0:5' (without 5) or '0,3,7'.")] = "0:1",
    condition: Annotated[
        list[str] | None,
        typer.Option("--condition", metavar="NAME", help="plain, a preset or a baseline; repeatable. Default: plain, default."),
    ] = None,
    conditions: Annotated[
        Path | None, typer.Option("--conditions", help="JSON file: name to arguments of vico_lens.balance, or null for plain.")
    ] = None,
    keep_videos: Annotated[bool, typer.Option("--keep-videos", help="Write every video too, as .npz.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, each with its own pipeline.")] = 1,
    model: Model = None,
    steps: Steps = None,
    guidance: Guidance = None,
    call: CallOptions = None,
    device: Device = "cpu",
    download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Run every prompt of a file with every seed under every condition, and tell how each condition did."""
    import vico_lens as vl
    from vico_lens.tinyworld.judge import judge_clip

    asked = _prompts(check_input(prompts, "a file of prompts"), bundled=model is None)
    settings = conditions_of(condition, conditions)
    numbers, arguments = seeds_of(seeds), call_of(steps, guidance, call)
    _check_folder(out)
    try:
        with _workers(workers) as client, _bar() as progress:
            index = vl.sweep(
                functools.partial(_loaded, model, device, download=download, call=tuple(arguments)),
                asked,
                numbers,
                settings,
                out,
                call=arguments,
                score=judge_clip if model is None else None,
                keep_videos=keep_videos,
                model=model or "",
                client=client,
                progress=progress,
            )
    except BaseException:
        note(f"what is finished is kept in {out}; the same line goes on from there.")
        raise
    with staged(out / INDEX, overwrite=True) as partial:
        index.to_dataframe().to_csv(partial, index=False)
    table = {name: _summary(index.isel(run=np.flatnonzero(index.condition == name))) for name in settings}
    report = {"runs": index.sizes["run"], "conditions": table, "settings": settings, "index": out / INDEX}
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    rows = [[name, *(row.get(key) for key in names)] for name, row in table.items()]
    text = columns(rows, ["condition", *(name.replace("_", " ") for name in names)])
    emit(report, f"{text}\n\n{index.sizes['run']} runs, listed in {out / INDEX}", as_json=as_json)


def _loaded(model: str | None, device: str, *, download: bool, call: Sequence[str]) -> Any:
    """Load the pipeline, here or in a worker, and refuse arguments that its call does not have."""
    pipe = quiet_pipeline(model, device, download=download)
    check_call(pipe, call)
    return pipe


def seeds_of(text: str) -> list[int]:
    """Read which seeds to take.

    Raises
    ------
    InputError
        If it is neither a list of whole numbers nor ``first:stop``, or holds none.

    Examples
    --------
    >>> seeds_of("0:3"), seeds_of("0,3,7")
    ([0, 1, 2], [0, 3, 7])
    """
    try:
        first, colon, stop = text.partition(":")
        numbers = list(range(int(first or 0), int(stop))) if colon else [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise InputError(f"expected seeds like '0:5' (0, 1, 2, 3, 4) or '0,3,7', got {text!r}.")
    return numbers


def conditions_of(names: Sequence[str] | None, file: Path | None) -> dict[str, dict[str, Any] | None]:
    """Name to settings, of conditions by name and of those in a file.

    Raises
    ------
    InputError
        If a name is unknown or given twice, or the file is no JSON object of objects and nulls.

    Examples
    --------
    >>> conditions_of(["plain", "vico", "reweight"], None)
    {'plain': None, 'vico': {'preset': 'vico'}, 'reweight': {'baseline': 'reweight'}}
    """
    from vico_lens.intervention.balancing import presets

    found: dict[str, dict[str, Any] | None] = {}
    for name in names or (() if file else ("plain", "default")):
        if name == "plain":
            found[name] = None
        elif name in _BASELINES:
            found[name] = {"baseline": name}
        elif name in presets:
            found[name] = {"preset": name}
        else:
            known = ", ".join(("plain", *presets, *_BASELINES))
            raise InputError(f"unknown condition {name!r}; known: {known}. Others go into a file: --conditions FILE.json.")
    if file is None:
        return found
    try:
        more = json.loads(check_input(file, "a file of conditions").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"expected JSON in {str(file)!r}, got {error}.") from None
    if not isinstance(more, dict) or not all(entry is None or isinstance(entry, dict) for entry in more.values()):
        raise InputError(
            f"expected an object in {str(file)!r} that maps names to settings or null, as in "
            '{"plain": null, "strong": {"objective": "weakest"}}.'
        )
    if twice := sorted(found.keys() & more.keys()):
        raise InputError(f"condition {twice[0]!r} is given by --condition and in {str(file)!r}: give it once.")
    return found | more


def _prompts(file: Path, *, bundled: bool) -> list[Any]:
    """Prompts of a file, checked; those of the tiny world know their concepts."""
    from vico_lens.tinyworld import parse_prompt

    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"expected a text file with a prompt a line, got {str(file)!r}, which is not UTF-8 text.") from None
    asked: list[Any] = []
    for number, line in enumerate(lines, start=1):
        prompt = line.partition("#")[0].strip()
        if not prompt:
            continue
        try:
            check_prompt(prompt, bundled=bundled)
        except InputError as error:
            raise InputError(f"line {number} of {str(file)!r}: {error}") from None
        try:
            asked.append(parse_prompt(prompt) if bundled else prompt)
        except InputError:
            asked.append(prompt)
    if not asked:
        raise InputError(f"expected a prompt a line in {str(file)!r}, got none.")
    return asked


def _check_folder(out: Path) -> None:
    """Refuse a folder that holds anything else than a sweep."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file: choose a folder for the sweep.")
    foreign = sorted(entry.name for entry in out.iterdir() if not _OURS.fullmatch(entry.name)) if out.exists() else []
    if foreign:
        raise InputError(f"{str(out)!r} holds {foreign[0]!r}, which no sweep has: choose another folder.")


@contextmanager
def _workers(count: int) -> Iterator[Any]:
    """A client of `count` local worker processes; None for one, which is this process."""
    if count == 1:
        yield None
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError(f"--workers {count} needs the extra `cluster`: pip install 'vico-lens[cluster]'.") from None
    with (
        LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _bar() -> Iterator[Any]:
    """A progress bar on a terminal, as the callback of a sweep."""
    from tqdm import tqdm

    with tqdm(desc="runs", unit="run", leave=False, file=sys.stderr, disable=None) as bar:

        def progress(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield progress


def _summary(index: xr.Dataset) -> dict[str, Any]:
    """One condition: how many clips are right, with a 95 % interval, and what a run cost."""
    from vico_lens.kernels.intervals import wilson

    row: dict[str, Any] = {"runs": index.sizes["run"]}
    if "all_correct" in index:
        right = index.all_correct.values.astype(float)
        judged = right[np.isfinite(right)]
        low, high = wilson(int(judged.sum()), len(judged)) if len(judged) else (0.0, 1.0)
        row |= {"all_right": float(judged.mean()) if len(judged) else None, "low": low, "high": high}
    if "updates" in index:
        row["updates"] = float(np.nan_to_num(index.updates.values.astype(float)).mean())
    return row | {"row_forwards": float(index.row_forwards.mean()), "seconds": float(index.seconds.mean())}
