"""Synthetic attention with the form of real attention: smooth and local in space and time, words as moving blobs, a begin token
that takes most of the weight. Benchmarks need sizes that no bundled model has; their speeds hold for real models, and they say
nothing else about a model."""

from __future__ import annotations

import torch
from torch import Tensor

from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.stages import Grid, Stage

__all__ = ["group", "layered_graph", "sized"]


def sized(name: str) -> LayeredGraph:
    """Graphs by name: ``a`` is 8 frames x 8x8, 12 tokens, 8 sites; ``b`` is 16 frames x 10x16, 77 tokens, 16 sites; ``small``."""
    grid, tokens, blocks = {"small": ((4, 4, 4), 8, 1), "a": ((8, 8, 8), 12, 2), "b": ((16, 10, 16), 77, 4)}[name]
    return layered_graph(grid, tokens, blocks)


def layered_graph(grid: Grid, tokens: int, blocks: int, *, rho: float = 0.5, begin: float = 3.0, seed: int = 0) -> LayeredGraph:
    """`blocks` times spatial, cross, temporal, temporal."""
    generator = torch.Generator().manual_seed(seed)
    frames, rows, columns = grid
    features = torch.randn(frames * rows * columns, 8, generator=generator, dtype=torch.float64)
    blobs = _paths(tokens, frames, generator)
    stages: list[Stage] = []
    for block in range(blocks):
        for kind in ("spatial", "cross", "temporal", "temporal"):
            weights = _cross(grid, blobs, begin, generator) if kind == "cross" else _self(kind, grid, features, generator)
            stages.append(Stage(kind, f"block{block}.{kind}{len(stages)}", len(stages), grid, weights))
    return LayeredGraph.from_stages(stages, rho=rho)


def group(grid: Grid, tokens: int, *, begin: float = 3.0, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """One cross site ``[frame, position, token]`` and the two temporal sites after it."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(grid[0] * grid[1] * grid[2], 8, generator=generator, dtype=torch.float64)
    cross = _cross(grid, _paths(tokens, grid[0], generator), begin, generator)
    return cross, [_self("temporal", grid, features, generator) for _ in range(2)]


def _paths(tokens: int, frames: int, generator: torch.Generator) -> Tensor:
    """Where each token's blob is in each frame, ``[token, frame, 2]``, in the unit square."""
    start = torch.rand(tokens, 1, 2, generator=generator, dtype=torch.float64)
    steps = 0.08 * torch.randn(tokens, frames - 1, 2, generator=generator, dtype=torch.float64)
    return torch.cumsum(torch.cat([start, steps], 1), 1) % 1.0


def _places(grid: Grid) -> Tensor:
    _, rows, columns = grid
    y, x = torch.meshgrid(torch.arange(rows) / rows, torch.arange(columns) / columns, indexing="ij")
    return torch.stack([y.flatten(), x.flatten()], 1).double()


def _cross(grid: Grid, blobs: Tensor, begin: float, generator: torch.Generator) -> Tensor:
    distance = ((_places(grid)[None, :, None] - blobs.transpose(0, 1)[:, None]) ** 2).sum(-1)
    logits = 3 * torch.exp(-distance / 0.03) + 0.5 * torch.randn(distance.shape, generator=generator, dtype=torch.float64)
    logits[..., 0] += begin + torch.tensor(float(distance.shape[-1])).log().item() / 2
    return logits.softmax(-1)


def _self(kind: str, grid: Grid, features: Tensor, generator: torch.Generator) -> Tensor:
    frames, rows, columns = grid
    noisy = features + 0.7 * torch.randn(features.shape, generator=generator, dtype=torch.float64)
    query, key = (noisy @ torch.randn(8, 8, generator=generator, dtype=torch.float64) / 8**0.5 for _ in range(2))
    query, key = (part.reshape(frames, rows * columns, 8) for part in (query, key))
    if kind == "spatial":
        places = _places(grid)
        near = ((places[:, None] - places[None]) ** 2).sum(-1)
        return (2 * query @ key.mT / 8**0.5 - 8 * near).softmax(-1)
    time = torch.arange(frames).double()
    apart = (time[:, None] - time[None]).abs()
    return (query.transpose(0, 1) @ key.transpose(0, 1).mT / 8**0.5 - 0.25 * apart).softmax(-1)
