"""The attention graph as implicit blocks: dense matrices between levels of nodes, and never an edge object.

Level 0 holds the nodes before the first attention site, level s + 1 those after site s. A level is the video tokens,
frame-major; when text lives through the layers (joint attention) its nodes come first in every level. Text that only conditions
(cross-attention) is no node: it injects into the level after its site. An edge's capacity is an attention weight blended with
the residual connection:

- ``residual="share"``: a node takes in exactly 1. Self-attention ``(1 - rho) A + rho I``; a cross-attention site injects
  ``(1 - rho) C`` and passes its video tokens on with ``rho``.
- ``residual="add"``: the graph of arXiv 2407.06182, ``A + I``, ``C`` and 1.

Capacities keep their connection to the tensors they came from, so exact flow and all bounds are differentiable in the stages'
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.levels import Joined, Levels
from vico_lens.kernels.products import ProductKind, path_product
from vico_lens.kernels.stages import Grid, Stage, stage_shape
from vico_lens.kernels.subgraph import Residual, self_capacity

__all__ = ["Block", "LayeredGraph", "Link"]


@dataclass(frozen=True)
class Block:
    """Dense groups of edges between two levels.

    Attributes
    ----------
    capacity : Tensor
        ``[group, source, target]``.
    interleaved : bool
        Node of member j in group g: ``j * groups + g`` if true (one position across frames), else ``g * members + j``.
    source, target : int
        First node of the block within its level, and within the next.
    """

    capacity: Tensor
    interleaved: bool = False
    source: int = 0
    target: int = 0

    def gather_sources(self, values: Tensor) -> Tensor:
        """Bring values of a level's nodes ``[.., node]`` to ``[.., group, source]``."""
        groups, rows, _ = self.capacity.shape
        return self._split(values[..., self.source : self.source + groups * rows], groups, rows)

    def gather_targets(self, values: Tensor) -> Tensor:
        """Bring values of the next level's nodes ``[.., node]`` to ``[.., group, target]``."""
        groups, _, columns = self.capacity.shape
        return self._split(values[..., self.target : self.target + groups * columns], groups, columns)

    def join(self, values: Tensor) -> Tensor:
        """Bring ``[.., group, member]`` back to nodes in their order, ``[.., node]``."""
        return (values.mT if self.interleaved else values).flatten(-2)

    def _split(self, values: Tensor, groups: int, members: int) -> Tensor:
        if self.interleaved:
            return values.reshape(*values.shape[:-1], members, groups).mT
        return values.reshape(*values.shape[:-1], groups, members)


@dataclass(frozen=True)
class Link:
    """All edges that one attention site makes from a level to the next, and from the text into the next.

    Attributes
    ----------
    kind, module : str
        Of the attention site.
    blocks : tuple of Block
        One or two, that leave and enter every node once.
    injection : Tensor, optional
        Capacity from each text token into each node of the next level, ``[token, node]``; cross-attention only.
    """

    kind: str
    module: str
    blocks: tuple[Block, ...]
    injection: Tensor | None = None

    @property
    def width(self) -> int:
        """Nodes of the level this link enters."""
        return sum(block.capacity.shape[0] * block.capacity.shape[2] for block in self.blocks)

    def join(self, values: Sequence[Tensor]) -> Tensor:
        """Bring one tensor a block, ``[.., group, member]``, to the nodes of a level, ``[.., node]``."""
        return torch.cat([block.join(part) for block, part in zip(self.blocks, values, strict=True)], -1)

    def carry(self, mass: Tensor) -> Tensor:
        """Mass ``[column, node]`` times the capacities: what arrives at the nodes of the next level."""
        moved = [torch.matmul(block.gather_sources(mass).movedim(0, 1), block.capacity).movedim(1, 0) for block in self.blocks]
        return self.join(moved)

    def widest(self, width: Tensor) -> Tensor:
        """Widest step ``[column, node]`` to each node of the next level; see `vico_lens.kernels.products`."""
        return self.join([_forward(block, width, "hard") for block in self.blocks])

    def narrow_sum(self, values: Tensor, *, back: bool = False) -> Tensor:
        """(+, min) product with values of this level ``[column, node]``; with `back`, of the next level's values to this."""
        if not back:
            return self.join([_forward(block, values, "sum") for block in self.blocks])
        return self.join(
            [
                path_product(block.gather_targets(values).movedim(0, 1), block.capacity.mT, "sum").movedim(1, 0)
                for block in self.blocks
            ]
        )

    def push(self, share: Tensor, reach: Tensor) -> Tensor:
        """Send ``share [source, sink, node]`` of what each edge can carry on to nodes of ``reach [sink, node]``; what arrives."""
        moved = []
        for block in self.blocks:
            # [source, sink, group, member] times [sink, group, member, target]: one product for all sources.
            useful = torch.minimum(block.capacity, block.gather_targets(reach)[..., None, :])
            moved.append(torch.matmul(block.gather_sources(share).movedim(0, 2), useful).movedim(2, 0))
        return self.join(moved)

    def injected(self, sources: Sequence[Sequence[int]], joined: Joined = "sum") -> Tensor | None:
        """Capacity from the tokens of each source into the next level, ``[source, node]``: all of them, or their widest."""
        if self.injection is None:
            return None
        parts = [self.injection[list(tokens)] for tokens in sources]
        return torch.stack([part.sum(0) if joined == "sum" else part.max(0).values for part in parts])


