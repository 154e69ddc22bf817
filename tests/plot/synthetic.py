"""Influences and videos whose numbers are known by construction."""

from __future__ import annotations

import networkx as nx
import numpy as np
import xarray as xr

NAMES = ("red circle", "blue square")


def influence(names=NAMES, weights=(0.7, 0.3), frames=4, rows=4, columns=6, steps=3) -> xr.DataArray:
    """Every cell of concept k holds weight k in every frame and step, so shares are the weights' parts."""
    values = np.ones((len(names), steps, frames, rows, columns)) * np.asarray(weights, float)[:, None, None, None, None]
    coords = {"concept": list(names), "step": np.arange(steps) * 2}
    return xr.DataArray(values, dims=("concept", "step", "frame", "y", "x"), coords=coords, attrs={"method": "subgraph_flow"})


def uneven(seed=0, **sizes) -> xr.DataArray:
    base = influence(**sizes)
    return base * np.random.default_rng(seed).uniform(0.5, 1.5, base.shape)


def video(frames=4, rows=32, columns=48, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, rows, columns, 3), dtype=np.uint8)


def balance_log(updates=6) -> xr.Dataset:
    t = np.linspace(0, 1, updates)
    mass = np.stack([0.7 - 0.1 * t, 0.3 + 0.1 * t], axis=1)
    return xr.Dataset(
        {
            "loss": ("update", 1 - mass.min(1)),
            "influence": (("update", "concept"), mass),
            "latent_change": ("update", np.full(updates, 0.02)),
        },
        coords={"step": ("update", np.arange(updates) // 2), "concept": list(NAMES)},
    )


def chain(frames=2) -> nx.DiGraph:
    """One concept, two layers: text injects 0.3 into every frame at layer 1; frames pass all on; sinks take 1 each."""
    graph = nx.DiGraph()
    graph.add_node("s", kind="source", layer=0, concept="cat")
    graph.add_node("t", kind="sink", layer=3)
    for f in range(frames):
        for layer in (1, 2):
            graph.add_node((layer, f), kind="video", layer=layer, frame=f, y=0, x=0)
        graph.add_edge("s", (1, f), capacity=0.3)
        graph.add_edge((1, f), (2, f), capacity=0.9)
        graph.add_edge((2, f), "t", capacity=1.0)
    return graph
