"""``vico-lens inspect``: what a trace holds, how far its run got, and how large it is."""

from __future__ import annotations

from typing import Any

from vico_lens.cli.files import bytes_on_disk, check_input
from vico_lens.cli.options import AsJson, TracePath
from vico_lens.cli.output import columns, decoded, emit, size

__all__ = ["inspect"]


def inspect(trace: TracePath, as_json: AsJson = False) -> None:
    """Say what a trace holds: prompt and provenance, tokens, groups of attention sites, sizes, and whether the run ended."""
    import vico_lens as vl
    from vico_lens.store.layout import attention_groups
    from vico_lens.store.opening import missing_chunks

    tree = vl.open_trace(check_input(trace, "a recorded trace"))
    groups = {
        name: {
            "kind": kind,
            "grid": grid,
            "sites": node.sizes["layer"],
            "heads": node.sizes["head"],
            "variables": {
                str(key): {"dims": dict(value.sizes), "dtype": str(value.dtype)} for key, value in node.data_vars.items()
            },
            "bytes_as_weights": sum(value.nbytes for value in node.data_vars.values()),
            "modules": [str(module) for module in node.coords["module"].values],
        }
        for name, kind, grid, node in attention_groups(tree)
    }
    report: dict[str, Any] = {
        "trace": trace,
        "attributes": {str(name): decoded(value) for name, value in tree.attrs.items()},
        "steps": tree["step"].values,
        "tokens": _tokens(tree),
        "groups": groups,
        "bytes": bytes_on_disk(trace),
        "missing_chunks": missing_chunks(trace),
        "video": list(tree["video/rgb"].shape) if "video" in tree.children else None,
    }
    emit(report, _text(report), as_json=as_json)


def _tokens(tree: Any) -> list[dict[str, Any]]:
    """Text tokens of the (first) prompt with their kinds, padding left out."""
    names = ("token_text", "token_kind", "word")
    rows = [tree.coords[name].values for name in names]
    rows = [row[0] if row.ndim == 2 else row for row in rows]
    return [
        {"token": index, **dict(zip(names, map(str, values), strict=True))}
        for index, values in enumerate(zip(*rows, strict=True))
        if values[1] != "padding"
    ]


def _shape(group: dict[str, Any]) -> str:
    first = next(iter(group["variables"].values()))
    return " ".join(f"{dim}:{count}" for dim, count in first["dims"].items())


def _text(report: dict[str, Any]) -> str:
    attributes = report["attributes"]
    done, planned = attributes.get("steps_finished"), attributes.get("steps_planned")
    lost, holes = report["missing_chunks"], attributes.get("missing") or {}
    if lost:
        state = f"damaged: {len(lost)} chunks are missing, {', '.join(lost[:3])}{' and others' if len(lost) > 3 else ''}"
    elif attributes.get("complete"):
        state = "complete"
    else:
        state = f"incomplete: {done} of {planned} steps finished"
        state += f", {len(holes)} sites not in every step" if holes else ""
    lines = [f"{report['trace']}: {state}, {size(report['bytes'])} on disk"]
    shown = ("prompt", "negative_prompt", "pipeline", "model", "scheduler", "guidance_scale", "seed", "device", "dtype")
    lines += [f"{name}: {attributes[name]}" for name in shown if attributes.get(name) not in (None, "")]
    cut = attributes.get("prompt_cut") or ""
    lines += [f"no token for this part of the prompt: {text}" for text in ([cut] if isinstance(cut, str) else cut) if text]
    lines.append(f"steps: {', '.join(map(str, report['steps']))}")
    lines.append("tokens: " + " ".join(f"{token['token']}:{token['token_text']}" for token in report["tokens"]))
    if report["video"]:
        lines.append("video: {} frames of {} x {}".format(*report["video"][:3]))
    rows = [
        [name, group["sites"], group["heads"], _shape(group), size(group["bytes_as_weights"])]
        for name, group in report["groups"].items()
    ]
    return "\n".join(lines) + "\n\n" + columns(rows, ["group", "sites", "heads", "weights", "size as weights"])
