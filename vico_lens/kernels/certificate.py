"""What an exact flow returns: its value, and the minimum cut that proves it.

A flow can never exceed any cut, so a cut of the same value proves that both are optimal. Where the cut lies says what the
number means. Cut at the source, the flow is the sum of what the token injects: summed cross-attention, nothing more. Cut at the
sink, it is what the softmax lets any video token take in. Between the two, it says something that neither of them knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vico_lens.kernels.layered import LayeredGraph

__all__ = ["NEITHER", "SATURATED", "SINK", "SOURCE", "FlowResult", "TrivialCuts", "trivial_cuts"]

SATURATED = ("no", "source", "sink")
"""Names of the codes in `FlowResult.saturated`."""

NEITHER, SOURCE, SINK = range(3)

TOLERANCE = 1e-9
"""Relative difference below which a flow counts as equal to a cut."""

CLOSED = TOLERANCE / 10
"""Relative difference at which a solver stops to look for more."""

FINEST = 1e-300
"""Excess that no solver chases: below it float64 loses its digits."""


@dataclass(frozen=True)
class FlowResult:
    """Exact flow from every source to every sink, with its certificate. Tensors are float64, on the graph's device.

    Attributes
    ----------
    value : Tensor
        Maximum flow ``[source, sink]``; part of the autograd graph when a capacity is.
    cut_value : Tensor
        Capacity of the minimum cut found, ``[source, sink]``.
    location : Tensor
        The cut by place, ``[source, sink, place]``; see `places`.
    saturated : Tensor
        Codes ``[source, sink]``, int8: index into `SATURATED`. At the source, the flow is the sum of the source's edges; at the
        sink, the sum of the sink tokens' intake.
    places : tuple of (str, str)
        Kind and module of each place: edges from the source, each site in order, edges into the sink.
    sides : Tensor or None
        ``[source, sink, node]``, True on the source side; nodes level by level. None if it was not kept.
    widths : tuple of int
        Nodes of each level, to split `sides`.
    """

    value: Tensor
    cut_value: Tensor
    location: Tensor
    saturated: Tensor
    places: tuple[tuple[str, str], ...]
    sides: Tensor | None
    widths: tuple[int, ...]

    @property
    def gap(self) -> Tensor:
        """``(cut - value) / cut``, ``[source, sink]``; 0 where the cut is 0."""
        gap = self.cut_value - self.value.detach()
        return torch.where(self.cut_value > 0, gap / self.cut_value.clamp(min=torch.finfo(gap.dtype).tiny), gap)

    def saturated_names(self) -> list[list[str]]:
        """`saturated` in words: ``"no"``, ``"source"`` or ``"sink"`` for each source and sink."""
        return [[SATURATED[code] for code in row] for row in self.saturated.tolist()]

    def cut_by_kind(self) -> dict[str, Tensor]:
        """The cut by kind of site (``source``, ``cross``, ``temporal``, .., ``sink``), each ``[source, sink]``."""
        kinds = [kind for kind, _ in self.places]
        return {
            kind: self.location[..., [place for place, other in enumerate(kinds) if other == kind]].sum(-1)
            for kind in dict.fromkeys(kinds)
        }

    def main_place(self) -> Tensor:
        """Index into `places` of the place that holds most of the cut, ``[source, sink]``."""
        return self.location.argmax(-1)

    def side(self, level: int) -> Tensor:
        """Sides of one level's nodes, ``[source, sink, node]``."""
        if self.sides is None:
            raise ValueError("the sides of the cut were not kept; ask for them with keep_sides=True.")
        first = sum(self.widths[:level])
        return self.sides[..., first : first + self.widths[level]]


@dataclass(frozen=True)
class TrivialCuts:
    """The two cuts that need no solver: just after the source, and just before the sink.

    Attributes
    ----------
    source : Tensor
        ``[source]``: sum of the source's edges; where a source is a text node, of that node's edges.
    sink : Tensor
        ``[source, sink]``: for each token of the sink, the smaller of its edge to the sink and all edges into it.
    intake : Tensor
        ``[source, node]``: all edges into each node of the last level.
    """

    source: Tensor
    sink: Tensor
    intake: Tensor


def trivial_cuts(graph: LayeredGraph, supply: Sequence[Tensor], sink: Tensor) -> TrivialCuts:
    """Both trivial cuts of every flow."""
    source = _injected(supply)
    if graph.text:
        source = source + torch.where(torch.isinf(supply[0]), _leaving(graph), 0.0).sum(1)
    last = graph.links[-1]
    intake = last.join([block.capacity.sum(-2) for block in last.blocks]) + supply[-1]
    rows = [torch.minimum(intake, row).sum(1) for row in sink]
    return TrivialCuts(source, torch.stack(rows, 1), intake)


def _injected(supply: Sequence[Tensor]) -> Tensor:
    """All edges of bounded capacity from each source, ``[source]``; only text nodes of level 0 have others."""
    total = torch.where(torch.isinf(supply[0]), 0.0, supply[0]).sum(1)
    for level in supply[1:]:
        total = total + level.sum(1)
    return total


def _leaving(graph: LayeredGraph) -> Tensor:
    """All edges out of each node of level 0."""
    return graph.links[0].join([block.capacity.sum(-1) for block in graph.links[0].blocks])


def source_location(graph: LayeredGraph, supply: Sequence[Tensor]) -> Tensor:
    """The cut after the source by place, ``[source, place]``."""
    location = supply[0].new_zeros(len(supply[0]), len(graph.links) + 2)
    location[:, 0] = _injected(supply)
    if graph.text:
        location[:, 1] = torch.where(torch.isinf(supply[0]), _leaving(graph), 0.0).sum(1)
    return location


def sink_location(intake: Tensor, injected: Tensor, sink: Tensor, places: int) -> Tensor:
    """The cut before each sink by place, ``[source, sink, place]``.

    Parameters
    ----------
    intake, injected : Tensor
        ``[source, node]`` of the last level: all edges in, and those of them that come from the source itself.
    sink : Tensor
        ``[sink, node]``.
    places : int
        Length of the result's last axis.
    """
    edges_in = (sink > 0) & (sink > intake[:, None])
    location = sink.new_zeros(len(intake), len(sink), places)
    location[..., 0] = torch.where(edges_in, injected[:, None], 0.0).sum(-1)
    location[..., -1] = torch.where(edges_in, 0.0, sink).sum(-1)
    location[..., -2] = torch.where(edges_in, intake[:, None], 0.0).sum(-1) - location[..., 0]
    return location


def source_sides(supply: Sequence[Tensor]) -> Tensor:
    """Sides under the cut after the source, ``[source, node]``: only text nodes that are sources themselves are on its side."""
    return torch.isinf(torch.cat(list(supply), -1))


def sink_sides(intake: Tensor, sink: Tensor, widths: Sequence[int]) -> Tensor:
    """Sides under the cut before each sink, ``[source, sink, node]`` over all levels.

    All nodes are on the source's side but the sink's tokens whose edges in are cut.
    """
    last = sink <= intake[:, None]
    sides = last.new_ones(*last.shape[:2], sum(widths))
    sides[..., -widths[-1] :] = last
    return sides
