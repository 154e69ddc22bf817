"""Stages: the attention of one denoising step as a list of row-stochastic matrices in execution order.

A stage is what every flow, rollout and bound works on, so that the function a balancer optimises on live tensors is the one that
attribution applies to a stored trace. This module makes stages from live attention calls and brings them to one video token grid;
`vico_lens.attribution.trace_stages` makes the same stages from a trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.resampling import resample_axes
from vico_lens.vocabulary.schema import Grid
from vico_lens.vocabulary.selection import Heads

if TYPE_CHECKING:
    from vico_lens.vocabulary.schema import AttentionCall, Kind

__all__ = ["Grid", "Heads", "Stage", "resample", "stages_from_calls"]


# Logits of all heads at once when they are few; one head after another when they are many (elements, 4 bytes each in float32).
_LOGITS_AT_ONCE = 1 << 25
# A boolean mask arrives as a large negative bias; a row masked everywhere has no weights, as in torch's own attention.
_MASKED = -1e37


@dataclass(slots=True)
class Stage:
    """One attention site at one step, averaged over heads; rows are queries and sum to 1 (to 0 where a mask hides every key).

    Attributes
    ----------
    kind : str
        ``cross``, ``spatial``, ``temporal``, ``spacetime`` or ``joint``.
    module : str
        Dotted path of the attention module.
    order : int
        Place in the denoiser's execution order.
    grid : tuple of int
        Frames F, rows, columns of the video token grid; P = rows * columns (row-major), N = F * P (frame-major).
    weights : Tensor
        cross ``[F, P, T]``, spatial ``[F, P, P']``, temporal ``[P, F, F']``, spacetime ``[N, N']``, joint ``[T + N, T + N']``
        with text first.
    """

    kind: Kind
    module: str
    order: int
    grid: Grid
    weights: Tensor

    @property
    def tokens(self) -> int:
        """Text tokens in this stage's softmax; 0 for attention among video tokens only."""
        if self.kind == "cross":
            return self.weights.shape[-1]
        return self.weights.shape[-1] - _volume(self.grid) if self.kind == "joint" else 0


def _volume(grid: Grid) -> int:
    return grid[0] * grid[1] * grid[2]


def select_heads(values: Tensor, heads: Heads, module: str) -> Tensor:
    """Pick `heads` along axis 0 (``None`` keeps all); a head the site lacks is an error that names both."""
    if heads is None:
        return values
    chosen = [heads] if isinstance(heads, int) else list(heads)
    count = values.shape[0]
    if not chosen or any(not 0 <= head < count for head in chosen):
        raise InputError(
            f"heads: expected one or more of 0..{count - 1}, the heads of {module}; got {chosen}. Choose heads every site has."
        )
    return values[chosen]


def stage_shape(kind: Kind, grid: Grid, tokens: int) -> tuple[int, ...]:
    """Shape of `Stage.weights` for a kind of site: the last axis is the keys, everything before it the queries."""
    frames, cells, volume = grid[0], grid[1] * grid[2], _volume(grid)
    shapes: dict[str, tuple[int, ...]] = {
        "cross": (frames, cells, tokens),
        "spatial": (frames, cells, cells),
        "temporal": (cells, frames, frames),
        "spacetime": (volume, volume),
        "joint": (tokens + volume, tokens + volume),
    }
    return shapes[kind]


