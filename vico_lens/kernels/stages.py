"""Stages: the attention of one denoising step as a list of row-stochastic operators in execution order.

A stage is what every flow, rollout and bound works on, so that the function a balancer optimises on live tensors is the one that
attribution applies to a stored trace. This module makes stages from live attention calls and brings them to one video token grid;
`vico_lens.attribution.trace_stages` makes the same stages from a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING

from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.dense import DenseOperator
from vico_lens.kernels.factored import FactorOperator
from vico_lens.kernels.operators import Operator
from vico_lens.kernels.resampled import Axes, ResampledOperator
from vico_lens.vocabulary.schema import Grid
from vico_lens.vocabulary.selection import Heads

if TYPE_CHECKING:
    from vico_lens.vocabulary.schema import AttentionCall, Kind

__all__ = ["Grid", "Heads", "Stage", "operator_of_call", "resample", "select_heads", "stage_shape", "stages_from_calls"]


class Stage:
    """One attention site at one step, averaged over heads; rows are queries and sum to 1 (to 0 where a mask hides every key).

    Parameters
    ----------
    kind : str
        ``cross``, ``spatial``, ``temporal``, ``spacetime`` or ``joint``.
    module : str
        Dotted path of the attention module.
    order : int
        Place in the denoiser's execution order.
    grid : tuple of int
        Frames F, rows, columns of the video token grid; P = rows * columns (row-major), N = F * P (frame-major).
    weights : Tensor or Operator
        The map, shaped as `stage_shape` says; or anything that answers for it.

    Attributes
    ----------
    operator : Operator
        Batch, queries and keys: the frames and their positions (spatial, and cross-attention to one text a frame), the positions
        and their frames (temporal), else one item of all tokens.

    Examples
    --------
    >>> import torch
    >>> cross = Stage("cross", "attn2", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]))
    >>> cross.tokens, cross.operator.shape
    (2, (1, 2, 2))
    """

    __slots__ = ("_given", "_operator", "grid", "kind", "module", "order")

    def __init__(self, kind: Kind, module: str, order: int, grid: Grid, weights: Tensor | Operator) -> None:
        self.kind, self.module, self.order, self.grid = kind, module, order, grid
        self._given = weights
        self._operator = weights if isinstance(weights, Operator) else None

    def __repr__(self) -> str:
        return f"Stage({self.kind!r}, {self.module!r}, order={self.order}, grid={self.grid}, tokens={self.tokens})"

    def having(self, weights: Tensor | Operator) -> Stage:
        """The same site with other weights."""
        return Stage(self.kind, self.module, self.order, self.grid, weights)

    @property
    def operator(self) -> Operator:
        """What is asked for products, columns and paths."""
        if self._operator is None:
            assert isinstance(self._given, Tensor)
            single = self.kind in ("cross", "spacetime", "joint")
            self._operator = DenseOperator(self._given.reshape(1, -1, self._given.shape[-1]) if single else self._given)
        return self._operator

    @property
    def weights(self) -> Tensor:
        """The map: cross ``[F, P, T]``, spatial ``[F, P, P']``, temporal ``[P, F, F']``, spacetime ``[N, N']``, joint
        ``[T + N, T + N']`` with text first.

        Raises
        ------
        InputError
            If it is too large to be made; see `vico_lens.kernels.operators.Operator.dense`.
        """
        if isinstance(self._given, Tensor):
            return self._given
        return self.operator.dense().reshape(stage_shape(self.kind, self.grid, self.tokens))

    @property
    def tokens(self) -> int:
        """Text tokens in this stage's softmax; 0 for attention among video tokens only."""
        if self.kind not in ("cross", "joint"):
            return 0
        keys = self._given.shape[-1]
        return keys if self.kind == "cross" else keys - prod(self.grid)

    def gather(self, values: Tensor) -> Tensor:
        """Node vectors ``[column.., node]`` as the operator takes them, ``[batch, column.., member]``.

        Nodes are video tokens, frame-major; text tokens come first in a joint stage.
        """
        if self.kind == "temporal":
            return values.reshape(*values.shape[:-1], self.grid[0], -1).movedim(-1, 0)
        if self._by_frame:
            return values.reshape(*values.shape[:-1], self.grid[0], -1).movedim(-2, 0)
        return values[None]

    def scatter(self, values: Tensor) -> Tensor:
        """The inverse of `gather`."""
        if self.kind == "temporal":
            return values.movedim(0, -1).flatten(-2)
        if self._by_frame:
            return values.movedim(0, -2).flatten(-2)
        return values[0]

    @property
    def _by_frame(self) -> bool:
        return self.kind == "spatial" or (self.kind == "cross" and self.operator.shape[0] > 1)

    def text_columns(self, tokens: Sequence[int]) -> Tensor:
        """Weights of text tokens at every video token, ``[video token, token]``, of a stage that reads text."""
        operator = self.operator.open()
        if self.kind == "joint":
            return operator.part(self.tokens, 0).columns(tokens)[0]
        return self.scatter(operator.columns(tokens).mT).T

    def video_only(self) -> Stage:
        """The stage among video tokens: of a joint stage its video queries and keys, as a space-time stage."""
        if self.kind != "joint":
            return self
        return Stage("spacetime", self.module, self.order, self.grid, self.operator.part(self.tokens, self.tokens))


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
    frames, cells, volume = grid[0], grid[1] * grid[2], prod(grid)
    shapes: dict[str, tuple[int, ...]] = {
        "cross": (frames, cells, tokens),
        "spatial": (frames, cells, cells),
        "temporal": (cells, frames, frames),
        "spacetime": (volume, volume),
        "joint": (tokens + volume, tokens + volume),
    }
    return shapes[kind]


def operator_of_call(call: AttentionCall, heads: Heads = None) -> Operator:
    """What a live attention call does to its keys, as an operator on the very tensors of the model; nothing is copied.

    Parameters
    ----------
    call : AttentionCall
        With query and key, or with probabilities.
    heads : int or sequence of int, optional
        Heads to average; all by default.

    Raises
    ------
    InputError
        If the call has neither, or lacks a head.
    """
    site = call.site
    frames, cells = site.grid[0], site.grid[1] * site.grid[2]
    if call.query is None or call.key is None:
        if call.probabilities is None:
            raise InputError(f"expected query and key, or probabilities, of {site.module}; got neither.")
        mean = select_heads(call.probabilities, heads, site.module).mean(0)
        return Stage(
            site.kind, site.module, site.order, site.grid, mean.reshape(stage_shape(site.kind, site.grid, site.tokens))
        ).operator
    query, key = select_heads(call.query, heads, site.module), call.key
    key = select_heads(key, heads, site.module) if len(key) == len(call.query) else key
    framed = site.kind == "cross" and key.ndim == 4
    batch = {"spatial": frames, "temporal": cells}.get(site.kind, frames if framed else 1)
    bias = None if call.bias is None else _folded_bias(call, framed)
    if bias is not None and len(bias) > 1:
        bias = select_heads(bias, heads, site.module)
    return FactorOperator(
        query.reshape(len(query), batch, -1, query.shape[-1]),
        key.reshape(len(key), batch, -1, key.shape[-1]),
        float(call.scale),
        bias,
    )


def _folded_bias(call: AttentionCall, framed: bool) -> Tensor:
    """The bias of a call over ``[head, batch, query, key]``, size 1 where it does not vary."""
    site, bias = call.site, call.bias
    assert bias is not None  # asked for by the caller
    layouts = {"cross": (3, 1), "spatial": (3, 2), "temporal": (3, 1), "spacetime": (3, 3), "joint": (1, 1)}
    queries, keys = layouts[site.kind]
    shared = {"spatial": 1, "temporal": 2}.get(site.kind, 1 if framed else 0)
    sizes = _full_layout(call)
    first = 1
    for count in (shared, queries - shared, keys):
        axes = range(first, first + count)
        if count == 0:
            bias = bias.unsqueeze(first)
        else:
            if any(bias.shape[axis] > 1 for axis in axes):
                bias = bias.expand(*bias.shape[:first], *sizes[:count], *bias.shape[first + count :])
            bias = bias.flatten(first, first + count - 1)
        sizes = sizes[count:]
        first += 1
    return bias


def _full_layout(call: AttentionCall) -> tuple[int, ...]:
    """Query axes then key axes of a call, as `AttentionCall` documents them for its bias (without the head)."""
    site = call.site
    frames, rows, columns = site.grid
    layouts: dict[str, tuple[int, ...]] = {
        "cross": (frames, rows, columns, site.tokens),
        "spatial": (frames, rows, columns, rows, columns),
        "temporal": (rows, columns, frames, frames),
        "spacetime": (frames, rows, columns, frames, rows, columns),
        "joint": (site.tokens + prod(site.grid),) * 2,
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
    stages = [
        Stage(call.site.kind, call.site.module, call.site.order, call.site.grid, operator_of_call(call, heads)) for call in calls
    ]
    return stages if grid is None else [resample(stage, grid) for stage in stages]


def resample(stage: Stage, grid: Grid) -> Stage:
    """Bring a stage to another video token grid: area mean over queries, area sum over keys, so that rows keep their sum.

    The axis over which a site is batched (the frame of spatial attention, the position of temporal attention) is averaged: its
    queries and keys share it, so the stage keeps its kind. No map is made: the stage's operator brings vectors to its own grid.
    """
    if grid == stage.grid:
        return stage
    here, there, tokens = stage.grid, grid, stage.tokens
    operator = stage.operator
    one, frames, cells = Axes((1,), (1,)), Axes(here[:1], there[:1]), Axes(here[1:], there[1:])
    plans = {
        "cross": (one, Axes(here, there), Axes((tokens,), (tokens,))),
        "spatial": (frames, cells, cells),
        "temporal": (cells, frames, frames),
        "spacetime": (one, Axes(here, there), Axes(here, there)),
        "joint": (one, Axes(here, there, tokens), Axes(here, there, tokens)),
    }
    plan = plans[stage.kind]
    if stage.kind == "cross" and operator.shape[0] > 1:
        plan = (frames, cells, plan[2])
    return Stage(stage.kind, stage.module, stage.order, grid, ResampledOperator(operator, *plan))
