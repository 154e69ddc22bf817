"""``vico-lens balance``: the same prompt and seed, plain and balanced."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vico_lens.cli.files import check_output, staged
from vico_lens.cli.options import (
    AsJson,
    CallOptions,
    Concepts,
    Device,
    Download,
    Guidance,
    MethodOptions,
    Model,
    Overwrite,
    Prompt,
    Seed,
    Steps,
    assignments,
    call_of,
)
from vico_lens.cli.output import emit, to_json
from vico_lens.runs.request import Request
from vico_lens.runs.single_run import Run, run_once, shares_text, verdict_text

__all__ = ["balance"]

OUTPUTS = ("before.mp4", "after.mp4", "balance.csv", "summary.json")


def balance(
    prompt: Prompt,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    concepts: Concepts = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="weakest, variance, equal, ... Default: the preset's.")
    ] = None,
    flow: Annotated[
        str | None, typer.Option("--flow", help="Differentiable attribution method to balance. Default: the preset's.")
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", help="default, objects, vico (as published), random or observe.")
    ] = "default",
    option: MethodOptions = None,
    model: Model = None,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    call: CallOptions = None,
    device: Device = "cpu",
    download: Download = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Sample PROMPT twice from one seed, plain and balanced: before.mp4, after.mp4, balance.csv (every update) and
    summary.json.
    """
    import vico_lens as vl
    from vico_lens.attribution import DEFAULT_METHOD

    check_output(out, overwrite=overwrite, holds=OUTPUTS)
    request = Request(prompt, model, seed, call_of(steps, guidance, call), device, download)
    pipe = request.load()
    method = flow or DEFAULT_METHOD
    settings: dict[str, Any] = {"objective": objective, "flow": flow, "preset": preset, **assignments(option)}
    start = time.perf_counter()
    with staged(out, overwrite=overwrite, holds=OUTPUTS, rescue=("before.mp4", "after.mp4")) as partial:
        partial.mkdir()

        def sampled(label: str, balanced: dict[str, Any] | None) -> Run:
            def keep(video: Any) -> None:
                vl.plot.save_mp4(video, partial / f"{label}.mp4")

            return run_once(request, pipe, label=label, concepts=concepts, method=method, balance=balanced, keep=keep)

        before, after = sampled("before", None), sampled("after", settings)
        report = {
            "prompt": prompt,
            "seed": seed,
            "method": method,
            "settings": settings,
            "before": before.summary(),
            "after": after.summary(),
            "balancing": after.log.attrs if after.log is not None else {},
            "seconds": round(time.perf_counter() - start, 2),
            "files": [str(out / name) for name in OUTPUTS],
        }
        if after.log is not None:
            after.log.to_dataframe().to_csv(partial / "balance.csv")
        (partial / "summary.json").write_text(to_json(report) + "\n", encoding="utf-8")
    lines = [
        f"before: {shares_text(before.dominance)}; {verdict_text(before.verdict)}",
        f"after:  {shares_text(after.dominance)}; {verdict_text(after.verdict)}",
        f"written to {out}",
    ]
    emit(report, "\n".join(lines), as_json=as_json)
