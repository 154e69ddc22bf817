"""``vico-lens methods``: the attribution methods and what each declares."""

from __future__ import annotations

from vico_lens.cli.options import AsJson
from vico_lens.cli.output import columns, emit

__all__ = ["methods"]


def methods(as_json: AsJson = False) -> None:
    """List the attribution methods and what each declares: exact, differentiable, needs the model, cost."""
    import vico_lens as vl

    declared = {
        name: {
            "exact": method.exact,
            "differentiable": method.differentiable,
            "needs_pipe": method.needs_pipe,
            "cost": method.cost,
            "reads": list(method.reads),
            "references": method.references,
        }
        for name, method in vl.methods().items()
    }
    shown = ("exact", "differentiable", "needs_pipe", "cost")
    rows = [[name, *(entry[key] for key in shown)] for name, entry in declared.items()]
    emit(declared, columns(rows, ["method", "exact", "differentiable", "needs model", "cost"]), as_json=as_json)
