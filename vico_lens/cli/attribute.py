"""``vico-lens attribute``: how much each concept influences the video of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_lens.cli.files import check_input, check_output, entries_of_trace, staged
from vico_lens.cli.options import AsJson, Concepts, MethodOptions, Overwrite, TracePath, assignments
from vico_lens.cli.output import columns, emit
from vico_lens.errors import InputError
from vico_lens.runs.request import quiet_pipeline
from vico_lens.runs.single_run import by_frame, shares

__all__ = ["attribute"]

FORMS = (".zarr", ".csv", ".html")


def attribute(
    trace: TracePath,
    concepts: Concepts = None,
    method: Annotated[str | None, typer.Option("--method", help="One of `vico-lens methods`. Default: the library's.")] = None,
    option: MethodOptions = None,
    step: Annotated[int | None, typer.Option("--step", help="One denoising step. Default: all.")] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", help="Shell pattern of module paths or groups; repeatable.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Pipeline, for methods that run it again; 'bundled' for ours.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep the influence as .zarr or .csv, or a figure of it as .html.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Say how much each concept influences the video: its share, by frame, who dominates and who is weakest."""
    import vico_lens as vl
    from vico_lens.attribution import DEFAULT_METHOD

    method = method or DEFAULT_METHOD
    check_input(trace, "a recorded trace")
    if out is not None:
        if out.suffix not in FORMS:
            raise InputError(f"expected --out to end in one of {', '.join(FORMS)}, got {str(out)!r}.")
        check_output(out, overwrite=overwrite, holds=entries_of_trace(out))
    known = vl.methods()
    if method in known and known[method].needs_pipe and model is None:
        raise InputError(f"{method} runs the model again: say which by --model FOLDER_OR_ID, or --model bundled for ours.")
    tree = vl.open_trace(trace)
    found = vl.find_concepts(tree, concepts)
    pipe = quiet_pipeline(None if model == "bundled" else model) if model else None
    influence = vl.attribute(tree, method, found, steps=step, layers=layers or None, pipe=pipe, **assignments(option))
    result = vl.dominance(influence)
    if out is not None:
        with staged(out, overwrite=overwrite, holds=entries_of_trace(out)) as partial:
            if out.suffix == ".zarr":
                # Zarr v3 has variable-length strings only; numpy's fixed-length ones would be written in an unstable form.
                names = {key: value.astype(object) for key, value in influence.coords.items() if value.dtype.kind == "U"}
                influence.assign_coords(names).to_dataset(name="influence").to_zarr(partial, zarr_format=3, consolidated=False)
            elif out.suffix == ".csv":
                influence.to_dataframe(name="influence").to_csv(partial)
            else:
                video = tree["video/rgb"].values if "video" in tree.children else None
                partial.write_text(vl.plot.influence(influence, video=video).to_html(include_plotlyjs=True), encoding="utf-8")
    report = {
        "trace": trace,
        "method": method,
        **shares(result),
        "share_by_frame": by_frame(result),
        "settings": influence.attrs,
        "out": out,
    }
    marks = {report["weakest"]: "weakest", report["dominant"]: "dominant"}
    rows = [[name, value, marks.get(name, "")] for name, value in report["share"].items()]
    text = columns(rows, ["concept", "share", ""]) + f"\nevenness {report['evenness']:.2f} (1 is even), by {method}"
    emit(report, text + (f"\nwritten to {out}" if out else ""), as_json=as_json)
