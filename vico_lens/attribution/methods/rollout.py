"""Attention rollout: how much of a concept is in a video token if attention mixes its inputs linearly (arXiv 2005.00928)."""

from __future__ import annotations

from torch import Tensor

from vico_lens.attribution.base import Problem, register_method
from vico_lens.kernels.operator_graph import OperatorGraph
from vico_lens.kernels.rollout import rollout as rollout_of_graph

__all__ = ["rollout"]


@register_method(
    "rollout",
    exact=True,
    differentiable=True,
    cost="one attention call a stage, whose values are the concepts: O(L N^2 d) time, O(N (d + K)) memory",
    products=2,
    references="arXiv 2005.00928",
)
def rollout(problem: Problem) -> Tensor:
    """Share of a concept in each output video token, as the product of all attention matrices with their residual connections."""
    graph = OperatorGraph.from_stages(problem.stages, rho=problem.rho, residual=problem.residual)
    return rollout_of_graph(graph, problem.tokens).reshape(-1, *problem.grid)
