"""The attention graph with the nodes of a cell made one: small enough for the exact solver, and what that says of the whole.

Contraction can only add routes: edges between the same two cells add up, and what was several nodes passes everything on. So the
contracted graph's flow is an upper bound of the flow, its minimum cut is a cut of the whole graph with the same capacity, and the
part of each edge that its flow uses is a good guide of where to push. (Averaging over queries instead, as maps are resampled to
be looked at, gives no bound.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vico_lens.kernels.certificate import CLOSED
from vico_lens.kernels.greedy import push_once
from vico_lens.kernels.layered import Block, LayeredGraph, Link
from vico_lens.kernels.maxflow_compiled import CompiledSolver
from vico_lens.kernels.operator_graph import OperatorGraph
from vico_lens.kernels.stages import Grid

__all__ = ["Contracted", "ContractedFlow", "cells_of"]


def cells_of(grid: Grid, coarse: Grid, text: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Cell of every node of a level: each text node its own, video tokens by near equal parts of each axis.

    >>> cells_of((1, 2, 4), (1, 1, 2), text=1).tolist()
    [0, 1, 1, 2, 2, 1, 1, 2, 2]
    """
    frame, y, x = (torch.arange(size, device=device) * small // size for size, small in zip(grid, coarse, strict=True))
    place = (frame[:, None, None] * coarse[1] + y[:, None]) * coarse[2] + x
    return torch.cat([torch.arange(text, device=device), text + place.flatten()])


@dataclass(frozen=True)
class ContractedFlow:
    """One exact flow of the contracted graph.

    Attributes
    ----------
    cut : float
        Capacity of its minimum cut: an upper bound of the flow in the whole graph.
    sides : list of Tensor
        Whether each cell of each level is on the source's side of that cut, ``[cell]``.
    use : list of Tensor
        Part of each edge that the flow uses, ``[cell, cell]`` a link.
    """

    cut: float
    sides: list[Tensor]
    use: list[Tensor]


class Contracted:
    """A graph whose nodes are cells of a coarser grid.

    Parameters
    ----------
    graph : OperatorGraph
        Its edges are met once.
    coarse : tuple of int
        Cells along frames, rows and columns.
    supply : sequence of Tensor
        ``[source, node]`` a level.
    sink : Tensor
        ``[sink, node]``.
    """

    def __init__(self, graph: OperatorGraph, coarse: Grid, supply: Sequence[Tensor], sink: Tensor) -> None:
        self.cell = cells_of(graph.grid, coarse, graph.text, sink.device)
        self.cells = graph.text + coarse[0] * coarse[1] * coarse[2]
        links = [
            Link("contracted", link.module, (Block(link.pooled(self.cell, self.cells).cpu()[None]),)) for link in graph.links
        ]
        self.graph = LayeredGraph(tuple(links), coarse, graph.tokens, graph.text)
        self.supply = [self._pooled(level).cpu() for level in supply]
        self.sink = self._pooled(sink).cpu()
        scale = self.sink.sum(1).expand(len(self.supply[0]), -1)
        self._solver = CompiledSolver(self.graph, self.supply, self.sink, scale)

    def _pooled(self, values: Tensor) -> Tensor:
        out = values.new_zeros(len(values), self.cells, dtype=torch.float64)
        return out.index_add_(1, self.cell, values.double())

    def solve(self, source: int, sink: int) -> ContractedFlow:
        """Exact flow from one source to one sink, by the compiled solver on the processor, wherever the graph is."""
        end = self.sink[sink : sink + 1]
        _, reach = push_once(self.graph, [level[source : source + 1] for level in self.supply], end)
        solved, flow = self._solver.solve_one(source, sink, torch.cat([level[0] for level in reach]).numpy())
        device, use, at = self.cell.device, [], 0
        for link in self.graph.links:
            capacity = link.blocks[0].capacity[0]
            part = torch.from_numpy(flow[at : at + capacity.numel()]).view_as(capacity)
            at += capacity.numel()
            use.append(torch.where(capacity > 0, part / capacity.clamp(min=1e-300), 0.0).clamp(0, 1).to(device))
        sides = torch.split(torch.from_numpy(solved.sides).to(device), self.cells)
        return ContractedFlow(float(solved.location.sum()) * (1 + CLOSED), list(sides), use)
