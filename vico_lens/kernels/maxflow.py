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
from vico_lens.kernels.certificate import FlowResult
from vico_lens.kernels.greedy import push_once, sinks_at_once
from vico_lens.kernels.layered import LayeredGraph

__all__ = ["SaturationWarning", "max_flow"]

Progress = Callable[[int, int], None]
Receive = Callable[[int, int, float, Tensor, Tensor], None]
Solve = Callable[[list[tuple[int, int]], dict[int, Tensor], Receive], None]
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
        self.places = (("source", ""), *((link.kind, link.module) for link in graph.links), ("sink", ""))
        self.value = sink.new_zeros(shape)
        self.location = sink.new_zeros(*shape, len(self.places))
        self.saturated = torch.zeros(shape, dtype=torch.int8, device=sink.device)
        self.sides = torch.zeros(*shape, sum(graph.widths), dtype=torch.bool, device=sink.device) if keep_sides else None
        self.at_source = certify.source_location(graph, supply)

    def run(self, solver: Solver, threads: int | None, progress: Progress | None) -> FlowResult:
        done = 0

        def finish(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None and count:
                progress(done, self.value.numel())

        def receive(source: int, sink: int, value: float, location: Tensor, sides: Tensor) -> None:
            self.value[source, sink] = value
            self.location[source, sink] = location
            if self.sides is not None:
                self.sides[source, sink] = sides
            self._settle(slice(source, source + 1), slice(sink, sink + 1), certify.TOLERANCE)
            finish(1)

        solve: Solve | None = None
        for first in range(0, len(self.sink), sinks_at_once(self.graph)):
            part = slice(first, first + sinks_at_once(self.graph))
            self.value[:, part], levels = push_once(self.graph, self.supply, self.sink[part])
            settled = self._settle(slice(None), part, _MET)
            finish(int(settled.sum()))
            flows = [(source, first + sink) for source, sink in (~settled).nonzero().tolist()]
            if flows:
                solve = solve or self._solver(solver, threads)
                solve(flows, {sink: torch.cat([level[sink - first] for level in levels]) for _, sink in flows}, receive)
        result = FlowResult(
            self.value, self.location.sum(-1), self.location, self.saturated, self.places, self.sides, self.graph.widths
        )
        worst = result.gap.abs().max().item()
        if worst > certify.TOLERANCE:
            raise AttributionError(
                f"expected every flow to equal its cut to {certify.TOLERANCE}; the worst is off by {worst:.2e}. Report the graph."
            )
        return result

    def _settle(self, sources: slice, sinks: slice, tolerance: float) -> Tensor:
        """Give flows that meet a trivial cut that cut as their certificate, whoever found them.

        Returns
        -------
        Tensor
            Which do, ``[source, sink]``.
        """
        here, value = (sources, sinks), self.value[sources, sinks]
        sink, intake = self.sink[sinks], self.cuts.intake[sources]
        cut_source, cut_sink = self.cuts.source[sources, None], self.cuts.sink[here]
        at_source = value >= cut_source * (1 - tolerance)
        at_sink = ~at_source & (value >= cut_sink * (1 - tolerance))
        self.saturated[here] = (at_source * certify.SOURCE + at_sink * certify.SINK).to(torch.int8)
        cut = torch.where(at_source, cut_source, torch.where(at_sink, cut_sink, torch.inf))
        self.value[here] = torch.minimum(value, cut)
        if bool(at_source.any()):
            location = self.at_source[sources, None]
            sides = certify.source_sides([level[sources] for level in self.supply])[:, None]
            self._certify(here, at_source, location, sides)
        if bool(at_sink.any()):
            location = certify.sink_location(intake, self.supply[-1][sources], sink, len(self.places))
            self._certify(here, at_sink, location, certify.sink_sides(intake, sink, self.graph.widths))
        return at_source | at_sink

    def _certify(self, here: tuple[slice, slice], which: Tensor, location: Tensor, sides: Tensor) -> None:
        self.location[here] = torch.where(which[..., None], location, self.location[here])
        if self.sides is not None:
            self.sides[here] = torch.where(which[..., None], sides, self.sides[here])

    def _solver(self, solver: Solver, threads: int | None) -> Solve:
        device = self.sink.device
        if solver == "torch" or (solver == "auto" and device.type != "cpu"):
            from vico_lens.kernels.maxflow_batched import solve_batched

            return lambda flows, reach, receive: solve_batched(self.graph, self.supply, self.sink, flows, receive)
        from vico_lens.kernels.maxflow_compiled import CompiledSolver, Solved

        scale = torch.minimum(self.cuts.source[:, None], self.cuts.sink)
        compiled = CompiledSolver(self.graph, self.supply, self.sink, scale, threads=threads or torch.get_num_threads())

        def solve(flows: list[tuple[int, int]], reach: dict[int, Tensor], receive: Receive) -> None:
            def convert(source: int, sink: int, solved: Solved) -> None:
                location, sides = (torch.from_numpy(array).to(device) for array in (solved.location, solved.sides))
                receive(source, sink, solved.value, location, sides)

            compiled.solve(flows, {sink: level.cpu().numpy() for sink, level in reach.items()}, convert)

        return solve


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
