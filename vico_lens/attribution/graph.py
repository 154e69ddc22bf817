"""The attention graph of one denoising step: blocks of capacities, exact flow on them, and networkx for small graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from vico_lens.attribution.facade import Concepts, resolve_concepts
from vico_lens.attribution.methods.max_flow import Sink, certificate_of, shaped, sink_dims, sinks_of
from vico_lens.attribution.trace_stages import GridChoice, stages_from_trace
from vico_lens.errors import InputError
from vico_lens.kernels.layered import Block, LayeredGraph
from vico_lens.kernels.maxflow import max_flow
from vico_lens.kernels.stages import Grid, Heads, Stage, resample
from vico_lens.store.selection import Layers, matches, text_coordinate

if TYPE_CHECKING:
    import networkx as nx

    from vico_lens.attribution.base import Residual

__all__ = ["AttentionGraph"]

Node = tuple[Any, ...]


@dataclass(frozen=True)
class AttentionGraph:
    """Layered directed graph of attention: text and video tokens at every layer boundary, capacities from attention weights.

    The graph is held as dense blocks, one or two a site, never as edge objects: a site of 640 video tokens costs what its weights
    cost.

    Attributes
    ----------
    stages : tuple of Stage
        Attention sites in execution order, on one grid.
    labels : tuple of str
        Text of each token.
    rho, residual
        How capacities come from weights, see `vico_lens.attribute`.
    tree : DataTree, optional
        The trace it came from, to look concepts up.
    step : int, optional
        Denoising step.
    prompt : int, optional
        Row of a batched trace.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> graph = AttentionGraph.from_trace(fake_trace(), step=1, grid="coarsest")
    >>> graph.grid, len(graph.stages)
    ((4, 2, 2), 6)
    >>> graph.max_flow(["red circle"], sink="frame").sizes["frame"]
    4
    """

    stages: tuple[Stage, ...]
    labels: tuple[str, ...]
    rho: float = 0.5
    residual: Residual = "share"
    tree: xr.DataTree | None = None
    step: int | None = None
    prompt: int | None = None

    @classmethod
    def from_trace(
        cls,
        tree: xr.DataTree,
        step: int,
        *,
        layers: Layers = None,
        heads: Heads = None,
        grid: GridChoice = "finest",
        rho: float = 0.5,
        residual: Residual = "share",
        branch: str | None = None,
        prompt: int | None = None,
    ) -> AttentionGraph:
        """Build the graph of one step of a trace; parameters and errors as in `vico_lens.attribute`."""
        stages = stages_from_trace(tree, step, layers=layers, heads=heads, grid=grid or "finest", branch=branch, prompt=prompt)
        texts = text_coordinate(tree, "token_text", prompt)
        labels = tuple(str(text) for text in texts)
        return cls.from_stages(stages, labels, rho=rho, residual=residual, tree=tree, step=step, prompt=prompt)

    @classmethod
    def from_stages(cls, stages: Sequence[Stage], labels: Sequence[str] = (), **settings: Any) -> AttentionGraph:
        """Build the graph of stages on one grid, from a trace or from live calls; tokens without labels get their number."""
        graph = cls(tuple(stage.having(stage.weights) for stage in stages), tuple(labels), **settings)
        count = graph.blocks.tokens
        if not labels:
            return replace(graph, labels=tuple(str(token) for token in range(count)))
        if len(labels) != count:
            raise InputError(f"labels: expected one for each of the {count} text tokens; got {len(labels)}.")
        return graph

    @property
    def grid(self) -> Grid:
        """Frames, rows and columns of the video tokens."""
        return self.stages[0].grid

    @property
    def blocks(self) -> LayeredGraph:
        """The capacities, as the flow kernels take them."""
        return LayeredGraph.from_stages(self.stages, rho=self.rho, residual=self.residual)

    def summary(self) -> xr.Dataset:
        """Describe each stage: kind, module, edges, mean and largest capacity, and capacity injected from text.

        Returns
        -------
        Dataset
            Dimension ``stage``; attributes count nodes and edges of the whole graph.
        """
        blocks = self.blocks
        capacities = [[block.capacity for block in link.blocks] for link in blocks.links]
        injected = [0.0 if link.injection is None else float(link.injection.sum()) for link in blocks.links]
        counts = [sum(part.numel() for part in parts) for parts in capacities]
        return xr.Dataset(
            {
                "kind": ("stage", [stage.kind for stage in self.stages]),
                "module": ("stage", [stage.module for stage in self.stages]),
                "edges": ("stage", counts),
                "mean_capacity": (
                    "stage",
                    [sum(float(part.sum()) for part in parts) / count for parts, count in zip(capacities, counts, strict=True)],
                ),
                "largest_capacity": ("stage", [max(float(part.max()) for part in parts) for parts in capacities]),
                "injected": ("stage", injected),
            },
            coords={"stage": [stage.order for stage in self.stages]},
            attrs={
                "grid": "x".join(map(str, self.grid)),
                "text_tokens": blocks.tokens,
                "nodes": sum(blocks.widths) + (0 if blocks.text else blocks.tokens),
                "edges": blocks.edges,
                "rho": self.rho,
                "residual": self.residual,
            },
        )

    def subgraph(self, layers: Layers = None, *, grid: Grid | None = None) -> AttentionGraph:
        """Keep only some stages, or look at a coarser grid.

        Parameters
        ----------
        layers : str, int or sequence of them, optional
            Glob patterns on module path or group, or places in the execution order.
        grid : tuple of int, optional
            Grid to bring the stages to.
        """
        kept = [stage for stage in self.stages if layers is None or matches(stage, layers)]
        if not kept:
            have = ", ".join(f"{stage.order} {stage.module}" for stage in self.stages)
            raise InputError(f"layers={layers!r} selects none of the stages: {have}.")
        if grid is not None:
            kept = [moved.having(moved.weights) for moved in (resample(stage, grid) for stage in kept)]
        return replace(self, stages=tuple(kept))

    def merge_text(self, kept: Sequence[int]) -> AttentionGraph:
        """Look at some text tokens only: all others become one, the last.

        Where text lives through the layers its rows are averaged and its columns added, as a coarser grid does with the video, so
        every row keeps its sum.

        Parameters
        ----------
        kept : sequence of int
            Tokens that stay, in this order.
        """
        count = len(self.labels)
        into = torch.zeros(count, len(kept) + 1)
        into[:, -1] = 1
        into[list(kept)] = torch.eye(len(kept) + 1)[:-1]
        if not bool(into[:, -1].any()):
            into = into[:, :-1]
        labels = [self.labels[token] for token in kept] + ["other text"] * (into.shape[1] - len(kept))
        return replace(self, stages=tuple(_text_merged(stage, into) for stage in self.stages), labels=tuple(labels))

    def max_flow(self, concepts: Concepts = None, sink: Sink = "video", *, threads: int | None = None) -> xr.Dataset:
        """Exact maximum flow from each concept to each sink, with its certificate.

        Returns
        -------
        Dataset
            ``value``, ``cut``, ``gap``, ``saturated``, ``cut_kind``, ``cut_layer``, ``cut_share`` with dimensions ``concept`` and
            those of the sink, see `vico_lens.attribution.methods.max_flow`; ``cut_by_place`` splits the cut over the edges
            from the source, each stage, and the edges into the sink.
        """
        named = self.named_tokens(concepts)
        flow = max_flow(self.blocks, list(named.values()), sinks_of(sink, self.grid), threads=threads)
        dims = sink_dims(sink)
        value = shaped(flow.value.detach().cpu().numpy(), sink, self.grid)
        place = np.stack([shaped(part, sink, self.grid) for part in flow.location.cpu().numpy().transpose(2, 0, 1)], -1)
        return xr.Dataset(
            {"value": (dims, value), **certificate_of(flow, sink, self.grid), "cut_by_place": ((*dims, "place"), place)},
            coords={
                "concept": list(named),
                "place": [module or kind for kind, module in flow.places],
                "place_kind": ("place", [kind for kind, _ in flow.places]),
            },
            attrs={"grid": "x".join(map(str, self.grid)), "rho": self.rho, "residual": self.residual},
        )

    def named_tokens(self, concepts: Concepts) -> dict[str, tuple[int, ...]]:
        """Names and tokens of what was asked for."""
        if self.tree is not None:
            return resolve_concepts(self.tree, concepts, self.prompt)
        if isinstance(concepts, dict):
            return {name: tuple(tokens) for name, tokens in concepts.items()}
        raise InputError("this graph knows no prompt: name concepts with their tokens, {'red circle': [1, 2]}.")

    def to_networkx(self, concepts: Concepts = None, sink: Sink | None = "video", *, most_edges: int = 200_000) -> nx.DiGraph:
        """Write the graph out as a ``networkx.DiGraph``, for small graphs and for drawing.

        Parameters
        ----------
        concepts : optional
            Concepts to add a super-source for, ``("source", name)``, with unbounded edges to its tokens. A graph without a prompt
            needs names with tokens; `None` there adds no sources.
        sink : {"video", "frame", "token"}, mask or None
            Sinks to add, ``("sink", index)``; each output video token reaches its sink with capacity 1.
        most_edges : int
            Refuse a larger graph: a Python object an edge takes about a kilobyte.

        Returns
        -------
        networkx.DiGraph
            Nodes ``("text", layer, token)`` and ``("video", layer, index)`` that text can reach, with attributes ``kind``,
            ``layer`` (0 is text), ``label``, and for video ``frame``, ``y``, ``x``; edges with ``capacity`` above 0 (none means
            unbounded).
        """
        import networkx as nx

        blocks = self.blocks
        if blocks.edges > most_edges:
            raise InputError(
                f"this graph has {blocks.edges} edges, more than most_edges={most_edges}. Use subgraph(layers=..., grid=...), or "
                "max_flow, which needs no edge objects."
            )
        graph = nx.DiGraph(grid=self.grid, step=self.step, rho=self.rho, residual=self.residual)
        named = {} if concepts is None and self.tree is None else self.named_tokens(concepts)
        for name, tokens in named.items():
            graph.add_node(("source", name), kind="source", layer=0, concept=name, label=name)
            graph.add_edges_from((("source", name), ("text", 0, token)) for token in tokens)
        graph.add_edges_from(_edges(blocks))
        reached = set(graph.nodes) & {("text", 0, token) for token in range(blocks.tokens)}
        reached |= set().union(*(nx.descendants(graph, node) for node in reached)) | {("source", name) for name in named}
        graph.remove_nodes_from([node for node in graph if node not in reached])
        if sink is not None:
            outlets = blocks.sink(sinks_of(sink, self.grid))[:, blocks.text :]
            for index, row in enumerate(outlets.detach().numpy()):
                graph.add_node(("sink", index), kind="sink", layer=len(self.stages) + 1, label=f"sink {index}")
                nodes = [
                    (("video", len(self.stages), int(node)), ("sink", index), {"capacity": float(row[node])})
                    for node in np.flatnonzero(row)
                ]
                graph.add_edges_from(edge for edge in nodes if edge[0] in graph)
        self._describe(graph, named)
        return graph

    def _describe(self, graph: nx.DiGraph, named: dict[str, tuple[int, ...]]) -> None:
        """Add what figures need to know of each node."""
        _, rows, columns = self.grid
        belongs = {token: name for name, tokens in named.items() for token in tokens}
        for node, data in graph.nodes(data=True):
            if node[0] == "text":
                data.update(kind="token", layer=node[1], label=self.labels[node[2]])
                if node[2] in belongs:
                    data["concept"] = belongs[node[2]]
            elif node[0] == "video":
                frame, place = divmod(node[2], rows * columns)
                data.update(kind="video", layer=node[1], frame=frame, y=place // columns, x=place % columns)
                data["label"] = f"frame {frame} ({data['y']}, {data['x']})"


def _text_merged(stage: Stage, into: Tensor) -> Stage:
    """A stage whose text tokens are joined as ``[token, new token]`` says."""
    if not stage.tokens:
        return stage
    weights = stage.weights
    into = into.to(weights)
    if stage.kind == "cross":
        return stage.having(weights @ into)
    video = torch.eye(len(weights) - stage.tokens, dtype=weights.dtype, device=weights.device)
    rows = torch.block_diag((into / into.sum(0)).T, video)  # type: ignore[no-untyped-call]
    columns = torch.block_diag(into, video)  # type: ignore[no-untyped-call]
    return stage.having(rows @ weights @ columns)


def _edges(blocks: LayeredGraph) -> Iterator[tuple[Node, Node, dict[str, float]]]:
    """Every edge with a capacity above 0: (source, target, {"capacity": ..})."""
    for level, link in enumerate(blocks.links):
        for block in link.blocks:
            sources, targets = _members(block, 1), _members(block, 2)
            capacity = block.capacity.detach().numpy()
            for group, row, column in zip(*np.nonzero(capacity), strict=True):
                tail = _node(blocks, level, int(sources[group, row]) + block.source)
                head = _node(blocks, level + 1, int(targets[group, column]) + block.target)
                yield tail, head, {"capacity": float(capacity[group, row, column])}
        if link.injection is not None:
            injection = link.injection.detach().numpy()
            for token, node in zip(*np.nonzero(injection), strict=True):
                yield ("text", 0, int(token)), _node(blocks, level + 1, int(node)), {"capacity": float(injection[token, node])}


def _members(block: Block, axis: int) -> Tensor:
    """Node number of every member of every group of a block, ``[group, member]``, before its offset."""
    groups, members = block.capacity.shape[0], block.capacity.shape[axis]
    number = torch.arange(groups * members)
    return number.reshape(members, groups).T if block.interleaved else number.reshape(groups, members)


def _node(blocks: LayeredGraph, level: int, number: int) -> Node:
    return ("text", level, number) if number < blocks.text else ("video", level, number - blocks.text)
