"""Random stages and layered graphs of every kind of block, small enough for networkx."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.stages import Grid, Stage, stage_shape

VIDEO_KINDS = ("spatial", "temporal", "spacetime")


def random_stage(kind, grid: Grid, tokens: int, order: int, generator: torch.Generator, sharpness: float = 2.0) -> Stage:
    logits = torch.randn(stage_shape(kind, grid, tokens), generator=generator, dtype=torch.float64)
    return Stage(kind, f"site{order}", order, grid, (sharpness * logits).softmax(-1))


@dataclass
class Case:
    stages: list[Stage]
    rho: float
    residual: str
    sources: list[list[int]]
    sinks: str | Tensor

    @property
    def graph(self) -> LayeredGraph:
        return LayeredGraph.from_stages(self.stages, rho=self.rho, residual=self.residual)


def random_case(seed: int) -> Case:
    """One graph of 1 to 4 sites of any kind, some joint, with one or two sources and any kind of sink."""
    choose = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    grid = (choose.randint(1, 3), choose.randint(1, 3), choose.randint(1, 2))
    tokens = choose.randint(1, 4)
    text = choose.choice((("cross",), ("cross",), ("joint",), ("cross", "joint")))
    kinds = [choose.choice(VIDEO_KINDS + text) for _ in range(choose.randint(1, 4))]
    if not set(kinds) & {"cross", "joint"}:
        kinds[choose.randrange(len(kinds))] = text[0]
    sharpness = choose.choice((0.5, 2.0, 5.0))
    stages = [random_stage(kind, grid, tokens, order, generator, sharpness) for order, kind in enumerate(kinds)]
    mask = torch.rand(grid, generator=generator) < 0.5
    mask[0, 0, 0] = True
    return Case(
        stages=stages,
        rho=choose.choice((0.0, 0.3, 0.5, 0.9)),
        residual=choose.choice(("share", "add")),
        sources=[[0], list(range(tokens))],
        sinks=choose.choice(("video", "frame", "token", mask)),
    )