def _head_mean(call: AttentionCall, heads: Heads) -> Tensor:
    """Softmax weights of one call averaged over the chosen heads, shaped as `Stage.weights`; streams over large heads."""
    site = call.site
    shape = stage_shape(site.kind, site.grid, site.tokens)
    if call.query is None or call.key is None:
        if call.probabilities is None:
            raise InputError(f"expected query and key, or probabilities, of {site.module}; got neither.")
        return select_heads(call.probabilities, heads, site.module).mean(0).reshape(shape)
    query, key = select_heads(call.query, heads, site.module), select_heads(call.key, heads, site.module)
    count, channels = query.shape[0], query.shape[-1]
    query = query.reshape(count, *shape[:-1], channels)
    if site.kind == "cross" and key.ndim == 3:
        key = key[:, None]
    elif site.kind != "cross":
        key = key.reshape(count, *shape[:-2], shape[-1], channels)
    bias = None if call.bias is None else call.bias.expand(site.heads, *call.bias.shape[1:])
    bias = None if bias is None else select_heads(bias, heads, site.module)
    full = _full_layout(call)
    rows = torch.Size(shape).numel()
    together = max(1, _LOGITS_AT_ONCE // rows)
    total: Tensor | None = None
    for first in range(0, count, together):
        part = slice(first, first + together)
        logits = torch.matmul(query[part], key[part].transpose(-1, -2)) * call.scale
        if bias is not None:
            logits = (logits.reshape(-1, *full) + bias[part]).reshape(logits.shape)
        weights = torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        if bias is not None:
            weights = weights.masked_fill(logits.amax(-1, keepdim=True) < _MASKED, 0.0)
        total = weights.sum(0) if total is None else total + weights.sum(0)
    assert total is not None  # select_heads refuses an empty choice
    return total / count


def _full_layout(call: AttentionCall) -> tuple[int, ...]:
    """Query axes then key axes of a call, as `AttentionCall` documents them for its bias (without the head)."""
    site = call.site
    frames, rows, columns = site.grid
    layouts: dict[str, tuple[int, ...]] = {
        "cross": (frames, rows, columns, site.tokens),
        "spatial": (frames, rows, columns, rows, columns),
        "temporal": (rows, columns, frames, frames),
        "spacetime": (frames, rows, columns, frames, rows, columns),
        "joint": (site.tokens + _volume(site.grid),) * 2,
    }
    return layouts[site.kind]


def stages_from_calls(calls: Iterable[AttentionCall], *, heads: Heads = None, grid: Grid | None = None) -> list[Stage]:
    """Make stages from the attention calls of one denoiser forward; differentiable in their queries and keys.

    Parameters
    ----------
    calls : iterable of AttentionCall
        Calls of one step, one branch and one prompt row, in any order.
    heads : int or sequence of int, optional
        Heads to average; all by default.
    grid : tuple of int, optional
        Video token grid (frames, rows, columns) to bring every site to; by default each stage keeps its own.

    Returns
    -------
    list of Stage
        In execution order.

    Raises
    ------
    InputError
        If the calls mix steps, branches or prompt rows, a site was called twice, or there are none.
    """
    calls = sorted(calls, key=lambda call: call.site.order)
    if not calls:
        raise InputError("expected the attention calls of one denoiser forward; got none. Check that the sites asked for ran.")
    runs = {(call.step, call.branch, call.prompt) for call in calls}
    if len(runs) > 1:
        raise InputError(f"expected calls of one (step, branch, prompt); got {sorted(runs)}. Filter the calls first.")
    modules = [call.site.module for call in calls]
    if len(set(modules)) < len(modules):
        twice = sorted({module for module in modules if modules.count(module) > 1})
        raise InputError(f"expected one call a site; got several of {', '.join(twice)}. Pass the calls of a single forward.")
    stages = [Stage(call.site.kind, call.site.module, call.site.order, call.site.grid, _head_mean(call, heads)) for call in calls]
    return stages if grid is None else [resample(stage, grid) for stage in stages]


def resample(stage: Stage, grid: Grid) -> Stage:
    """Bring a stage to another video token grid: area mean over queries, area sum over keys, so that rows keep their sum.

    The axis over which a site is batched (the frame of spatial attention, the position of temporal attention) is averaged: its
    queries and keys share it, so the stage keeps its kind.
    """
    if grid == stage.grid:
        return stage
    frames, rows, columns = stage.grid
    old, new, volume = list(stage.grid), list(grid), _volume(grid)
    weights, tokens = stage.weights, stage.tokens
    if stage.kind == "cross":
        weights = resample_axes(weights.reshape(*old, tokens), [0, 1, 2], new, "mean")
    elif stage.kind == "spatial":
        weights = resample_axes(weights.reshape(*old, rows, columns), [0, 1, 2], new, "mean")
        weights = resample_axes(weights, [3, 4], new[1:], "sum")
    elif stage.kind == "temporal":
        weights = resample_axes(weights.reshape(rows, columns, frames, frames), [0, 1, 2], [new[1], new[2], new[0]], "mean")
        weights = resample_axes(weights, [3], new[:1], "sum")
    elif stage.kind == "spacetime":
        weights = resample_axes(weights.reshape(*old, *old), [0, 1, 2], new, "mean")
        weights = resample_axes(weights, [3, 4, 5], new, "sum")
    else:
        above = resample_axes(weights[:, tokens:].reshape(-1, *old), [1, 2, 3], new, "sum").reshape(-1, volume)
        wide = torch.cat([weights[:, :tokens], above], 1)
        below = resample_axes(wide[tokens:].reshape(*old, -1), [0, 1, 2], new, "mean").reshape(volume, -1)
        weights = torch.cat([wide[:tokens], below], 0)
    return replace(stage, grid=grid, weights=weights.reshape(stage_shape(stage.kind, grid, tokens)))
