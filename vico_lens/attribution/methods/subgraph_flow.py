"""Subgraph flow: Vico's flow through groups of one cross-attention site and the temporal sites after it (arXiv 2407.06182)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vico_lens.attribution.base import Problem, register_method
from vico_lens.attribution.methods.cross_attention import video_reads_text
from vico_lens.errors import AttributionError
from vico_lens.kernels.stages import Stage
from vico_lens.kernels.subgraph import SubgraphKind
from vico_lens.kernels.subgraph import subgraph_flow as flow_of_group

if TYPE_CHECKING:
    from vico_lens.kernels.subgraph import Residual

__all__ = ["groups_of", "subgraph_flow"]

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


def _carries(stage: Stage) -> Tensor:
    """Weights of a follower as the kernel takes them: ``[batch, query, key]`` over time, or over all video tokens."""
    if stage.kind == "temporal":
        return stage.weights
    weights = stage.weights[stage.tokens :, stage.tokens :] if stage.kind == "joint" else stage.weights
    return weights[None]


@register_method(
    "subgraph_flow",
    differentiable=True,
    cost="O(L N F K) with temporal sites, O(L N^2 K) with full ones; exact: a small max flow for each concept and video token",
    reads=("cross", "temporal", "spacetime", "joint"),
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
    maps = []
    for cross, after in groups:
        reads = video_reads_text(cross)
        whole = any(stage.kind != "temporal" for stage in after)
        reads = reads.reshape(-1, 1, reads.shape[-1]) if whole else reads
        hops = [_carries(stage) for stage in after if (stage.kind == "temporal") != whole]
        flow = flow_of_group(reads, hops, kind=kind, tau=temperature, residual=residual, rho=problem.rho, concepts=problem.tokens)
        maps.append(flow.reshape(*problem.grid, len(problem.tokens)))
    return torch.stack(maps).mean(0).movedim(-1, 0)
