"""``vico-lens compare``: several attribution methods on one trace, and how far they agree."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vico_lens.cli.files import check_input
from vico_lens.cli.options import AsJson, Concepts, TracePath
from vico_lens.cli.output import columns, emit
from vico_lens.cli.sampling import quiet_pipeline

__all__ = ["compare"]

DEFAULT = "cross_attention,rollout,subgraph_flow"


def compare(
    trace: TracePath,
    concepts: Concepts = None,
    methods: Annotated[str, typer.Option("--methods", help="Names with commas between them.")] = DEFAULT,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Pipeline, for faithfulness tests; 'bundled' for ours.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare attribution methods on one trace: agreement, and with a model how faithful each is."""
    import vico_lens as vl

    tree = vl.open_trace(check_input(trace, "a recorded trace"))
    found = vl.find_concepts(tree, concepts)
    pipe = quiet_pipeline(None if model == "bundled" else model) if model else None
    table = vl.compare(tree, [name.strip() for name in methods.split(",")], concepts=found, pipe=pipe)
    emit(table.to_dict(), _text(table), as_json=as_json)


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
