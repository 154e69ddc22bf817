"""Exact flow of one group for every token, frame and position, compiled: thousands of graphs of a few dozen nodes each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vico_lens.kernels.jit import compiled
from vico_lens.kernels.maxflow_loops import FAR, Network, solve

__all__ = ["backward", "forward"]

Array = npt.NDArray[Any]


@compiled
def _reach(hops: Array, end: Array, share: Array) -> None:
    """Fill `share` [hop, frame, frame + 1] with how each node splits its flow in proportion to what can go on to the end frame.

    A node's shares add to 1; after them, in ``share[.., -1]``, is the capacity they stand for: its useful room.
    """
    frames = end.size
    beyond = end.copy()
    room = np.empty(frames)
    for hop in range(hops.shape[0] - 1, -1, -1):
        for j in range(frames):
            total = 0.0
            for i in range(frames):
                useful = min(hops[hop, j, i], beyond[i])
                share[hop, j, i] = useful
                total += useful
            room[j] = total
            share[hop, j, frames] = total
            if total > 0.0:
                for i in range(frames):
                    share[hop, j, i] /= total
        beyond[:] = room


@compiled
def _all_arrives(injection: Array, share: Array, end: Array, here: Array, below: Array) -> bool:
    """Whether the whole injection reaches the end frame when every node splits by `share`: then it is the maximum flow."""
    frames = end.size
    here[:] = injection
    for hop in range(share.shape[0]):
        below[:] = 0.0
        for j in range(frames):
            if here[j] > share[hop, j, frames]:
                return False
            for i in range(frames):
                below[i] += here[j] * share[hop, j, i]
        here[:] = below
    return bool((here <= end).all())


@compiled
def forward(net: Network, injection: Array, hops: Array, ends: Array, value: Array, source_side: Array) -> None:
    """Solve ``source -> frames -> .. -> frames -> one frame`` for every position, source and end frame.

    Parameters
    ----------
    net : Network
        ``len(hops)`` stages of one dense block from frames to frames.
    injection : float64 array [position, token, frame]
    hops : float64 array [position, hop, key frame, frame]
        All hops but the last, from key to query.
    ends : float64 array [position, frame, key frame]
        The last hop: its rows are the edges into one end frame.
    value : float64 array [position, token, end frame]
        Filled with the flow.
    source_side : bool array [position, token, end frame, level, frame]
        Filled with the side of each node in a minimum cut; all False where the cut is the injection itself.
    """
    positions, tokens, frames = injection.shape
    nodes = net.node[-1]
    flow = np.empty(hops.shape[1] * frames * frames)
    excess = np.empty(nodes)
    reached = np.empty(frames)
    label = np.empty(nodes, np.int64)
    queue = np.empty(nodes, np.int64)
    share = np.empty((hops.shape[1], frames, frames + 1))
    here = np.empty(frames)
    below = np.empty(frames)
    for p in range(positions):
        capacity = hops[p].ravel()
        for end in range(frames):
            _reach(hops[p], ends[p, end], share)
            for t in range(tokens):
                supply = injection[p, t].sum()
                if _all_arrives(injection[p, t], share, ends[p, end], here, below):
                    value[p, t, end] = supply
                    source_side[p, t, end] = False
                    continue
                excess[:] = 0.0
                excess[:frames] = injection[p, t]
                solve(net, capacity, flow, excess, ends[p, end], reached, label, queue, 1e-14 * supply)
                value[p, t, end] = reached.sum()
                side = source_side[p, t, end].ravel()
                for v in range(nodes):
                    side[v] = label[v] >= FAR


@compiled
def backward(source_side: Array, grad: Array, grad_injection: Array, grad_hops: Array, grad_ends: Array) -> None:
    """Add each flow's gradient to the edges that cross its minimum cut."""
    positions, tokens, frames = grad.shape
    last = source_side.shape[3] - 1
    for p in range(positions):
        for t in range(tokens):
            for end in range(frames):
                passed = grad[p, t, end]
                side = source_side[p, t, end]
                for j in range(frames):
                    if not side[0, j]:
                        grad_injection[p, t, j] += passed
                    if side[last, j]:
                        grad_ends[p, end, j] += passed
                for hop in range(last):
                    for j in range(frames):
                        if side[hop, j]:
                            for i in range(frames):
                                if not side[hop + 1, i]:
                                    grad_hops[p, hop, j, i] += passed
