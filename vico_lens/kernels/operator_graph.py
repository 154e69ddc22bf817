"""The layered attention graph of any size: its links ask operators, and an edge exists only while a pass meets it.

The same graph as `vico_lens.kernels.layered.LayeredGraph`, its nodes in the same order. Whoever needs edges in memory (a
solver, a drawing, networkx) takes that one; rollout, widest paths, (+, min) bounds and greedy pushing run on either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.levels import Joined, Levels
from vico_lens.kernels.operators import Blend, Operator
from vico_lens.kernels.stages import Grid, Stage
from vico_lens.kernels.subgraph import Residual

__all__ = ["Edges", "OperatorGraph", "OperatorLink"]


@dataclass(frozen=True)
class Edges:
    """Some edges of a link: every source of a batch item to every target of it.

    Attributes
    ----------
    source : Tensor
        Node numbers within the level, ``[batch, source]``.
    target : Tensor
        Node numbers within the next level, ``[batch, target]``.
    capacity : Tensor
        ``[batch, source, target]``.
    """

    source: Tensor
    target: Tensor
    capacity: Tensor


@dataclass(frozen=True)
class OperatorLink:
    """All edges that one attention site makes from a level to the next, and from the text into the next.

    Attributes
    ----------
    stage : Stage
        On the graph's grid.
    blend : Blend
        Share of attention, and of the residual connection.
    text : int
        Text nodes of a level. Those that the site does not touch go on unchanged.
    """

    stage: Stage
    blend: Blend
    text: int

    @property
    def kind(self) -> str:
        """Kind of the site."""
        return self.stage.kind

    @property
    def module(self) -> str:
        """Module path of the site."""
        return self.stage.module

    def carry(self, mass: Tensor) -> Tensor:
        """As `vico_lens.kernels.layered.Link.carry`."""
        new, keep = self.blend

        def move(operator: Operator, values: Tensor) -> Tensor:
            return new * operator.carry(values) + keep * values

        return self._across(mass, move, lambda values, capacity: values * capacity)

    def widest(self, width: Tensor) -> Tensor:
        """As `vico_lens.kernels.layered.Link.widest`."""
        return self._across(
            _bounded(width),
            lambda operator, values: operator.widest(values, self.blend),
            lambda values, most: values.clamp(max=most),
        )

    def narrow_sum(self, values: Tensor, *, back: bool = False) -> Tensor:
        """As `vico_lens.kernels.layered.Link.narrow_sum`."""

        def move(operator: Operator, given: Tensor) -> Tensor:
            return operator.narrow_sum(given, self.blend, back=back)

        return self._across(_bounded(values), move, lambda given, most: given.clamp(max=most))

    def push(self, share: Tensor, reach: Tensor) -> Tensor:
        """As `vico_lens.kernels.layered.Link.push`."""
        joint = self.kind == "joint"
        below = self.stage.gather(reach if joint else reach[..., self.text :]) if self.kind != "cross" else None

        def move(operator: Operator, values: Tensor) -> Tensor:
            assert below is not None
            return operator.push(values, below, self.blend)

        if self.kind == "cross":
            capacity = torch.full_like(reach, self.blend.keep)
            capacity[:, : self.text] = 1
            return share * torch.minimum(capacity, reach)
        if joint or not self.text:
            return self._across(share, move, lambda values, capacity: values)
        still = share[..., : self.text] * reach[..., : self.text].clamp(max=1)
        return torch.cat(
            [still, self.stage.scatter(move(self.stage.operator.open(), self.stage.gather(share[..., self.text :])))], -1
        )

    def injected(self, sources: Sequence[Sequence[int]], joined: Joined = "sum") -> Tensor | None:
        """As `vico_lens.kernels.layered.Link.injected`: from exact columns, or one product with the tokens' unit mass."""
        if self.kind != "cross":
            return None
        stage, operator = self.stage, self.stage.operator.open()
        if joined == "sum":
            unit = torch.zeros(len(sources), operator.shape[2], dtype=operator.dtype, device=operator.device)
            for row, tokens in enumerate(sources):
                unit[row, list(tokens)] = 1
            into = stage.scatter(operator.carry(unit.expand(operator.shape[0], -1, -1)))
        else:
            tokens = sorted({token for source in sources for token in source})
            columns = stage.scatter(operator.columns(tokens).mT)
            into = torch.stack([columns[[tokens.index(token) for token in source]].max(0).values for source in sources])
        into = into * self.blend.new
        return torch.cat([into.new_zeros(len(into), self.text), into], -1) if self.text else into

    @property
    def edge_count(self) -> int:
        """Edges between the two levels."""
        still = prod(self.stage.grid) if self.kind == "cross" else prod(self.stage.operator.shape)
        return still + (self.text if self.kind != "joint" else 0)

    def edges(self, dtype: torch.dtype) -> Iterator[Edges]:
        """All edges between the two levels in some parts, those of nodes that the site leaves alone first."""
        operator = self.stage.operator
        video = prod(self.stage.grid)
        number = torch.arange(self.text + video, device=operator.device)
        still = number if self.kind == "cross" else number[: 0 if self.kind == "joint" else self.text]
        if len(still):
            capacity = torch.where(still < self.text, 1.0, self.blend.keep).to(dtype)
            yield Edges(still[:, None], still[:, None], capacity[:, None, None])
        if self.kind == "cross":
            return
        nodes = self.stage.gather(number if self.kind == "joint" else number[self.text :])
        for strip in operator.open().strips():
            yield Edges(nodes[strip.batch], nodes[strip.batch, strip.queries], self.blend.capacity(strip, dtype))

    def pooled(self, cell: Tensor, cells: int) -> Tensor:
        """Capacities added over the cells of both ends, ``[cell, cell]``, in float64; `cell` numbers the cell of each node."""
        total = torch.zeros(cells, cells, dtype=torch.float64, device=cell.device)
        still = cell if self.kind == "cross" else cell[: 0 if self.kind == "joint" else self.text]
        capacity = torch.full((len(still),), self.blend.keep, dtype=torch.float64, device=cell.device)
        capacity[: self.text] = 1
        total.view(-1).index_add_(0, still * (cells + 1), capacity)
        if self.kind == "cross":
            return total
        inside = self.stage.gather(cell if self.kind == "joint" else cell[self.text :])
        return total + self.stage.operator.open().pooled(inside, inside, cells, self.blend)

    def _across(
        self, values: Tensor, move: Callable[[Operator, Tensor], Tensor], still: Callable[[Tensor, float], Tensor]
    ) -> Tensor:
        """Apply `move` to the nodes that the site mixes, and `still` (with their capacity) to those that it passes on."""
        if self.kind == "joint":
            return self.stage.scatter(move(self.stage.operator.open(), self.stage.gather(values)))
        text, video = values[..., : self.text], values[..., self.text :]
        if self.kind == "cross":
            video = still(video, self.blend.keep)
        else:
            video = self.stage.scatter(move(self.stage.operator.open(), self.stage.gather(video)))
        return torch.cat([still(text, 1.0), video], -1) if self.text else video


