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
from vico_lens.kernels.stages import Grid

__all__ = ["ContractedFlow", "cells_of", "contracted_flow"]


def cells_of(
    grid: Grid, coarse: Grid, text: int = 0, sources: Sequence[Sequence[int]] = (), device: torch.device | str = "cpu"
) -> Tensor:
    """Cell of every node of a level: video tokens by near equal parts of each axis, text nodes of no source together.

    >>> cells_of((1, 2, 4), (1, 1, 2), text=3, sources=[[1]]).tolist()
    [0, 1, 0, 2, 2, 3, 3, 2, 2, 3, 3]
    """
    frame, y, x = (torch.arange(size, device=device) * small // size for size, small in zip(grid, coarse, strict=True))
    place = (frame[:, None, None] * coarse[1] + y[:, None]) * coarse[2] + x
    words = torch.zeros(text, dtype=torch.int64, device=device)
    chosen = sorted({token for tokens in sources for token in tokens}) if text else []
    words[chosen] = torch.arange(1, len(chosen) + 1, device=device)
    return torch.cat([words, (len(chosen) + 1 if text else 0) + place.flatten()])


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
        Part of each edge that the flow uses, float32 ``[cell, cell]`` a link.
    """

    cut: float
    sides: list[Tensor]
    use: list[Tensor]


def contracted_flow(capacities: Sequence[Tensor], supply: Sequence[Tensor], sink: Tensor, cell: Tensor) -> ContractedFlow:
    """Exact flow from one source to one sink where the nodes of a cell are one.

    Solved by the compiled solver on the processor, wherever the tensors are.

    Parameters
    ----------
    capacities : sequence of Tensor
        Edges between cells, ``[cell, cell]`` a link, float64.
    supply : sequence of Tensor
        ``[node]`` a level.
    sink : Tensor
        ``[node]``.
    cell : Tensor
        Cell of each node, ``[node]``.
    """
    cells, device = capacities[0].shape[0], cell.device

    def pooled(values: Tensor) -> Tensor:
        return torch.zeros(cells, dtype=torch.float64, device=device).index_add_(0, cell, values.double()).cpu()[None]

    links = tuple(Link("contracted", str(level), (Block(edges.cpu()[None]),)) for level, edges in enumerate(capacities))
    graph = LayeredGraph(links, (1, 1, cells), 0)
    given, end = [pooled(level) for level in supply], pooled(sink)
    _, reach = push_once(graph, given, end)
    solver = CompiledSolver(graph, given, end, end.sum(1, keepdim=True))
    solved, flow = solver.solve_one(0, 0, torch.cat([level[0] for level in reach]).numpy())
    parts = torch.from_numpy(flow).view(len(links), cells, cells)
    use = [
        torch.where(link.blocks[0].capacity[0] > 0, part / link.blocks[0].capacity[0].clamp(min=1e-300), 0.0).clamp(0, 1)
        for link, part in zip(links, parts, strict=True)
    ]
    sides = torch.split(torch.from_numpy(solved.sides).to(device), cells)
    return ContractedFlow(
        float(solved.location.sum()) * (1 + CLOSED), list(sides), [part.to(device, torch.float32) for part in use]
    )
