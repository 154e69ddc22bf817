"""``vico-lens report``: one HTML page on a recorded trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_lens.cli.files import bytes_on_disk, check_input, check_output
from vico_lens.cli.options import AsJson, Concepts, Overwrite, TracePath
from vico_lens.cli.output import emit, plain, size
from vico_lens.errors import InputError
from vico_lens.runs.single_run import shares, shares_text

__all__ = ["report"]


def report(
    trace: TracePath,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write, as .html.")],
    concepts: Concepts = None,
    method: Annotated[str | None, typer.Option("--method", help="One of `vico-lens methods`. Default: the library's.")] = None,
    others: Annotated[str, typer.Option("--others", help="Further methods to show, with commas.")] = "cross_attention,rollout",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page on a trace: video, influence maps, shares, other methods. It opens offline."""
    import vico_lens as vl
    from vico_lens.attribution import DEFAULT_METHOD
    from vico_lens.report import Outcome, build_report

    method = method or DEFAULT_METHOD
    check_input(trace, "a recorded trace")
    check_output(out, overwrite=overwrite)
    tree = vl.open_trace(trace)
    if "video" not in tree.children:
        raise InputError(
            f"{str(trace)!r} holds no video to show: record it with `vico-lens trace`, or set run.video before the trace ends."
        )
    found = vl.find_concepts(tree, concepts)
    influence = vl.attribute(tree, method, found)
    result = vl.dominance(influence)
    names = [name.strip() for name in others.split(",") if name.strip()]
    page = build_report(
        out,
        prompt=str(tree.attrs["prompt"]),
        before=Outcome(tree["video/rgb"].values, influence, result),
        methods={name: vl.attribute(tree, name, found) for name in names},
        provenance=plain(tree.attrs),
        command=f"vico-lens report {trace} --out {out}",
        method=method,
    )
    emit(
        {"report": page, "bytes": bytes_on_disk(page), **shares(result)},
        f"{shares_text(result)}; {page} ({size(bytes_on_disk(page))})",
        as_json=as_json,
    )
