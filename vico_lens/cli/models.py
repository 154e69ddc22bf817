"""``vico-lens models``: the bundled model, and the pipeline families whose attention is understood."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from vico_lens.cli.options import AsJson
from vico_lens.cli.output import columns, emit, size

__all__ = ["bundled_model", "models"]


def models(as_json: AsJson = False) -> None:
    """List the bundled model and the diffusers pipeline families that can be traced, and what the tests prove of each."""
    from vico_lens.tracing.families.listing import listed_families

    bundled = bundled_model()
    families = {line.name: line.to_dict() for line in listed_families()}
    if bundled:
        head = f"bundled (the default): {bundled['pipeline']}, {size(bundled['bytes'])}, {bundled['path']}"
    else:
        head = "bundled: none in this installation"
    rows = [[line.title, ", ".join(line.kinds), ", ".join(line.proven) or "no test", line.notes] for line in listed_families()]
    table = columns(rows, ["family", "kinds of attention", "proven on tiny", "notes"])
    emit(
        {"bundled": bundled, "families": families},
        f"{head}\n\nAny other: --model FOLDER_OR_ID of a pipeline of one of these families; --json lists the classes.\n\n{table}",
        as_json=as_json,
    )


def bundled_model() -> dict[str, Any] | None:
    """Where the bundled model lies, its pipeline class and its bytes, or None if this installation has none."""
    folder = files("vico_lens") / "tinyworld" / "model"
    index = folder / "model_index.json"
    if not index.is_file():
        return None
    parts = [entry for part in folder.iterdir() for entry in (part.iterdir() if part.is_dir() else [part])]
    count = sum(len(entry.read_bytes()) for entry in parts if entry.is_file())
    return {"path": str(folder), "pipeline": json.loads(index.read_text())["_class_name"], "bytes": count}
