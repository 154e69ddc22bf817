"""The attribution methods that read a trace alone, in plain words; their registry would have to load torch to list them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal

import streamlit as st

__all__ = ["READING", "MethodWords", "choose_method", "choose_scale"]


@dataclass(frozen=True, slots=True)
class MethodWords:
    """How a page speaks of a method: its title, what it does in a sentence, what its numbers are."""

    title: str
    what: str
    unit: str


READING = {
    "rollout": MethodWords(
        "Rollout",
        "Multiplies the attention of all layers: the share of each video token that comes from the concept along every path.",
        "share of a token",
    ),
    "subgraph_flow": MethodWords(
        "Subgraph flow",
        "Vico's measure: the widest way from the concept through one cross-attention layer and the temporal layers after it.",
        "flow",
    ),
    "cross_attention": MethodWords(
        "Cross-attention", "Sums the attention that video tokens pay to the concept's words, layer by layer.", "attention"
    ),
    "widest_path": MethodWords(
        "Widest path", "The best single path from the concept to each video token: as wide as its narrowest edge.", "capacity"
    ),
    "max_flow": MethodWords(
        "Max flow",
        "The most that all paths together can carry from the concept to the video, exact, with the cut that proves it.",
        "flow",
    ),
}

# Methods of installed packages, by their entry points: listing those loads nothing.
READING |= {
    point.name: MethodWords(
        point.name.replace("_", " ").capitalize(),
        f"A method of the package {point.dist.name if point.dist else point.module}; its documentation says what it measures.",
        "influence",
    )
    for point in entry_points(group="vico_lens.methods")
    if point.name not in READING
}


def choose_method(*, maps_only: bool = True) -> str:
    """Draw the select box of methods; the choice is part of the link and is kept between pages."""
    options = [name for name in READING if name != "max_flow" or not maps_only]
    key, first = ("method", "rollout") if maps_only else ("flow_method", "max_flow")
    return st.selectbox(
        "Method", options, index=options.index(first), format_func=lambda name: READING[name].title, key=key, bind="query-params"
    )


def choose_scale() -> Literal["shared", "each"]:
    """Draw the choice of the maps' opacity scale; it is part of the link."""
    names: dict[Literal["shared", "each"], str] = {"shared": "one for all concepts", "each": "each concept its own"}
    chosen = st.segmented_control(
        "Scale", list(names), default="shared", required=True, format_func=names.__getitem__, key="scale", bind="query-params",
        help="One scale shows how strong the concepts are beside each other. A scale of its own shows where a weak one acts.",
    )  # fmt: skip
    return chosen or "shared"
