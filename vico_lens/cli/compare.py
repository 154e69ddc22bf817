"""``vico-lens compare``: several attribution methods on one trace, and how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vico_lens.cli.files import check_input, check_output, staged
from vico_lens.cli.options import AsJson, Concepts, Overwrite, TracePath
from vico_lens.cli.output import columns, emit
from vico_lens.errors import InputError
from vico_lens.runs.request import quiet_pipeline

__all__ = ["compare"]

DEFAULT = "cross_attention,rollout,subgraph_flow"


def compare(
    trace: TracePath,
    concepts: Concepts = None,
    methods: Annotated[str, typer.Option("--methods", help="Names with commas between them.")] = DEFAULT,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Pipeline, for faithfulness tests; 'bundled' for ours.")
    ] = None,
    checks: Annotated[
        bool, typer.Option("--checks", help="With a model: also whether methods depend on its weights, and how far they jump.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also draw the tables on one page, as .html.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare attribution methods on one trace: agreement, and with a model how faithful each is."""
    import vico_lens as vl

    if checks and not model:
        raise InputError("--checks runs the model again: say which by --model FOLDER_OR_ID, or --model bundled for ours.")
    if out is not None:
        if out.suffix != ".html":
            raise InputError(f"expected --out to end in .html, got {str(out)!r}.")
        check_output(out, overwrite=overwrite)
    tree = vl.open_trace(check_input(trace, "a recorded trace"))
    found = vl.find_concepts(tree, concepts)
    pipe = quiet_pipeline(None if model == "bundled" else model) if model else None
    table = vl.compare(tree, [name.strip() for name in methods.split(",")], concepts=found, pipe=pipe, checks=checks)
    if out is not None:
        with staged(out, overwrite=overwrite) as partial:
            partial.write_text(_page(table), encoding="utf-8")
    emit(table.to_dict(), _text(table) + (f"\n\nwritten to {out}" if out else ""), as_json=as_json)


def _page(table: Any) -> str:
    """The figures of a comparison, one under the other, on a page that works without a network."""
    import vico_lens as vl

    figures = [vl.plot.agreement(table)]
    if any(values.dims == ("method",) for values in table.data_vars.values()):
        figures.append(vl.plot.faithfulness(table))
    parts = [figure.to_html(full_html=False, include_plotlyjs=place == 0) for place, figure in enumerate(figures)]
    head = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Attribution methods compared</title></head>'
    return f"{head}<body>{''.join(parts)}</body></html>"


def _text(table: Any) -> str:
    """Agreement of the methods, the share that each gives each concept, and every score that was computed."""
    names = [str(name) for name in table["method"].values]
    parts = []
    if "agreement" in table:
        others = [str(name) for name in table["other_method"].values]
        rows = [[name, *table["agreement"].sel({"method": name}).values.tolist()] for name in others]
        parts.append("agreement (rank correlation of maps)\n" + columns(rows, ["method", *others]))
    if "share" in table:
        concepts = [str(name) for name in table["concept"].values]
        shares = [[name, *table["share"].sel({"method": name, "concept": concepts}).values.tolist()] for name in names]
        parts.append("share of influence\n" + columns(shares, ["method", *concepts]))
    scores = [str(name) for name, values in table.data_vars.items() if values.dims == ("method",)]
    if scores:
        rows = [[name, *(table[score].sel({"method": name}).item() for score in scores)] for name in names]
        parts.append("scores\n" + columns(rows, ["method", *scores]))
    return "\n\n".join(parts)
