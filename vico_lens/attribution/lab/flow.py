"""Maximum flow by hand: push along one augmenting path after the other, and read the minimum cut when none is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Literal

from vico_lens.attribution.lab.network import VIDEO, Edge, Network
from vico_lens.errors import InputError

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["Cut", "Flow", "Path", "Saturated"]

Saturated = Literal["no", "source", "sink"]

_ENOUGH = 400  # paths looked at before the widest are chosen; a network that a person can read has fewer


@dataclass(frozen=True, slots=True)
class Path:
    """One way through the residual graph.

    Attributes
    ----------
    nodes : tuple of str
        From the concept to the video.
    amount : Fraction
        The most it can carry: its smallest residual capacity.
    undone : tuple of (str, str)
        Edges of the network that it crosses backwards, which takes flow away from them.
    """

    nodes: tuple[str, ...]
    amount: Fraction
    undone: tuple[Edge, ...] = ()

    def __str__(self) -> str:
        return " → ".join(self.nodes)


@dataclass(frozen=True, slots=True)
class Cut:
    """A minimum cut: the proof that no flow is larger.

    Attributes
    ----------
    edges : tuple of (str, str)
        From the source side to the sink side.
    capacity : Fraction
        Their sum.
    source_side : frozenset of str
        Nodes that cannot reach the video any more. Of several minimum cuts this is the one nearest to the video, as in
        `vico_lens.attribute`.
    saturated : {"no", "source", "sink"}
        Whether its value is that of a trivial cut: the sum of the concept's edges, or of what the last tokens can take in.
    """

    edges: tuple[Edge, ...]
    capacity: Fraction
    source_side: frozenset[str]
    saturated: Saturated


@dataclass(frozen=True)
class Flow:
    """A feasible flow of one concept; pushing gives a new one.

    Attributes
    ----------
    network : Network
    concept : str
        Its source.
    amounts : mapping of (str, str) to Fraction
        Flow on edges that carry any.

    Examples
    --------
    >>> edges = {("cat", "a1"): 0.3, ("a1", "a2"): 0.5, ("cat", "a2"): 0.1}
    >>> flow = Flow(Network.of(["cat"], [["a1"], ["a2"]], edges), "cat")
    >>> str(flow.paths()[0])
    'cat → a1 → a2 → video'
    >>> full = flow.push(flow.paths()[0]).push_all()
    >>> full.value, full.cut().saturated
    (Fraction(2, 5), 'source')
    """

    network: Network
    concept: str
    amounts: Mapping[Edge, Fraction] = field(default_factory=dict)

    @cached_property
    def edges(self) -> dict[Edge, Fraction]:
        """Edges this flow may use, with their capacities."""
        return self.network.edges_of(self.concept)

    @property
    def value(self) -> Fraction:
        """What arrives at the video."""
        return sum((amount for (_, head), amount in self.amounts.items() if head == VIDEO), Fraction(0))

    @cached_property
    def residual(self) -> dict[Edge, Fraction]:
        """What can still be sent between two nodes: capacity that is left, or flow that can be taken back."""
        forward = {edge: capacity - self.amounts.get(edge, 0) for edge, capacity in self.edges.items()}
        backward = {(head, tail): amount for (tail, head), amount in self.amounts.items()}
        # The network is layered, so no pair of nodes has an edge both ways and the two never meet.
        return {edge: left for edge, left in (forward | backward).items() if left > 0}

    def paths(self, most: int = 8) -> list[Path]:
        """Augmenting paths, the widest first and of equal ones the shortest; none exactly when the flow is a maximum flow."""
        import networkx as nx

        graph = nx.DiGraph(list(self.residual))
        if self.concept not in graph or VIDEO not in graph:
            return []
        found = [self._path(tuple(nodes)) for nodes in islice(nx.all_simple_paths(graph, self.concept, VIDEO), _ENOUGH)]
        return sorted(found, key=lambda path: (-path.amount, len(path.nodes), path.nodes))[:most]

    def _path(self, nodes: tuple[str, ...]) -> Path:
        steps = list(pairwise(nodes))
        undone = tuple((head, tail) for tail, head in steps if (tail, head) not in self.edges)
        return Path(nodes, min(self.residual[step] for step in steps), undone)

    def push(self, path: Path) -> Flow:
        """Send along a path as much as it carries.

        Raises
        ------
        InputError
            If the path does not lead from the concept to the video through what is left.
        """
        steps = list(pairwise(path.nodes))
        blocked = [step for step in steps if step not in self.residual]
        if blocked or path.nodes[:1] != (self.concept,) or path.nodes[-1:] != (VIDEO,):
            where = f"; nothing is left from {blocked[0][0]} to {blocked[0][1]}" if blocked else ""
            raise InputError(f"expected a path from {self.concept} to the {VIDEO} in the residual graph, got {path}{where}.")
        amount = min(self.residual[step] for step in steps)
        amounts = dict(self.amounts)
        for tail, head in steps:
            if (tail, head) in self.edges:
                amounts[tail, head] = amounts.get((tail, head), Fraction(0)) + amount
            else:
                amounts[head, tail] -= amount
        return Flow(self.network, self.concept, {edge: carried for edge, carried in amounts.items() if carried})

    def push_all(self) -> Flow:
        """Push until no path is left: along the shortest each time (Edmonds and Karp), which always ends soon."""
        import networkx as nx

        flow: Flow = self
        while True:
            graph = nx.DiGraph(list(flow.residual))
            if flow.concept not in graph or VIDEO not in graph or not nx.has_path(graph, flow.concept, VIDEO):
                return flow
            flow = flow.push(flow._path(tuple(nx.shortest_path(graph, flow.concept, VIDEO))))

    def to_networkx(self) -> nx.DiGraph:
        """Network, flow and, once it is a maximum flow, its cut, as `vico_lens.plot.layered_graph` takes them."""
        done = not self.paths(1)
        crossing = self.cut().edges if done else ()
        graph = self.network.to_networkx(self.concept)
        for tail, head, data in graph.edges(data=True):
            data.update(flow=float(self.amounts.get((tail, head), 0)), cut=(tail, head) in crossing)
        graph.graph["under_way"] = not done
        return graph

    def cut(self) -> Cut:
        """The minimum cut that proves this flow to be a maximum flow.

        Raises
        ------
        InputError
            If it is none yet: a path is left.
        """
        import networkx as nx

        graph = nx.DiGraph(list(self.residual))
        graph.add_nodes_from([self.concept, VIDEO])
        sink_side = nx.ancestors(graph, VIDEO) | {VIDEO}
        if self.concept in sink_side:
            raise InputError(f"this flow is no maximum flow yet: {self.paths(1)[0]} can still be pushed.")
        edges = tuple(edge for edge in self.edges if edge[0] not in sink_side and edge[1] in sink_side)
        capacity = sum((self.edges[edge] for edge in edges), Fraction(0))
        others = set(self.network.concepts) - {self.concept}
        source_side = frozenset(self.network.place) - sink_side - others
        return Cut(edges, capacity, source_side, self._saturated(capacity))

    def _saturated(self, capacity: Fraction) -> Saturated:
        """As `vico_lens.kernels.certificate` has it: at the source first, else at the sink."""
        if capacity == sum((left for (tail, _), left in self.edges.items() if tail == self.concept), Fraction(0)):
            return "source"
        into: dict[str, Fraction] = {}
        for (_, head), left in self.edges.items():
            into[head] = into.get(head, Fraction(0)) + left
        ends = {tail: left for (tail, head), left in self.edges.items() if head == VIDEO}
        return "sink" if capacity == sum(min(left, into.get(token, Fraction(0))) for token, left in ends.items()) else "no"
