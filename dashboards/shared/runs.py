"""Sweeps as pages read them: a folder of records that anybody may have written, bounded and checked."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
import xarray as xr

from shared.roots import confine, folder_inside
from vico_lens.errors import InputError, StoreError
from vico_lens.runs.sweeps import load_sweep
from vico_lens.tinyworld.demonstration import SWEEP_FOLDER as DEMO

__all__ = ["BUNDLED", "kept_video", "measures", "open_sweep", "table_of"]

BUNDLED = "demo"
"""What a link calls the bundled sweep."""

_MOST_RUNS = 20_000
_LARGEST_RECORD = 1 << 20
_LARGEST_VIDEO = 256 << 20
_HIDDEN = {"settings", "call", "model", "key"}


def open_sweep(name: str, roots: tuple[Path, ...]) -> tuple[Path, xr.Dataset]:
    """Open a sweep by the name that a link or the page gave; returns its folder and its index.

    Raises
    ------
    VicoLensError
        If the path is refused, there is no folder, no finished run, or more than a page can show.
    """
    folder = DEMO if name == BUNDLED else confine(name, roots)
    if not folder.is_dir():
        raise InputError(f"expected the folder of a sweep, got the file {folder.name}.")
    if folder != DEMO:
        folder_inside(folder, roots)
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json") and not entry.name.startswith("."):
                count += 1
                if entry.stat().st_size > _LARGEST_RECORD:
                    raise StoreError(f"{entry.name} is larger than the record of a run can be; this folder is no sweep.")
    if count > _MOST_RUNS:
        raise StoreError(
            f"{folder.name} holds {count:,} records, more than the {_MOST_RUNS:,} a page shows; read it in a notebook."
        )
    return folder, _index(str(folder), f"{count}-{folder.stat().st_mtime_ns}")


@st.cache_data(max_entries=4, show_spinner="Reading the sweep")
def _index(folder: str, version: str) -> xr.Dataset:
    return load_sweep(folder)


def measures(index: xr.Dataset) -> list[str]:
    """Name the variables that are truth values or numbers, truth values first."""
    numeric = [str(name) for name, values in index.data_vars.items() if values.dtype.kind in "biuf"]
    return sorted(numeric, key=lambda name: (index[name].dtype.kind != "b", name))


def table_of(index: xr.Dataset) -> Any:
    """Turn the index into a table with one row a run, the columns that tell runs apart first."""
    table = index.to_dataframe().reset_index(drop=True)
    first = ["condition", "seed", "prompt"]
    return table[first + [name for name in table.columns if name not in {*first, *_HIDDEN}]]


def kept_video(folder: Path, key: str) -> np.ndarray | None:
    """Return the clip of a run, uint8 ``(frame, row, column, channel)``; None where none was kept.

    Raises
    ------
    StoreError
        If the file is none that a sweep wrote, or unpacks to more than a page may hold.
    """
    place = folder / f"{key}.npz"
    if not place.is_file():
        return None
    try:
        with zipfile.ZipFile(place) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
        if size > _LARGEST_VIDEO:
            raise StoreError(f"the clip of this run unpacks to {size >> 20} MiB, more than a page shows.")
        with np.load(place, allow_pickle=False) as kept:
            rgb = kept["rgb"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StoreError(f"expected a clip that a sweep wrote in {place.name}, got {type(error).__name__}: {error}.") from None
    if rgb.dtype != np.uint8 or rgb.ndim != 4 or rgb.shape[-1] != 3:
        raise StoreError(f"expected frames of uint8 (frame, row, column, 3) in {place.name}, got {rgb.dtype} {rgb.shape}.")
    return rgb
