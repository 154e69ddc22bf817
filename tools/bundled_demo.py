"""Make the files of the bundled demonstration again: ``python -m tools.bundled_demo``, about two minutes."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import xarray as xr

import vico_lens as vl
from vico_lens.runs.request import Request
from vico_lens.runs.single_run import run_once
from vico_lens.tinyworld.demonstration import FOLDER, METHODS, SETTINGS, STEPS

__all__ = ["make"]


def make(folder: Path = FOLDER) -> None:
    """Sample, trace and attribute both runs again, and replace their files in `folder`."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    request = Request(settings["prompt"], seed=settings["seed"], call=settings.get("call", {}), threads=settings["threads"])
    pipe = request.load()
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "demo"
        made.mkdir()
        for which, balance in (("plain", None), ("balanced", settings.get("balance", {}))):
            run = run_once(request, pipe, label=which, method=METHODS[0], balance=balance)
            kept = {name: vl.attribute(run.tree, name, run.concepts) for name in METHODS}
            dataset = xr.Dataset({name: values.reset_coords(drop=True) for name, values in kept.items()})
            dataset.to_netcdf(made / f"{which}.nc", engine="scipy")
            if which == "plain":
                scores = vl.compare(run.tree, METHODS, concepts=run.concepts, pipe=pipe)
                scores.assign_attrs(settings="").to_netcdf(made / "comparison.nc", engine="scipy")
            _record(request, pipe, made / f"{which}.zarr.zip", balance)
        folder.mkdir(exist_ok=True)
        for file in made.iterdir():
            shutil.copyfile(file, folder / file.name)


def _record(request: Any, pipe: Any, path: Path, balance: dict[str, Any] | None) -> None:
    """Sample once more and keep a small trace: few steps, half precision."""
    with ExitStack() as stack:
        recording = stack.enter_context(vl.trace(pipe, to=path, capture=vl.Capture(steps=STEPS, dtype="float16")))
        if balance is not None:
            stack.enter_context(vl.balance(pipe, **balance))
        recording.video = request.sample(pipe, path.name)


if __name__ == "__main__":
    make()
