"""``vico-lens compare``: several attribution methods on one trace, and how far they agree."""

from __future__ import annotations

from typing import Annotated

import typer

from vico_lens.cli.files import check_input
from vico_lens.cli.options import AsJson, Concepts, TracePath
from vico_lens.cli.output import emit
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
    emit(table.to_dict(), str(table), as_json=as_json)
