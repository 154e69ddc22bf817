"""Networks worth solving: each shows one thing about attention flow that its numbers do not say by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vico_lens.attribution.lab.network import Network

__all__ = ["Preset", "presets"]


@dataclass(frozen=True, slots=True)
class Preset:
    """One exercise.

    Attributes
    ----------
    title : str
        What it is called.
    task : str
        What to look for before pushing anything.
    lesson : str
        What the solved network shows.
    network : Network
    """

    title: str
    task: str
    lesson: str
    network: Network


_ALL = {
    "two_roads": Preset(
        "Two roads",
        "A path carries as much as its narrowest edge. How much reaches the video over both roads together?",
        "Each road is held back by one edge, and these two edges are the minimum cut. No flow can be larger than any cut; "
        "a flow and a cut of the same size prove each other.",
        Network.of(
            ["red circle"],
            [["a1", "b1"], ["a2", "b2"]],
            {("red circle", "a1"): 0.5, ("red circle", "b1"): 0.3, ("a1", "a2"): 0.4, ("b1", "b2"): 0.6},
        ),
    ),
    "take_back": Preset(
        "Take a step back",
        "The widest path looks like the best start. What does it block, and how is that put right?",
        "The widest path used an edge that another path needs. The residual graph offers that flow back: crossing an edge "
        "backwards takes flow away from it and sends it round another way. Greedy paths alone would stop too early.",
        Network.of(
            ["red circle"],
            [["a1", "b1"], ["a2", "b2"], ["a3", "b3"]],
            {
                ("red circle", "a1"): 0.5,
                ("red circle", "b1"): 0.6,
                ("a1", "a2"): 0.4,
                ("a1", "b2"): 0.5,
                ("b1", "b2"): 0.4,
                ("a2", "a3"): 0.6,
                ("b2", "b3"): 0.5,
            },
        ),
    ),
    "many_or_wide": Preset(
        "Many narrow or one wide",
        "The circle has one wide path, the square three narrow ones. Which concept leads, and who says so?",
        "Max flow adds paths up and names the square. The widest path sees one of them only, and rollout shrinks every path with "
        "its length: both name the circle. No method is wrong; they answer different questions.",
        Network.of(
            ["red circle", "blue square"],
            [["a1", "b1", "c1", "d1"], ["a2", "b2", "c2", "d2"]],
            {("red circle", "a1"): 0.6, ("blue square", "b1"): 0.3, ("blue square", "c1"): 0.3, ("blue square", "d1"): 0.3}
            | {("a1", "a2"): 0.8, ("b1", "b2"): 0.5, ("c1", "c2"): 0.5, ("d1", "d2"): 0.5},
        ),
    ),
    "depth": Preset(
        "Early or late",
        "The circle enters at the first layer, the square at the last. What do the layers between cost?",
        "Rollout multiplies along the path, so every layer makes an early word smaller and it names the square. Max flow and the "
        "widest path ask for the narrowest edge only and name the circle, whatever the depth.",
        Network.of(
            ["red circle", "blue square"],
            [["a1"], ["a2"], ["a3"]],
            {("red circle", "a1"): 0.5, ("a1", "a2"): 0.6, ("a2", "a3"): 0.6, ("blue square", "a3"): 0.3},
        ),
    ),
    "inside": Preset(
        "A cut inside",
        "Neither all that the circle sends nor all that the video can take in gets through. Which edges decide?",
        "The minimum cut mixes an edge of the circle with edges between tokens. Here exact flow says something that neither "
        "cross-attention nor the last layer knows, and its gradient points at the edges of the cut.",
        Network.of(
            ["red circle", "blue square"],
            [["a1", "b1"], ["a2", "b2"], ["a3", "b3"]],
            {
                ("red circle", "a1"): 0.6,
                ("red circle", "b1"): 0.2,
                ("blue square", "a1"): 0.1,
                ("blue square", "b1"): 0.5,
                ("a1", "a2"): 0.2,
                ("a1", "b2"): 0.1,
                ("b1", "b2"): 0.6,
                ("a2", "a3"): 0.8,
                ("b2", "b3"): 0.8,
            },
        ),
    ),
    "full_at_source": Preset(
        "Full at the source",
        "All edges behind the first layer are wide. What does max flow tell you that a sum would not?",
        "Everything the concept sends arrives: max flow is the sum of its own edges, which is summed cross-attention and no "
        "more. Rollout still looks at what follows and names the other concept.",
        Network.of(
            ["red circle", "blue square"],
            [["a1", "b1"], ["a2", "b2"]],
            {
                ("red circle", "a1"): 0.2,
                ("red circle", "b1"): 0.1,
                ("blue square", "a1"): 0.05,
                ("blue square", "b1"): 0.35,
                ("a1", "a2"): 0.6,
                ("a1", "b2"): 0.3,
                ("b1", "b2"): 0.4,
            },
        ),
    ),
    "full_at_sink": Preset(
        "Full at the video",
        "Both concepts enter at several layers. How much can the last token take in at most?",
        "Both concepts fill the last token: max flow is 1 for each, because a softmax row sums to 1. It cannot tell them apart "
        "and has no gradient here. Rollout can. In deep networks this is what most single video tokens look like.",
        Network.of(
            ["red circle", "blue square"],
            [["a1", "b1"], ["a2", "b2"], ["a3"]],
            {
                ("red circle", "a1"): 0.4,
                ("red circle", "b1"): 0.4,
                ("red circle", "a2"): 0.3,
                ("red circle", "b2"): 0.3,
                ("blue square", "a1"): 0.4,
                ("blue square", "b1"): 0.4,
                ("blue square", "a2"): 0.2,
                ("blue square", "b2"): 0.2,
                ("a1", "a2"): 0.5,
                ("b1", "b2"): 0.5,
                ("a2", "a3"): 0.5,
                ("b2", "a3"): 0.5,
            },
        ),
    ),
}

presets: Mapping[str, Preset] = MappingProxyType(_ALL)
"""By name, from the easiest on."""
