"""Exact maximum flow from a concept to the video, with the minimum cut that proves it (arXiv 2005.00928, arXiv 2407.06182)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vico_lens.attribution.base import Answer, Problem, register_method
from vico_lens.attribution.methods.subgraph_flow import groups_of
from vico_lens.errors import InputError
from vico_lens.kernels.certificate import FlowResult
from vico_lens.kernels.flow_bracket import FlowBracket, flow_bracket
from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.maxflow import max_flow as flow_of_graph
from vico_lens.kernels.operator_graph import OperatorGraph
from vico_lens.kernels.stages import Grid, Stage

__all__ = ["Sink", "certificate_of", "max_flow", "shaped", "sink_dims", "sinks_of"]

Sink = Literal["video", "frame", "token"] | Any
Coords = dict[str, tuple[tuple[str, ...], np.ndarray[Any, Any]]]

# Edges of the largest graph that is solved exactly: 1 GiB a copy in float64, of which the solver makes some.
_LARGEST_GRAPH = 1 << 27

_NAMED: dict[str, tuple[str, ...]] = {"video": (), "frame": ("frame",), "token": ("frame", "y", "x")}


def sinks_of(sink: Sink, grid: Grid) -> str | Tensor:
    """Check a sink request against the video token grid: a name, or a mask ``[frame, y, x]`` or ``[sink, frame, y, x]``."""
    if isinstance(sink, str):
        if sink not in _NAMED:
            raise InputError(f"sink: expected 'video', 'frame', 'token' or a mask of shape {grid}; got {sink!r}.")
        return sink
    mask = sink if isinstance(sink, Tensor) else torch.from_numpy(np.array(getattr(sink, "values", sink)))
    if mask.ndim not in (3, 4) or tuple(mask.shape[-3:]) != grid:
        raise InputError(
            f"sink: expected a mask of shape {grid} (frames, rows, columns of the token grid), or several stacked; got "
            f"{tuple(mask.shape)}. Bring the mask to that grid, or choose grid= to be the mask's."
        )
    if mask.is_complex() or not bool(((mask.double() >= 0) & (mask.double() <= 1)).all()):
        raise InputError("sink: expected a mask of booleans or of capacities in 0..1; got others. Of a picture take mask > 0.")
    if not bool((mask > 0).flatten(-3).any(-1).all()):
        raise InputError("sink: expected at least one video token in every mask; got an empty one.")
    return mask


def sink_dims(sink: Sink) -> tuple[str, ...]:
    """Dimensions of a result for these sinks, ``concept`` first."""
    return ("concept", *(_NAMED[sink] if isinstance(sink, str) else ("sink",) if np.ndim(sink) == 4 else ()))


def shaped(values: Any, sink: Sink, grid: Grid) -> Any:
    """Bring a tensor or array ``[concept, sink]`` to `sink_dims`."""
    sizes = {"frame": grid[0], "y": grid[1], "x": grid[2], "sink": values.shape[1]}
    return values.reshape(values.shape[0], *(sizes[dim] for dim in sink_dims(sink)[1:]))


def certificate_of(flow: FlowResult, sink: Sink, grid: Grid) -> Coords:
    """Coordinates that say why a flow is right and where it is cut.

    Returns
    -------
    dict
        ``cut``: capacity of the minimum cut. ``gap``: its relative distance to the flow. ``saturated``: ``source`` if the flow is
        all that the concept injects (summed cross-attention), ``sink`` if it is all that the sink takes in, ``no`` if it says
        more than either. ``cut_kind``, ``cut_layer``: kind and module of the place that holds most of the cut; ``cut_share``: its
        part of the cut.
    """
    places = flow.main_place().cpu().numpy()
    at_most = flow.location.max(-1).values / flow.cut_value.clamp(min=torch.finfo(torch.float64).tiny)
    found = {
        "cut": flow.cut_value.cpu().numpy(),
        "gap": flow.gap.cpu().numpy(),
        "saturated": np.array(flow.saturated_names()),
        "cut_kind": np.array([kind for kind, _ in flow.places])[places],
        "cut_layer": np.array([module for _, module in flow.places])[places],
        "cut_share": at_most.cpu().numpy(),
    }
    return {name: (sink_dims(sink), shaped(values, sink, grid)) for name, values in found.items()}


@register_method(
    "max_flow",
    exact=True,
    differentiable=True,
    cost="a max flow for each concept and sink; most meet a trivial cut after one pass over all weights",
    products=30,
    references="arXiv 2005.00928, arXiv 2407.06182",
)
def max_flow(
    problem: Problem,
    sink: Sink = "token",
    scope: Literal["network", "subgraph"] = "network",
    bracket: bool | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Answer:
    """Exact maximum flow from a concept to each sink, with the cut that certifies it.

    Parameters
    ----------
    problem : Problem
        Stages and concepts.
    sink : {"video", "frame", "token"} or array
        One sink for the whole video, one for each frame or video token, or a mask ``[frame, y, x]`` on the token grid (several
        stacked).
    scope : {"network", "subgraph"}
        All stages as one graph, or the mean over the groups of `subgraph_flow`.
    bracket : bool, optional
        Answer without a solver on the whole graph: the influence is a certified lower bound, with coordinates ``upper``, ``gap``
        and ``exact``. By default so where the graph has too many edges for memory, and exactly elsewhere.
    threads : int, optional
        Flows solved at once.
    progress : callable, optional
        Called as ``progress(done, total)`` while flows are solved; what it raises stops the run.

    Returns
    -------
    Answer
        Dimensions ``concept`` and ``()``, ``frame``, ``(frame, y, x)`` or ``sink``; coordinates as in `certificate_of`. A value
        saturated at the source or at the sink says nothing beyond summed cross-attention or the softmax, and carries no gradient
        at the sink.
    """
    sinks = sinks_of(sink, problem.grid)
    if scope not in ("network", "subgraph"):
        raise InputError(f"scope: expected 'network' or 'subgraph'; got {scope!r}.")
    parts = [list(problem.stages)] if scope == "network" else [_group(*group) for group in groups_of(problem.stages)]
    streamed = [OperatorGraph.from_stages(stages, rho=problem.rho, residual=problem.residual) for stages in parts]
    dims = sink_dims(sink)
    if bracket is None:
        bracket = max(sum(link.edge_count for link in graph.links) for graph in streamed) > _LARGEST_GRAPH
    if bracket:
        ends = [flow_bracket(graph, problem.tokens, sinks, progress=progress) for graph in streamed]
        found = FlowBracket(*(torch.stack([getattr(pair, end) for pair in ends]).mean(0) for end in ("lower", "upper")))
        bounds = {"upper": found.upper, "gap": found.gap, "exact": found.exact}
        coords = {name: (dims, shaped(value, sink, problem.grid).cpu().numpy()) for name, value in bounds.items()}
        return Answer(shaped(found.lower, sink, problem.grid), dims, coords, {"bound": "lower; see the coordinate upper"})
    graphs = [LayeredGraph.from_stages(stages, rho=problem.rho, residual=problem.residual) for stages in parts]
    flows = [
        flow_of_graph(graph, problem.tokens, sinks, threads=threads, progress=progress, keep_sides=False) for graph in graphs
    ]
    value = shaped(torch.stack([flow.value for flow in flows]).mean(0), sink, problem.grid)
    coords = _merge([certificate_of(flow, sink, problem.grid) for flow in flows])
    return Answer(value, dims, coords)


def _group(cross: Stage, after: Sequence[Stage]) -> list[Stage]:
    """Stages of one group as a graph of their own.

    Of a joint site only its text columns inject and of the site after it only the video rows carry on, so they become a cross and
    a space-time stage: the group is then the one that `subgraph_flow` takes.
    """
    reads = cross.text_columns(range(cross.tokens)).reshape(cross.grid[0], -1, cross.tokens)
    return [Stage("cross", cross.module, cross.order, cross.grid, reads), *(stage.video_only() for stage in after)]


def _merge(certificates: list[Coords]) -> Coords:
    """One certificate for the mean over groups: mean cut, largest gap, and where the groups differ, ``mixed``."""
    first = certificates[0]
    if len(certificates) == 1:
        return first
    merged: Coords = {}
    for name, (dims, values) in first.items():
        every = np.stack([certificate[name][1] for certificate in certificates])
        if name in ("cut", "cut_share"):
            merged[name] = (dims, every.mean(0))
        elif name == "gap":
            merged[name] = (dims, np.take_along_axis(every, np.abs(every).argmax(0)[None], 0)[0])
        elif name != "cut_layer":
            merged[name] = (dims, np.where((every == values).all(0), values, "mixed"))
    return merged
