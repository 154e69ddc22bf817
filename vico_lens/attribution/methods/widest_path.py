"""Widest path: the best single path from a concept to each video token through all stages of the graph."""

from __future__ import annotations

from torch import Tensor

from vico_lens.attribution.base import Problem, register_method
from vico_lens.kernels.bounds import widest_path as widest_path_of_graph
from vico_lens.kernels.operator_graph import OperatorGraph

__all__ = ["widest_path"]


@register_method(
    "widest_path",
    exact=True,
    differentiable=True,
    cost="a pass over the strips of each stage: O(L N^2 (d + K)) time, strips of some megabytes",
    products=2,
    references="arXiv 2005.00928, arXiv 2407.06182",
)
def widest_path(problem: Problem) -> Tensor:
    """Capacity of the widest path from a concept to each output video token; a lower bound of its exact flow."""
    graph = OperatorGraph.from_stages(problem.stages, rho=problem.rho, residual=problem.residual)
    return widest_path_of_graph(graph, problem.tokens).reshape(-1, *problem.grid)