def _bounded(values: Tensor) -> Tensor:
    """A supply without bound as the largest number there is: no edge carries that much."""
    return values.clamp(max=torch.finfo(values.dtype).max)


@dataclass(frozen=True)
class OperatorGraph(Levels):
    """A layered directed graph from text tokens to the video tokens of the last level, whose edges are computed when asked.

    Attributes
    ----------
    links : tuple of OperatorLink
        In execution order.
    grid, tokens, text
        As in `vico_lens.kernels.levels.Levels`.
    dtype : torch.dtype
        Of vectors over nodes; float64 makes every sum of a bound exact to the last digits.

    Examples
    --------
    >>> cross = Stage("cross", "attn2", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]))
    >>> time = Stage("temporal", "motion", 1, (2, 1, 1), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]))
    >>> graph = OperatorGraph.from_stages([cross, time])
    >>> graph.links[1].carry(graph.links[0].injected([[0]]))
    tensor([[0.3800, 0.1875]])
    """

    links: tuple[OperatorLink, ...]
    grid: Grid
    tokens: int
    text: int = 0
    dtype: torch.dtype = torch.float32

    @classmethod
    def from_stages(cls, stages: Sequence[Stage], *, rho: float = 0.5, residual: Residual = "share") -> OperatorGraph:
        """Build the graph of stages that share one video token grid; nothing is read or computed yet.

        Raises
        ------
        InputError
            If the grids differ, no stage has text, or the numbers of text tokens differ.
        """
        if residual not in ("share", "add"):
            raise InputError(f"residual: expected 'share' or 'add'; got {residual!r}.")
        if not 0 <= rho < 1:
            raise InputError(f"rho: expected a residual share in [0, 1); got {rho}.")
        if not stages:
            raise InputError("expected at least one stage; got none. Check which sites the trace holds.")
        grids = sorted({stage.grid for stage in stages})
        if len(grids) > 1:
            raise InputError(
                f"expected stages on one grid; got {grids}. Bring them to one with vico_lens.kernels.stages.resample."
            )
        counts = sorted({stage.tokens for stage in stages if stage.kind in ("cross", "joint")})
        if len(counts) != 1:
            what = f"stages with {counts} text tokens" if counts else "none"
            raise InputError(f"expected cross or joint stages with one number of text tokens; got {what}. Capture such sites.")
        text = counts[0] if any(stage.kind == "joint" for stage in stages) else 0
        blend = Blend(1 - rho, rho) if residual == "share" else Blend(1.0, 1.0)
        dtype = torch.float32
        for stage in stages:
            dtype = torch.promote_types(dtype, stage.operator.dtype)
        return cls(tuple(OperatorLink(stage, blend, text) for stage in stages), grids[0], counts[0], text, dtype)

    @property
    def like(self) -> Tensor:
        """An empty tensor with the graph's dtype and device."""
        return torch.empty(0, dtype=self.dtype, device=self.links[0].stage.operator.device)

    def to(self, dtype: torch.dtype) -> OperatorGraph:
        """The same graph with sums in another dtype."""
        return replace(self, dtype=dtype)

    def supply(self, sources: Sequence[Sequence[int]] | None = None, *, at_text: float = torch.inf) -> list[Tensor]:
        """As `vico_lens.kernels.layered.LayeredGraph.supply`."""
        chosen = self.chosen(sources)
        levels = [self.start(chosen, at_text)]
        for link in self.links:
            injected = link.injected(chosen)
            levels.append(torch.zeros_like(levels[0]) if injected is None else injected.to(self.dtype))
        return levels
