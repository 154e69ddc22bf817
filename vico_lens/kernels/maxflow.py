"""Exact maximum flow on the layered attention graph: value, certificate, gradient.

For every source and sink: first the two trivial cuts and one greedy push of all sources together (matrix products); where the
push meets a trivial cut the flow is known. The rest goes to push-relabel, compiled on the CPU and batched in torch on other
devices. Each answer comes with a minimum cut of equal value, so nobody has to trust the solver.

The flow is differentiable: it grows with the capacities that cross its minimum cut, one for one, and with no others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vico_lens.errors import AttributionError, InputError
from vico_lens.kernels import certificate as certify
from vico_lens.kernels.bounds import push_once
from vico_lens.kernels.certificate import FlowResult
from vico_lens.kernels.layered import LayeredGraph

__all__ = ["SaturationWarning", "max_flow"]

Progress = Callable[[int, int], None]
Receive = Callable[[int, int, float, Tensor, Tensor], None]
Solver = Literal["auto", "compiled", "torch"]

_LARGEST_SIDES = 1 << 31

# Relative difference at which a greedy push counts as having met a cut: rounding of sums of many terms, no more.
_MET = 1e-12


class SaturationWarning(UserWarning):
    """A gradient was asked of flows that are all cut at the sink: through a softmax it is zero."""


def max_flow(
    graph: LayeredGraph,
    sources: Sequence[Sequence[int]] | None = None,
    sinks: str | Tensor = "video",
    *,
    solver: Solver = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    keep_sides: bool = True,
) -> FlowResult:
    """Exact flow from every source to every sink, in float64, with its certificate.

    Parameters
    ----------
    graph : LayeredGraph
        Where its capacities require a gradient, so does the value.
    sources : sequence of sequence of int, optional
        Text tokens of each source, joined by a super-source; every token by default.
    sinks : {"video", "frame", "token"} or Tensor
        As in `LayeredGraph.sink`. Every output video token reaches its sink with capacity at most 1.
    solver : {"auto", "compiled", "torch"}
        ``auto``: compiled for CPU tensors, torch for others.
    threads : int, optional
        Flows solved at once by the compiled solver; as many as torch uses by default.
    progress : callable, optional
        Called as ``progress(done, total)`` after each batch of flows, in the calling thread. What it raises stops the run.
    keep_sides : bool
        Keep the side of every node for every flow; a byte each.

    Returns
    -------
    FlowResult

    Raises
    ------
    InputError
        If sources or sinks are not the graph's, or the sides would not fit 2 GiB.
    AttributionError
        If a certificate does not close to 1e-9: a fault of the solver, never a wrong number.

    References
    ----------
    Abnar & Zuidema, arXiv 2005.00928; definition 1 of arXiv 2407.06182.

    Examples
    --------
    >>> from vico_lens.kernels.stages import Stage
    >>> cross = Stage("cross", "attn2", 0, (2, 1, 1), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]))
    >>> time = Stage("temporal", "motion", 1, (2, 1, 1), torch.tensor([[[0.6, 0.4], [0.5, 0.5]]]))
    >>> result = max_flow(LayeredGraph.from_stages([cross, time]), sinks="frame")
    >>> result.value
    tensor([[0.5500, 0.3500],
            [0.2500, 0.4500]], dtype=torch.float64)
    >>> result.saturated_names()
    [['source', 'no'], ['no', 'source']]
    """
    if solver not in ("auto", "compiled", "torch"):
        raise InputError(f"solver: expected 'auto', 'compiled' or 'torch'; got {solver!r}.")
    exact = graph.to(torch.float64)
    supply, sink = exact.supply(sources), exact.sink(sinks)
    tracked = [*(block.capacity for link in exact.links for block in link.blocks), *supply]
    attached = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tracked)
    size = len(supply[0]) * len(sink) * sum(exact.widths)
    if (keep_sides or attached) and size > _LARGEST_SIDES:
        raise InputError(
            f"the sides of {len(supply[0])} x {len(sink)} flows would take {size / 2**30:.1f} GiB, over 2. "
            "Pass keep_sides=False, or fewer sources or sinks at once."
        )
    with torch.no_grad():
        result = _Run(exact, [level.detach() for level in supply], sink, keep_sides or attached).run(solver, threads, progress)
    if not attached:
        return result
    value: Tensor = _MaxFlow.apply(exact, result, *tracked)  # type: ignore[no-untyped-call]
    return replace(result, value=value, sides=result.sides if keep_sides else None)


class _Run:
    """The flows of one call while their results come in."""

    def __init__(self, graph: LayeredGraph, supply: list[Tensor], sink: Tensor, keep_sides: bool) -> None:
        self.graph, self.supply, self.sink = graph, supply, sink
        shape = (len(supply[0]), len(sink))
        self.cuts = certify.trivial_cuts(graph, supply, sink)
        self.source_cut: list[float] = self.cuts.source.tolist()
        self.sink_cut: list[list[float]] = self.cuts.sink.tolist()
        self.places = (("source", ""), *((link.kind, link.module) for link in graph.links), ("sink", ""))
        self.value = sink.new_zeros(shape)
        self.location = sink.new_zeros(*shape, len(self.places))
        self.saturated = torch.zeros(shape, dtype=torch.int8, device=sink.device)
        self.sides = torch.zeros(*shape, sum(graph.widths), dtype=torch.bool, device=sink.device) if keep_sides else None
        self.at_source = certify.source_location(graph, supply)

    def run(self, solver: Solver, threads: int | None, progress: Progress | None) -> FlowResult:
        sources, sinks = self.value.shape
        total = sources * sinks
        waiting: list[tuple[int, int]] = []
        reach: list[list[Tensor]] = []
        for sink in range(sinks):
            pushed, levels = push_once(self.graph, self.supply, self.sink[sink : sink + 1])
            reach.append(levels)
            for source, value in enumerate(pushed[:, 0].tolist()):
                if not self._settle(source, sink, value, _MET):
                    waiting.append((source, sink))
            if progress is not None:
                progress(total - len(waiting) - (sinks - sink - 1) * sources, total)
        done = total - len(waiting)

        def receive(source: int, sink: int, value: float, location: Tensor, sides: Tensor) -> None:
            nonlocal done
            if not self._settle(source, sink, value, certify.TOLERANCE):
                self.value[source, sink] = value
                self.location[source, sink] = location
                if self.sides is not None:
                    self.sides[source, sink] = sides
            done += 1
            if progress is not None:
                progress(done, total)

        if waiting:
            self._solve(waiting, reach, solver, threads, receive)
        result = FlowResult(
            self.value, self.location.sum(-1), self.location, self.saturated, self.places, self.sides, self.graph.widths
        )
        worst = result.gap.abs().max().item()
        if worst > certify.TOLERANCE:
            raise AttributionError(
                f"expected every flow to equal its cut to {certify.TOLERANCE}; the worst is off by {worst:.2e}. Report the graph."
            )
        return result

    def _settle(self, source: int, sink: int, value: float, tolerance: float) -> bool:
        """Give a flow that meets a trivial cut that cut as its certificate, whichever solver found it."""
        for code, cut in ((certify.SOURCE, self.source_cut[source]), (certify.SINK, self.sink_cut[source][sink])):
            if value < cut * (1 - tolerance):
                continue
            self.saturated[source, sink] = code
            row = self.sink[sink]
            if code == certify.SOURCE:
                location = self.at_source[source]
                sides = certify.source_sides([level[source] for level in self.supply])
            else:
                location = certify.sink_location(self.cuts, self.supply, row, source, len(self.places))
                sides = certify.sink_sides(self.cuts, self.graph.widths, row, source)
            self.value[source, sink] = min(value, cut)
            self.location[source, sink] = location
            if self.sides is not None:
                self.sides[source, sink] = sides
            return True
        return False

    def _solve(
        self, flows: list[tuple[int, int]], reach: list[list[Tensor]], solver: Solver, threads: int | None, receive: Receive
    ) -> None:
        device = self.sink.device
        if solver == "torch" or (solver == "auto" and device.type != "cpu"):
            from vico_lens.kernels.maxflow_batched import solve_batched

            solve_batched(self.graph, self.supply, self.sink, flows, receive)
            return
        from vico_lens.kernels.maxflow_compiled import CompiledSolver, Solved

        def convert(source: int, sink: int, solved: Solved) -> None:
            location, sides = (torch.from_numpy(array).to(device) for array in (solved.location, solved.sides))
            receive(source, sink, solved.value, location, sides)

        scale = torch.minimum(self.cuts.source[:, None], self.cuts.sink).cpu().numpy()
        levels = [torch.cat(level) for level in zip(*reach, strict=True)]
        solving = CompiledSolver(self.graph, self.supply, self.sink, levels)
        solving.solve(flows, scale, convert, threads=threads or torch.get_num_threads())


class _MaxFlow(torch.autograd.Function):
    """Attach a solved flow to the capacities it came from."""

    @staticmethod
    def forward(ctx: Any, graph: LayeredGraph, result: FlowResult, *tracked: Tensor) -> Tensor:
        ctx.graph, ctx.result = graph, result
        return result.value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        graph, result = ctx.graph, ctx.result
        asked = grad != 0
        if bool(asked.any()) and bool((result.saturated[asked] == certify.SINK).all()):
            warnings.warn(
                "every flow a gradient was asked of is cut at the sink: its value is what the softmax lets the sink take in, and "
                "through the softmax the gradient is zero. Use fewer sites, a smaller rho, or the flow of a sub-graph.",
                SaturationWarning,
                stacklevel=2,
            )
        levels = [side.flatten(0, 1).to(grad) for side in result.sides.split(result.widths, -1)]
        weight = grad.reshape(-1, 1)
        grads: list[Tensor | None] = [None, None]
        for level, link in enumerate(graph.links):
            for block in link.blocks:
                above = block.gather_sources(levels[level] * weight).permute(1, 2, 0)
                below = block.gather_targets(1 - levels[level + 1]).movedim(0, 1)
                grads.append(torch.matmul(above, below))
        for side in levels:
            grads.append(((1 - side) * weight).reshape(*grad.shape, -1).sum(1))
        return tuple(grads)
