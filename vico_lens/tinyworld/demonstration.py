"""The bundled demonstration: one prompt, sampled plainly and balanced, traced, and attributed, small enough to ship.

The dashboards open on it without a model and without waiting. The traces keep a few steps at half precision; influence was
computed on every step of the full traces before that, and is kept beside them, and so is how faithful each method is on this
prompt. ``python -m vico_lens.tinyworld.demonstration`` makes the folder again from ``demo.json`` with the bundled model, in about
two minutes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import xarray as xr

__all__ = ["FOLDER", "METHODS", "STEPS", "Which", "demo_comparison", "demo_influence", "demo_trace", "make"]

Which = Literal["plain", "balanced"]
FOLDER = Path(__file__).parent / "demo"
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


def make(folder: Path = FOLDER) -> None:
    """Sample, trace and attribute both runs again, and replace their files in `folder`."""
    import vico_lens as vl
    from vico_lens.cli.pair import run_once
    from vico_lens.cli.sampling import Request

    told = json.loads((Path(__file__).parent / "demo.json").read_text(encoding="utf-8"))
    request = Request(told["prompt"], seed=told["seed"], call=told.get("call", {}))
    pipe = request.load()
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "demo"
        made.mkdir()
        for which, balance in (("plain", None), ("balanced", told.get("balance", {}))):
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
    from contextlib import ExitStack

    import vico_lens as vl

    with ExitStack() as stack:
        recording = stack.enter_context(vl.trace(pipe, to=path, capture=vl.Capture(steps=STEPS, dtype="float16")))
        if balance is not None:
            stack.enter_context(vl.balance(pipe, **balance))
        recording.video = request.sample(pipe, path.name)


if __name__ == "__main__":
    make()