def _forward(block: Block, values: Tensor, kind: ProductKind) -> Tensor:
    """One hop from sources ``[column, node]`` through a block, to ``[column, group, target]``."""
    here = block.gather_sources(values).movedim(0, 1)
    # A supply without bound is any number that no edge can carry.
    here = torch.where(torch.isinf(here), 2 * block.capacity.detach().amax() + 1, here)
    return path_product(here, block.capacity, kind).movedim(1, 0)


@dataclass(frozen=True)
class LayeredGraph(Levels):
    """A layered directed graph from text tokens to the video tokens of the last level.

    Attributes
    ----------
    links : tuple of Link
        In execution order.
    grid : tuple of int
        Frames, rows and columns of the video tokens.
    tokens : int
        Text tokens that can be sources.
    text : int
        Text nodes at the head of every level: `tokens` if text lives through the layers, else 0.

    Examples
    --------
    >>> cross = Stage("cross", "attn2", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]))
    >>> time = Stage("temporal", "motion", 1, (2, 1, 1), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]))
    >>> graph = LayeredGraph.from_stages([cross, time])
    >>> graph.widths, graph.edges
    ((2, 2, 2), 10)
    """

    links: tuple[Link, ...]
    grid: Grid
    tokens: int
    text: int = 0

    @classmethod
    def from_stages(cls, stages: Sequence[Stage], *, rho: float = 0.5, residual: Residual = "share") -> LayeredGraph:
        """Build the graph of stages that share one video token grid.

        Parameters
        ----------
        stages : sequence of Stage
            In execution order.
        rho : float
            Residual share for ``residual="share"``, in [0, 1).
        residual : {"share", "add"}
            See the module.

        Raises
        ------
        InputError
            If the grids differ, no stage has text, the numbers of text tokens differ, a shape is not its kind's, or weights are
            negative or not finite.
        """
        if residual not in ("share", "add"):
            raise InputError(f"residual: expected 'share' or 'add'; got {residual!r}.")
        if not 0 <= rho < 1:
            raise InputError(f"rho: expected a residual share in [0, 1); got {rho}.")
        grid, tokens = _common(stages)
        text = tokens if any(stage.kind == "joint" for stage in stages) else 0
        return cls(tuple(_link(stage, text, rho, residual) for stage in stages), grid, tokens, text)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Nodes of each level."""
        first = sum(block.capacity.shape[0] * block.capacity.shape[1] for block in self.links[0].blocks)
        return (first, *(link.width for link in self.links))

    @property
    def edges(self) -> int:
        """Edges of the graph, those from the text into the levels included and those to the sink not."""
        blocks = sum(block.capacity.numel() for link in self.links for block in link.blocks)
        return blocks + sum(link.injection.numel() for link in self.links if link.injection is not None)

    @property
    def like(self) -> Tensor:
        """Any capacity: for its dtype and device."""
        return self.links[0].blocks[0].capacity

    @property
    def parameters(self) -> list[Tensor]:
        """Every capacity tensor: for each link its blocks, then its injection if it has one."""
        found: list[Tensor] = []
        for link in self.links:
            found.extend(block.capacity for block in link.blocks)
            if link.injection is not None:
                found.append(link.injection)
        return found

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> LayeredGraph:
        """The same graph with capacities of `dtype` on `device` (by default where they are); differentiable."""

        def moved(link: Link) -> Link:
            blocks = tuple(replace(block, capacity=block.capacity.to(device, dtype)) for block in link.blocks)
            return replace(link, blocks=blocks, injection=None if link.injection is None else link.injection.to(device, dtype))

        return replace(self, links=tuple(moved(link) for link in self.links))

    def supply(self, sources: Sequence[Sequence[int]] | None = None, *, at_text: float = torch.inf) -> list[Tensor]:
        """Capacity from each super-source into the nodes of each level: one ``[source, node]`` a level.

        A source is the set of its tokens together; ``None`` makes every token a source. Where text lives through the layers a
        source's tokens are nodes of level 0, supplied with `at_text`: without bound, because what leaves them is bounded by
        their edges.
        """
        chosen = self.chosen(sources)
        member = self.like.new_zeros(len(chosen), self.tokens)
        for row, tokens in enumerate(chosen):
            member[row, tokens] = 1
        levels = [self.like.new_zeros(len(chosen), width) for width in self.widths]
        if self.text:
            levels[0][:, : self.text] = torch.where(member > 0, at_text, 0.0)
        for level, link in enumerate(self.links, start=1):
            if link.injection is not None:
                levels[level] = member @ link.injection
        return levels


def _common(stages: Sequence[Stage]) -> tuple[Grid, int]:
    """Grid and number of text tokens that all stages share, after checking each stage."""
    if not stages:
        raise InputError("expected at least one stage; got none. Check which sites the trace holds.")
    grids = sorted({stage.grid for stage in stages})
    if len(grids) > 1:
        raise InputError(f"expected stages on one grid; got {grids}. Bring them to one with vico_lens.kernels.stages.resample.")
    counts = sorted({stage.tokens for stage in stages if stage.kind in ("cross", "joint")})
    if len(counts) != 1:
        what = f"stages with {counts} text tokens" if counts else "none"
        raise InputError(f"expected cross or joint stages with one number of text tokens; got {what}. Capture such sites.")
    for stage in stages:
        expected, weights = stage_shape(stage.kind, stage.grid, counts[0]), stage.weights
        if tuple(weights.shape) != expected:
            raise InputError(f"{stage.module}: expected {stage.kind} weights {expected}; got {tuple(weights.shape)}.")
        if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
            raise InputError(f"{stage.module}: expected finite weights that are not negative; got others. Look for NaN upstream.")
    return grids[0], counts[0]


def _link(stage: Stage, text: int, rho: float, residual: Residual) -> Link:
    """Edges of one stage: queries are targets and keys are sources, so every block is its weights transposed."""
    weights, grid = stage.weights, stage.grid
    video = grid[0] * grid[1] * grid[2]
    # Text nodes that a site does not touch go on unchanged.
    still = (Block(weights.new_ones(text, 1, 1)),) if text else ()
    if stage.kind == "cross":
        keep = Block(weights.new_full((video, 1, 1), rho if residual == "share" else 1.0), source=text, target=text)
        injection = weights.reshape(video, -1).T * (1 - rho if residual == "share" else 1.0)
        if text:
            injection = torch.cat([injection.new_zeros(len(injection), text), injection], 1)
        return Link(stage.kind, stage.module, (*still, keep), injection)
    capacity = self_capacity(weights, residual, rho).mT.contiguous()
    if stage.kind == "joint":
        return Link(stage.kind, stage.module, (Block(capacity[None]),))
    if stage.kind == "spacetime":
        capacity = capacity[None]
    block = Block(capacity, interleaved=stage.kind == "temporal", source=text, target=text)
    return Link(stage.kind, stage.module, (*still, block))
