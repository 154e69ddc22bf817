"""Subgraph flow: Vico's flow through groups of one cross-attention site and the temporal sites after it (arXiv 2407.06182)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vico_lens.attribution.base import Problem, register_method
from vico_lens.errors import AttributionError
from vico_lens.kernels.stages import Stage
from vico_lens.kernels.subgraph import SubgraphKind, streamed_subgraph_flow
from vico_lens.kernels.subgraph import subgraph_flow as flow_of_group

if TYPE_CHECKING:
    from vico_lens.kernels.subgraph import Residual

__all__ = ["groups_of", "subgraph_flow"]

# Entries of the largest map among all video tokens that is made rather than streamed.
_DENSE = 1 << 22

_UNET_BLOCK = re.compile(r"(?:down_blocks|up_blocks)\.\d+|mid_block")


def groups_of(stages: Sequence[Stage]) -> list[tuple[Stage, list[Stage]]]:
    """Group each site that reads text with the sites that carry its content on along time, before the next site that reads text.

    The followers are temporal sites; in models with full space-time attention, the space-time sites; in models with joint
    attention, the next joint site (its video block). A follower in another block of a UNet belongs to no group, as in the
    published method: a path does not cross from one block to the next.
    """
    groups: list[tuple[Stage, list[Stage]]] = []
    for stage in sorted(stages, key=lambda stage: stage.order):
        follows = groups and _block(groups[-1][0]) == _block(stage)
        if stage.kind in ("temporal", "spacetime", "joint") and follows:
            groups[-1][1].append(stage)
        if stage.kind in ("cross", "joint"):
            groups.append((stage, []))
    return groups


def _block(stage: Stage) -> str:
    found = _UNET_BLOCK.search(stage.module)
    return found.group() if found else ""


@register_method(
    "subgraph_flow",
    differentiable=True,
    cost="O(L N F K) with temporal sites, O(L N^2 K) with full ones; exact: a small max flow for each concept and video token",
    reads=("cross", "temporal", "spacetime", "joint"),
    products=2,
    references="arXiv 2407.06182",
)
def subgraph_flow(problem: Problem, kind: SubgraphKind = "hard", tau: float | None = None, parity: bool = False) -> Tensor:
    """Flow from a concept to each video token through cross-attention and the temporal sites after it, averaged over groups.

    Parameters
    ----------
    problem : Problem
        Stages and concepts.
    kind : {"hard", "soft", "sum", "exact", "rollout"}
        Widest path (a lower bound of the flow), its soft form, the (+, min) upper bound, the flow itself, or the matrix product.
    tau : float, optional
        Temperature of the soft kind: 0.001, or the published 0.01 in parity mode.
    parity : bool
        Reproduce the published code: capacities ``(A + I) / 2`` and ``C`` whatever `rho` and `residual` say, temporal sites
        multiplied first, and only groups that have a temporal site.

    Returns
    -------
    Tensor
        ``[concept, frame, y, x]``.
    """
    groups = groups_of(problem.stages)
    if parity:
        groups = [(cross, after) for cross, after in groups if after]
        if not groups:
            raise AttributionError(
                "parity mode expected temporal attention after cross-attention; this trace has none. Use parity=False."
            )
    residual: Residual = "parity" if parity else problem.residual
    temperature = tau if tau is not None else 0.01 if parity else 0.001
    every = sorted({token for span in problem.tokens for token in span})
    concepts = [[every.index(token) for token in span] for span in problem.tokens]
    maps = []
    for cross, after in groups:
        reads = cross.text_columns(every)
        whole = any(stage.kind != "temporal" for stage in after)
        hops = [stage.video_only().operator.open() for stage in after if (stage.kind == "temporal") != whole]
        if any(prod(hop.shape) > _DENSE for hop in hops if whole):
            flow = streamed_subgraph_flow(
                reads, hops, kind=kind, tau=temperature, residual=residual, rho=problem.rho, concepts=concepts
            )
        else:
            reads = reads.reshape(-1, 1, len(every)) if whole else reads.reshape(problem.grid[0], -1, len(every))
            flow = flow_of_group(
                reads,
                [hop.dense() for hop in hops],
                kind=kind,
                tau=temperature,
                residual=residual,
                rho=problem.rho,
                concepts=concepts,
            )
        maps.append(flow.reshape(*problem.grid, len(problem.tokens)))
    return torch.stack(maps).mean(0).movedim(-1, 0)
