"""Checking that a tree is a trace: every name, dimension, coordinate and size of the schema, and that rows sum to 1.

Errors name the group, the dimension, what was expected and what is there, because a trace may come from a tool that is not ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from vico_lens.errors import SchemaError
from vico_lens.store.layout import TOKEN_COORDS, attention_groups
from vico_lens.vocabulary.schema import KEY_DIMS, LEADING_DIMS, SCHEMA_VERSION, TOKEN_KINDS, Kind, weights_dims

__all__ = ["REQUIRED_ATTRS", "problems", "validate_trace"]

REQUIRED_ATTRS = ("prompt", "schema_version", "complete", "steps_finished", "coverage")
"""Root attributes without which a trace does not explain itself."""


def validate_trace(tree: xr.DataTree, *, rows: int = 3, tolerance: float = 1e-3) -> None:
    """Raise if `tree` is not a trace.

    Parameters
    ----------
    tree : xarray.DataTree
        What claims to be one.
    rows : int
        Calls of each group whose rows are summed; 0 reads no weights at all. At most one frame of one head is read a call.
    tolerance : float
        How far a row sum may be from 1 (float16 rounds). A row that a mask hides entirely sums to 0.

    Raises
    ------
    SchemaError
        With every problem found, one a line.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> validate_trace(fake_trace())
    >>> tree = fake_trace()
    >>> tree["cross/4x4x4"] = tree["cross/4x4x4"].to_dataset().isel(frame=slice(0, 3))
    >>> validate_trace(tree)
    Traceback (most recent call last):
    ...
    vico_lens.errors.SchemaError: not a valid trace:
    /cross/4x4x4: weights: expected 4 along frame, as the name of the group says; got 3
    """
    found = list(problems(tree, rows=rows, tolerance=tolerance))
    if found:
        raise SchemaError("not a valid trace:\n" + "\n".join(found))


def problems(tree: Any, *, rows: int = 3, tolerance: float = 1e-3) -> Iterator[str]:
    """Yield what is wrong with `tree`, one line each; see `validate_trace`."""
    if not isinstance(tree, xr.DataTree):
        yield f"/: expected an xarray.DataTree; got {type(tree).__name__}"
        return
    yield from _root_problems(tree)
    found = 0
    for name, kind, grid, node in attention_groups(tree):
        found += 1
        broken = list(_group_problems(tree, name, kind, grid, node))
        yield from broken
        if rows and not broken:
            yield from _row_problems(name, kind, node, rows, tolerance, partial="partial_rows" in tree.attrs)
    if not found:
        held = ", ".join(node.path for node in tree.subtree)
        yield f"/: expected groups such as /cross/8x8x8 (kind, then frames x rows x columns); got {held}"


def _root_problems(tree: xr.DataTree) -> Iterator[str]:
    for name in REQUIRED_ATTRS:
        if name not in tree.attrs:
            yield f"/: expected attribute {name}; got {', '.join(map(str, tree.attrs)) or 'none'}"
    version = tree.attrs.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        yield f"/: expected schema_version {SCHEMA_VERSION}; got {version}"
    tokens = ("token",) if "prompt" not in getattr(tree.coords.get("word"), "dims", ()) else ("prompt", "token")
    wanted: dict[str, tuple[tuple[str, ...], str]] = {
        "step": (("step",), "iu"),
        "timestep": (("step",), "fiu"),
        "token": (("token",), "iu"),
        **{name: (tokens, "iu" if name in ("token_id", "token_start", "token_stop") else "OUT") for name in TOKEN_COORDS},
    }
    for name, (dims, kinds) in wanted.items():
        if name not in tree.coords:
            yield f"/: expected coordinate {name} over {', '.join(dims)}; got {', '.join(map(str, tree.coords)) or 'none'}"
        elif tree.coords[name].dims != dims:
            yield f"/: {name}: expected dimensions {dims}; got {tree.coords[name].dims}"
        elif tree.coords[name].dtype.kind not in kinds:
            yield f"/: {name}: expected {'text' if 'O' in kinds else 'numbers'}; got {tree.coords[name].dtype}"
    if "token_kind" in tree.coords:
        unknown = sorted(set(map(str, np.unique(tree.coords["token_kind"].values))) - set(TOKEN_KINDS))
        if unknown:
            yield f"/: token_kind: expected {', '.join(TOKEN_KINDS)}; got {', '.join(unknown)}"


def _group_problems(tree: xr.DataTree, name: str, kind: Kind, grid: tuple[int, int, int], node: xr.DataTree) -> Iterator[str]:
    branch = "branch" in tree.coords and tree.coords["branch"].ndim == 1
    held = {str(variable): array for variable, array in node.to_dataset().data_vars.items()}
    prompt = any("prompt" in variable.dims for variable in held.values())
    sizes = dict(zip(("frame", "y", "x"), grid, strict=True))
    sizes |= {f"key_{dim}": size for dim, size in sizes.items()}
    if "token" in tree.sizes:
        sizes |= {"token": tree.sizes["token"], "key_token": tree.sizes["token"]}
    for variable, dims in weights_dims(kind, branch=branch, prompt=prompt).items():
        if variable not in held:
            yield f"/{name}: expected variable {variable}; got {', '.join(held) or 'none'}"
            continue
        array = held[variable]
        if array.dims != dims:
            yield f"/{name}: {variable}: expected dimensions {dims}; got {array.dims}"
            continue
        if array.dtype.kind != "f":
            yield f"/{name}: {variable}: expected floating point weights; got {array.dtype}"
        for dim, size in sizes.items():
            if dim in dims and array.sizes[dim] != size:
                why = "as the root's coordinate says" if "token" in dim else "as the name of the group says"
                yield f"/{name}: {variable}: expected {size} along {dim}, {why}; got {array.sizes[dim]}"
    for coordinate in ("module", "order"):
        if coordinate not in node.coords:
            yield f"/{name}: expected coordinate {coordinate} over layer; got {', '.join(map(str, node.coords)) or 'none'}"
        elif node.coords[coordinate].dims != ("layer",):
            yield f"/{name}: {coordinate}: expected dimensions ('layer',); got {node.coords[coordinate].dims}"


def _row_problems(name: str, kind: Kind, node: xr.DataTree, calls: int, tolerance: float, *, partial: bool) -> Iterator[str]:
    """Sum a few rows: those of one head and one frame (or of the first text token) of calls spread over the group."""
    blocks = (("video_text", "video_video"), ("text_text", "text_video")) if kind == "joint" else (("weights",),)
    dataset = node.to_dataset()
    for members in blocks:
        sums: Any = 0.0
        for variable in members:
            array = dataset[variable]
            queries = [str(dim) for dim in array.dims[array.dims.index("head") + 1 :]]
            count = len(queries) - len(KEY_DIMS[kind]) if kind != "joint" else (3 if variable.startswith("video") else 1)
            pick: dict[str, Any] = {dim: 0 for dim in array.dims if dim in LEADING_DIMS}
            pick["step"] = np.unique(np.linspace(0, array.sizes["step"] - 1, calls).astype(int)) if array.sizes["step"] else []
            pick |= {dim: array.sizes[dim] // 2 for dim in queries[:count] if dim in ("frame", "token") and kind != "temporal"}
            part = array.isel(pick)
            sums = sums + part.sum([dim for dim in queries[count:] if dim in part.dims], skipna=False)
        wrong = (abs(sums - 1) > tolerance) & (abs(sums) > tolerance)
        if partial:  # columns of chosen words only
            wrong = sums > 1 + tolerance
        if bool(wrong.any()):
            yield f"/{name}: {' and '.join(members)}: expected rows that sum to 1; got {float(sums.where(wrong).max()):.4g}"
