"""``vico-lens trace``: sample a video and record its attention."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vico_lens.cli.files import bytes_on_disk, check_output, entries_of_trace
from vico_lens.cli.options import AsJson, CallOptions, Device, Download, Guidance, Model, Overwrite, Prompt, Seed, Steps, call_of
from vico_lens.cli.output import columns, emit, note, size
from vico_lens.errors import InputError
from vico_lens.runs.request import Request

__all__ = ["trace"]


def trace(
    prompt: Prompt,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Trace to write: a folder, or a .zip. Needed unless --estimate.")
    ] = None,
    video: Annotated[Path | None, typer.Option("--video", help="Also write the video, as .mp4.")] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say how many bytes it would take.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="With --estimate: also the seconds, from one step that is run and timed.")
    ] = False,
    model: Model = None,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    call: CallOptions = None,
    device: Device = "cpu",
    download: Download = False,
    record: Annotated[str | None, typer.Option("--record-steps", help="Steps to record: '0,5,10' or 'start:stop:every'.")] = None,
    kinds: Annotated[str | None, typer.Option("--kinds", help="Kinds to record, as in cross,temporal. Default: all.")] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", help="Shell pattern of module paths or groups; repeatable.")
    ] = None,
    store: Annotated[str, typer.Option("--store", help="auto, weights or factors.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="model, float32 or float16.")] = "model",
    branch: Annotated[str, typer.Option("--branch", help="Guidance half: cond, uncond or both.")] = "cond",
    budget: Annotated[str | None, typer.Option("--budget", help="Refuse a trace larger than this, as in 4GB.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Sample a video for PROMPT and record the attention of every step."""
    import vico_lens as vl

    if out is None and not estimate:
        raise InputError("where should the trace go? Pass --out run.zarr, or --estimate to ask for its size.")
    for path in (out, video):
        if path is not None and not estimate:
            check_output(path, overwrite=overwrite, holds=entries_of_trace(path))
    capture = vl.Capture(
        steps=steps_of(record),
        kinds=tuple(kinds.split(",")) if kinds else None,  # type: ignore[arg-type]
        layers=layers or None,
        store=store,  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        branch=branch,  # type: ignore[arg-type]
        budget=budget,
    )
    request = Request(prompt, model, seed, call_of(steps, guidance, call), device, download)
    pipe = request.load()
    if estimate:
        _print_estimate(vl.estimate(pipe, prompt, capture=capture, measure=measure, **request.call), as_json)
        return
    start = time.perf_counter()
    try:
        with vl.trace(pipe, to=out, capture=capture, metadata={"seed": seed}, overwrite=overwrite) as run:
            frames = request.sample(pipe, "sampling")
            if video is not None:  # before anything else that may fail
                vl.plot.save_mp4(frames, video)
            run.video = frames
    except BaseException:
        if out is not None and out.exists():
            note(f"{out} holds the steps that were finished and is marked incomplete; see `vico-lens inspect {out}`.")
        raise
    report: dict[str, Any] = {
        "trace": out,
        "video": video,
        "prompt": prompt,
        "seed": seed,
        "steps": run.tree.sizes["step"],
        "coverage": run.coverage,
        "bytes": bytes_on_disk(out) if out else 0,
        "seconds": round(time.perf_counter() - start, 2),
    }
    text = f"{report['steps']} steps in {report['seconds']} s; trace of {size(report['bytes'])} in {out}"
    emit(report, text + (f"; video in {video}" if video else ""), as_json=as_json)


def _print_estimate(table: Any, as_json: bool) -> None:
    values = {str(name): table[name].values for name in table.variables}
    sites = sorted((name for name in values if table[name].dims == ("site",)), key=lambda name: name != "site")
    rows = [[values[name][index] for name in sites] for index in range(table.sizes["site"])]
    totals = {name: value.item() for name, value in values.items() if value.ndim == 0}
    lines = [f"{name}: {size(value) if 'bytes' in name else value}" for name, value in totals.items()]
    emit({**values, "attrs": dict(table.attrs)}, columns(rows, sites) + "\n\n" + "\n".join(lines), as_json=as_json)


def steps_of(text: str | None) -> slice | list[int] | None:
    """Read which steps to record.

    Raises
    ------
    InputError
        If it is neither a list of whole numbers nor a slice.

    Examples
    --------
    >>> steps_of("0,5,-1"), steps_of("::5")
    ([0, 5, -1], slice(None, None, 5))
    """
    if text is None:
        return None
    try:
        if ":" in text:
            parts = [int(part) if part.strip() else None for part in text.split(":")]
            if len(parts) > 3:
                raise ValueError
            return slice(*parts)
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"expected steps like '0,5,10' or 'start:stop:every', got {text!r}.") from None
