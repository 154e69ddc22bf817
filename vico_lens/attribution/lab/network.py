"""The network of the flow laboratory: a layered attention graph whose capacities are exact fractions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING

from vico_lens.errors import InputError

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["VIDEO", "Edge", "Network", "exact"]

Edge = tuple[str, str]
VIDEO = "video"
"""Name of the sink that every token of the last layer reaches."""

_MOST_EDGES = 60  # a person is to read every one of them


def exact(number: str | int | float | Fraction) -> Fraction:
    """Read a capacity as it was typed: 0.1 is one tenth, not the nearest binary number.

    Raises
    ------
    InputError
        If it is not a number from 0 up.

    Examples
    --------
    >>> exact(0.1) + exact("0.2") == exact(0.3)
    True
    """
    try:
        value = Fraction(str(number)) if isinstance(number, float) else Fraction(number)
    except (TypeError, ValueError, ZeroDivisionError):
        raise InputError(f"expected a capacity such as 0.4 or '2/5', got {number!r}.") from None
    if value < 0:
        raise InputError(f"expected a capacity of 0 or more, got {number!r}; 0 takes the edge away.")
    return value


@dataclass(frozen=True)
class Network:
    """Concepts on the left, layers of video tokens, the video on the right.

    Attributes
    ----------
    concepts : tuple of str
        Sources. A concept may inject into the tokens of any layer, as cross-attention does.
    layers : tuple of tuple of str
        Video tokens after each attention site. A token reaches tokens of the next layer only, the last layer reaches `VIDEO`.
    capacities : mapping of (str, str) to Fraction
        Edges in the order they are shown; 0 where there could be one.

    Examples
    --------
    >>> network = Network.of(["cat"], [["a1"], ["a2"]], {("cat", "a1"): 0.3, ("a1", "a2"): 0.5, ("cat", "a2"): 0.1})
    >>> network.capacities["a2", "video"]
    Fraction(1, 1)
    """

    concepts: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    capacities: Mapping[Edge, Fraction]

    def __post_init__(self) -> None:
        names = [*self.concepts, *(token for layer in self.layers for token in layer), VIDEO]
        if not self.concepts or not self.layers or not all(self.layers) or len(set(names)) < len(names):
            raise InputError(f"expected concepts and layers of tokens with names that differ, got {names}.")
        if len(self.capacities) > _MOST_EDGES:
            raise InputError(f"expected at most {_MOST_EDGES} edges to be read one by one, got {len(self.capacities)}.")
        place = self.place
        for tail, head in self.capacities:
            step = place.get(head, -1) - place.get(tail, math.inf)
            if not (step == 1 or (tail in self.concepts and step > 1 and head != VIDEO)):
                raise InputError(f"an edge leads from a concept to a token, or to the next layer; {tail!r} to {head!r} does not.")

    @classmethod
    def of(
        cls,
        concepts: Sequence[str],
        layers: Sequence[Sequence[str]],
        capacities: Mapping[Edge, str | int | float | Fraction],
    ) -> Network:
        """Build a network; a token of the last layer reaches the video with capacity 1 unless told otherwise.

        Raises
        ------
        InputError
            If a capacity is no number, or an edge skips a layer or runs backwards.
        """
        given = {edge: exact(capacity) for edge, capacity in capacities.items()}
        ends = {(token, VIDEO): Fraction(1) for token in layers[-1] if (token, VIDEO) not in given} if layers else {}
        return cls(tuple(concepts), tuple(tuple(layer) for layer in layers), MappingProxyType(given | ends))

    def with_capacities(self, capacities: Mapping[Edge, str | int | float | Fraction]) -> Network:
        """The same network with other capacities on some of its edges."""
        unknown = [edge for edge in capacities if edge not in self.capacities]
        if unknown:
            raise InputError(f"expected edges of this network, got {unknown[:3]}.")
        changed = {edge: exact(capacity) for edge, capacity in capacities.items()}
        return replace(self, capacities=MappingProxyType(dict(self.capacities) | changed))

    @property
    def place(self) -> dict[str, int]:
        """Layer of every node: 0 for concepts, then the tokens, then the video."""
        found = dict.fromkeys(self.concepts, 0)
        for number, layer in enumerate(self.layers, start=1):
            found |= dict.fromkeys(layer, number)
        return found | {VIDEO: len(self.layers) + 1}

    def edges_of(self, concept: str) -> dict[Edge, Fraction]:
        """Edges with a capacity above 0 that a flow of one concept may use: its own, and those between tokens."""
        if concept not in self.concepts:
            raise InputError(f"expected one of the concepts {', '.join(self.concepts)}, got {concept!r}.")
        others = set(self.concepts) - {concept}
        return {edge: capacity for edge, capacity in self.capacities.items() if capacity > 0 and edge[0] not in others}

    def to_networkx(self, concept: str | None = None) -> nx.DiGraph:
        """The network as figures and other solvers take it: nodes with ``layer``, ``kind``, ``label``; edges with ``capacity``.

        Parameters
        ----------
        concept : str, optional
            Only what its flow may use; everything by default.
        """
        import networkx as nx

        kinds = dict.fromkeys(self.concepts, "source") | {VIDEO: "sink"}
        edges = dict(self.capacities) if concept is None else self.edges_of(concept)
        graph = nx.DiGraph()
        for node, layer in self.place.items():
            if concept is None or node not in self.concepts or node == concept:
                graph.add_node(node, layer=layer, kind=kinds.get(node, "video"), label=node)
        graph.add_edges_from((tail, head, {"capacity": float(capacity)}) for (tail, head), capacity in edges.items())
        return graph
