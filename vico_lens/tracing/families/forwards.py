"""From the arguments of a denoiser's forward to the token grids that its attention works on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vico_lens.errors import TracingError
from vico_lens.tracing.families.base import Family, Forward, Grid, unwrapped

__all__ = ["bound", "forward_of"]

_SIGNATURES: dict[type, inspect.Signature] = {}
_AXES = {"BCFHW": (2, 3, 4), "BFCHW": (1, 3, 4), "BFHWC": (1, 2, 3)}


def bound(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name the arguments of a forward, positional ones too.

    The signature is the class's, and that of the module inside a compiled one: offloading and other wrappers put functions of
    ``*args, **kwargs`` on the instance.
    """
    cls: Any = type(unwrapped(module))
    signature = _SIGNATURES.get(cls) or _SIGNATURES.setdefault(cls, inspect.signature(cls.forward))
    arguments = dict(signature.bind_partial(module, *args, **kwargs).arguments)
    del arguments[next(iter(arguments))]  # self
    return arguments


def forward_of(
    family: Family, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], grid: Grid | None = None
) -> Forward:
    """Describe one forward of a denoiser.

    Parameters
    ----------
    family : Family
        The row of the table.
    module : nn.Module
        The denoiser.
    args, kwargs : tuple, mapping
        What it was called with.
    grid : tuple of int or None
        Token grid, for latents that come packed without their size beside them.

    Returns
    -------
    Forward
        Batch, grids and text length.

    Raises
    ------
    TracingError
        If the latents are not there, or not laid out as the row says.
    """
    inputs = bound(module, args, kwargs)
    sample = inputs.get(family.sample)
    if isinstance(sample, (list, tuple)) and sample and isinstance(sample[0], Tensor):
        sample = sample[0]
    if not isinstance(sample, Tensor):
        raise TracingError(
            f"expected the denoiser {type(module).__name__} to be called with latents as {family.sample!r} "
            f"(family {family.name!r}), got the arguments {', '.join(inputs)}."
        )
    if grid is not None:
        grids: tuple[Grid, ...] = (grid,)
    elif family.latents == "packed":
        grids = (_packed_grid(family, inputs, sample),)
    elif sample.ndim == 5:
        grids = _levels(family, module, [int(sample.shape[axis]) for axis in _AXES[family.latents]])
    else:
        image = (
            " Four dimensions are those of a pipeline that makes images: use one that makes videos." if sample.ndim == 4 else ""
        )
        raise TracingError(
            f"expected latents of 5 dimensions {family.latents} for family {family.name!r}, got {tuple(sample.shape)}.{image}"
        )
    return Forward(module, inputs, int(sample.shape[0]), grids, _text_lengths(family, inputs))


def _levels(family: Family, module: nn.Module, cells: list[int]) -> tuple[Grid, ...]:
    patch = [_patch(module, entry) for entry in family.patch]
    frames, rows, columns = (size // step if step else size for size, step in zip(cells, patch, strict=True))
    if any(size % step for size, step in zip(cells[1:], patch[1:], strict=True)):
        raise TracingError(
            f"expected latents of {cells[1]} x {cells[2]} cells to divide into patches of {patch[1]} x {patch[2]}."
        )
    if patch[0] > 1:  # a last group of frames may be padded
        frames = -(-cells[0] // patch[0])
    grids = [(frames, rows, columns)]
    for _ in range(_halvings(family, module)):
        _, rows, columns = grids[-1]
        grids.append((frames, -(-rows // 2), -(-columns // 2)))
    return tuple(dict.fromkeys(grids))


def _halvings(family: Family, module: nn.Module) -> int:
    if family.levels >= 0:
        return family.levels
    return len(_configured(module, "block_out_channels") or (0,)) - 1


def _patch(module: nn.Module, entry: int | str) -> int:
    if isinstance(entry, int):
        return entry
    name, _, index = entry.partition(".")
    value = _configured(module, name)
    if isinstance(value, (list, tuple)):
        value = value[int(index or -1)]
    return int(value or 1)


def _configured(module: nn.Module, name: str) -> Any:
    config = getattr(module, "config", {})
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _packed_grid(family: Family, inputs: Mapping[str, Any], sample: Tensor) -> Grid:
    frames, rows, columns = (inputs.get(name) for name in ("num_frames", "height", "width"))
    if not all(isinstance(size, int) for size in (frames, rows, columns)):
        raise TracingError(
            f"expected packed latents of family {family.name!r} to come with num_frames, height and width, "
            f"got {', '.join(inputs)}: pass grid=(frames, rows, columns)."
        )
    assert isinstance(frames, int) and isinstance(rows, int) and isinstance(columns, int)
    if frames * rows * columns != sample.shape[1]:
        raise TracingError(f"expected {frames} x {rows} x {columns} packed latents, got a sequence of {sample.shape[1]}.")
    return frames, rows, columns


def _text_lengths(family: Family, inputs: Mapping[str, Any]) -> tuple[int, ...]:
    lengths = []
    for name, tokenizer in zip(family.states, family.tokenizers, strict=True):
        states = inputs.get(name)
        if isinstance(states, (list, tuple)) and states:
            states = states[0]
        length = int(states.shape[-2]) if isinstance(states, Tensor) and states.ndim >= 2 else 0
        if length and not tokenizer and not bool(states.any()):  # type: ignore[union-attr]
            length = 0  # text-to-video passes an image of zeros, and masks it
        lengths.append(length)
    return tuple(lengths)
