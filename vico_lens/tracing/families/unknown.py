"""Pipelines without a row: classify their attention by what is seen, or say what has to be registered.

Sizes decide. A kernel call whose keys are as many as the text tokens, in a module that was given encoder states, is
cross-attention; one whose queries are a frame's cells, with the frames in its batch, is spatial; and so on. Where two readings
fit the same sizes nothing is guessed.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from os import PathLike

from torch import nn

from vico_lens.errors import InputError, TracingError
from vico_lens.tracing.families.base import Axis, Family, Forward, Rule
from vico_lens.tracing.families.reader import sizes
from vico_lens.tracing.raw_calls import Attended

__all__ = ["inferred_rule", "made_up"]

_DENOISERS = ("unet", "transformer", "transformer_2", "dit", "denoiser")


def made_up(pipe: object) -> Family:
    """Return a row made from the components of a pipeline that no row is for; it has no rules, so every site is classified by
    sizes.

    Raises
    ------
    InputError
        If it is no pipeline at all, but its name or its class.
    TracingError
        If no component can be a video denoiser.
    """
    found = [name for name in _DENOISERS if isinstance(getattr(pipe, name, None), nn.Module)]
    if pipe is None or isinstance(pipe, (str, PathLike, type)):
        raise InputError(
            f"expected a loaded pipeline, got {pipe!r}: load it first, with pipe = vl.load_pipeline(folder or hub name), and "
            "hand over pipe. vl.load_pipeline() loads the bundled model."
        )
    if not found:
        raise TracingError(
            f"expected {type(pipe).__name__} to be a video pipeline with a denoiser called {', '.join(_DENOISERS)}, got none "
            "of them. Register a vico_lens.tracing.families.Family in the entry-point group 'vico_lens.families', whose "
            "`denoisers` names the component."
        )
    root = getattr(pipe, found[0])
    warnings.warn(
        f"{type(pipe).__name__} is not in the table of families: its attention is classified by what is seen. Check the kinds in "
        "the trace's groups, and register a Family to be sure.",
        UserWarning,
        stacklevel=4,
    )
    flat = found[0] == "unet"
    return Family(
        name="unknown",
        title=type(pipe).__name__,
        pipelines=(type(pipe).__name__,),
        models=(type(root).__name__,),
        rules=(),
        denoisers=tuple(found),
        sample="sample" if flat else "hidden_states",
        patch=(1, 1, 1) if flat else ("patch_size_t", "patch_size", "patch_size"),
        levels=-1 if flat else 0,
        notes="classified by what is seen",
    )


def inferred_rule(run: Attended, forward: Forward) -> Rule:
    """Classify one attention module by the sizes of its call.

    Parameters
    ----------
    run : Attended
        What was seen of it.
    forward : Forward
        Inputs of the denoiser's forward.

    Returns
    -------
    Rule
        For this module path only.

    Raises
    ------
    TracingError
        If no reading fits, or more than one.
    """
    batch, _, queries, keys, _ = sizes(run.calls[0])
    cross = bool(getattr(run.owner, "is_cross_attention", run.conditioned)) and keys == forward.text
    readings: list[Rule] = []
    folds: tuple[tuple[Axis, ...], ...] = ((), ("frame",), ("y", "x"))
    for frames, rows, columns in forward.grids:
        for fold in folds:
            folded = math.prod({"frame": frames, "y": rows, "x": columns}[axis] for axis in fold)
            attending = frames * rows * columns // folded
            if batch != forward.batch * folded or queries != attending or not (cross or keys == attending):
                continue
            kind = {(): "spacetime", ("frame",): "spatial", ("y", "x"): "temporal"}[fold]
            if cross and fold != ("y", "x"):
                kind = "cross"
            elif cross:
                continue
            readings.append(replace(_EXACT, path=run.module, kind=kind, fold=fold))  # type: ignore[arg-type]
    if len({(rule.kind, rule.fold) for rule in readings}) != 1:
        fits = " and ".join(f"{rule.kind} with {rule.fold or 'nothing'} in the batch" for rule in readings) or "nothing known"
        raise TracingError(
            f"{run.denoiser}.{run.module}: expected a layout that its sizes give away, but batch {batch}, {queries} queries "
            f"and {keys} keys "
            f"fit {fits} (grids {forward.grids}, {forward.text} text tokens). Register a Family in the entry-point group "
            f'"vico_lens.families" with a Rule for {run.module!r} that says its kind and folded axes, or kind=None to leave it '
            "out."
        )
    return readings[0]


_EXACT = Rule("", None)
