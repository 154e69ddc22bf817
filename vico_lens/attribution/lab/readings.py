"""What other methods read from the same capacities, beside maximum flow."""

from __future__ import annotations

from fractions import Fraction

from vico_lens.attribution.lab.flow import Flow, Path
from vico_lens.attribution.lab.network import VIDEO, Network

__all__ = ["METHODS", "leaders", "readings", "rollout", "widest_path"]

METHODS = ("max_flow", "rollout", "widest_path")


def rollout(network: Network, concept: str) -> Fraction:
    """Sum over all paths of the product of their capacities (Abnar & Zuidema, arXiv 2005.00928).

    Examples
    --------
    >>> edges = {("cat", "a1"): 0.5, ("a1", "a2"): 0.4, ("cat", "a2"): 0.1}
    >>> rollout(Network.of(["cat"], [["a1"], ["a2"]], edges), "cat")
    Fraction(3, 10)
    """
    mass = {concept: Fraction(1)}
    place = network.place
    for (tail, head), capacity in sorted(network.edges_of(concept).items(), key=lambda item: place[item[0][0]]):
        mass[head] = mass.get(head, Fraction(0)) + mass.get(tail, Fraction(0)) * capacity
    return mass.get(VIDEO, Fraction(0))


def widest_path(network: Network, concept: str) -> Path | None:
    """The single path whose smallest capacity is largest; None where no path leads to the video.

    Examples
    --------
    >>> edges = {("cat", "a1"): 0.5, ("a1", "a2"): 0.4, ("cat", "a2"): 0.1}
    >>> widest_path(Network.of(["cat"], [["a1"], ["a2"]], edges), "cat").amount
    Fraction(2, 5)
    """
    edges, place = network.edges_of(concept), network.place
    best: dict[str, Path] = {}
    for (tail, head), capacity in sorted(edges.items(), key=lambda item: place[item[0][0]]):
        before = Path((concept,), capacity) if tail == concept else best.get(tail)
        if before is None:
            continue
        through = Path((*before.nodes, head), min(before.amount, capacity))
        if head not in best or through.amount > best[head].amount:
            best[head] = through
    return best.get(VIDEO)


def readings(network: Network) -> dict[str, dict[str, Fraction]]:
    """What each method says of each concept: ``{method: {concept: value}}``. Values of different methods do not compare."""
    widest = {concept: widest_path(network, concept) for concept in network.concepts}
    return {
        "max_flow": {concept: Flow(network, concept).push_all().value for concept in network.concepts},
        "rollout": {concept: rollout(network, concept) for concept in network.concepts},
        "widest_path": {concept: path.amount if path else Fraction(0) for concept, path in widest.items()},
    }


def leaders(values: dict[str, dict[str, Fraction]]) -> dict[str, tuple[str, ...]]:
    """Which concepts have the largest value under each method: one, or several that tie."""
    return {
        method: tuple(concept for concept, value in row.items() if value == max(row.values())) for method, row in values.items()
    }
