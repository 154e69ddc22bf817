"""``vico-lens models``: the bundled model, and the pipeline families whose attention is understood."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from vico_lens.cli.options import AsJson
from vico_lens.cli.output import columns, emit, size

__all__ = ["bundled_model", "models"]


def models(as_json: AsJson = False) -> None:
    """List the bundled model and the diffusers pipeline families that can be traced."""
    from vico_lens.families import FAMILIES

    bundled = bundled_model()
    families = {
        name: {"pipelines": sorted(FAMILIES[name].pipelines), "denoisers": list(FAMILIES[name].denoisers)} for name in FAMILIES
    }
    if bundled:
        head = f"bundled (the default): {bundled['pipeline']}, {size(bundled['bytes'])}, {bundled['path']}"
    else:
        head = "bundled: none in this installation"
    rows = [[name, ", ".join(entry["pipelines"])] for name, entry in families.items()]
    text = f"{head}\n\nAny other: --model FOLDER_OR_ID of a diffusers pipeline of one of these families.\n\n"
    emit({"bundled": bundled, "families": families}, text + columns(rows, ["family", "pipelines"]), as_json=as_json)


def bundled_model() -> dict[str, Any] | None:
    """Where the bundled model lies, its pipeline class and its bytes, or None if this installation has none."""
    folder = files("vico_lens") / "tinyworld" / "model"
    index = folder / "model_index.json"
    if not index.is_file():
        return None
    parts = [entry for part in folder.iterdir() for entry in (part.iterdir() if part.is_dir() else [part])]
    count = sum(len(entry.read_bytes()) for entry in parts if entry.is_file())
    return {"path": str(folder), "pipeline": json.loads(index.read_text())["_class_name"], "bytes": count}
