"""Exact flows on the CPU: compiled push-relabel, one flow a thread at a time, interruptible within a flow."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vico_lens.kernels.certificate import CLOSED, FINEST
from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.maxflow_loops import FAR, Network, advance, cut_by_stage, relabel, seed

__all__ = ["CompiledSolver", "Solved"]

# Edges read between two looks at the stop signal: some tenths of a second.
_BUDGET = 50_000_000


@dataclass(frozen=True)
class Solved:
    """One flow: its value, the cut by place, and the side of every node (True: source side)."""

    value: float
    location: npt.NDArray[np.float64]
    sides: npt.NDArray[np.bool_]


class _State:
    """Working arrays of one flow, reused by the flows that a thread solves one after another."""

    def __init__(self, edges: int, nodes: int) -> None:
        self.flow = np.empty(edges)
        self.label = np.empty(nodes, np.int64)
        self.queue = np.empty(nodes, np.int64)


class CompiledSolver:
    """Solves flows from sources to sinks on one graph.

    Parameters
    ----------
    graph : LayeredGraph
        In float64.
    supply : sequence of Tensor
        ``[source, node]`` a level.
    sink : Tensor
        ``[sink, node]``.
    scale : Tensor
        Any upper bound of each flow's value, ``[source, sink]``.
    threads : int
        Flows solved at once.
    """

    def __init__(self, graph: LayeredGraph, supply: Sequence[Tensor], sink: Tensor, scale: Tensor, *, threads: int = 1) -> None:
        self.net, self.capacity = pack(graph)
        self.supply = np.ascontiguousarray(torch.cat(list(supply), 1).cpu().numpy())
        self.sink = np.ascontiguousarray(sink.cpu().numpy())
        self.scale = scale.cpu().numpy()
        self.links = len(graph.links)
        self.threads = threads

    def solve(
        self,
        flows: Sequence[tuple[int, int]],
        reach: Mapping[int, npt.NDArray[np.float64]],
        receive: Callable[[int, int, Solved], None],
    ) -> None:
        """Solve the `flows` (source, sink) and hand each to `receive` as it is done, in this thread.

        `reach` bounds, for each sink, what each node can deliver (`vico_lens.kernels.greedy.push_once`). An exception here or in
        `receive`, Ctrl-C included, stops the flows that run at the next look and drops those that wait.
        """
        if self.threads <= 1 or len(flows) <= 1:
            state = self._state()
            for source, sink in flows:
                receive(source, sink, self._one(source, sink, reach[sink], state, threading.Event()))
            return
        stop = threading.Event()
        states: queue.SimpleQueue[_State] = queue.SimpleQueue()
        for _ in range(self.threads):
            states.put(self._state())

        def task(source: int, sink: int) -> tuple[int, int, Solved]:
            state = states.get()
            try:
                return source, sink, self._one(source, sink, reach[sink], state, stop)
            finally:
                states.put(state)

        with ThreadPoolExecutor(self.threads) as pool:
            waiting = [pool.submit(task, source, sink) for source, sink in flows]
            try:
                for done in as_completed(waiting):
                    receive(*done.result())
            except BaseException:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def solve_one(self, source: int, sink: int, reach: npt.NDArray[np.float64]) -> tuple[Solved, npt.NDArray[np.float64]]:
        """Solve one flow in this thread, and return with it what flows on each edge (blocks end to end).

        It is a preflow: excess that cannot reach the sink has not been sent back.
        """
        state = self._state()
        return self._one(source, sink, reach, state, threading.Event()), state.flow

    def _state(self) -> _State:
        return _State(self.capacity.size, int(self.net.node[-1]))

    def _one(self, source: int, sink: int, reach: npt.NDArray[np.float64], state: _State, stop: threading.Event) -> Solved:
        net, capacity, scale = self.net, self.capacity, float(self.scale[source, sink])
        excess, room = self.supply[source].copy(), self.sink[sink]
        arrived = np.empty_like(room)
        seed(net, capacity, reach, state.flow, excess, room, arrived)
        relabel(net, capacity, state.flow, room, arrived, state.label, state.queue)
        location = np.empty(self.links + 2)
        # Excess below the tolerance stays where it is. All of it together is far below what the certificate allows of the largest
        # possible value; a flow much smaller than that goes on with a finer tolerance, from where it stands.
        tolerance = 1e-11 * scale / excess.size
        while True:
            while not advance(net, capacity, state.flow, excess, room, arrived, state.label, state.queue, tolerance, _BUDGET):
                if stop.is_set():
                    raise InterruptedError("stopped by another flow's error")
            sides = state.label >= FAR
            value = float(arrived.sum())
            cut_by_stage(net, capacity, self.supply[source], room, sides, location)
            cut = float(location.sum())
            if cut - value <= CLOSED * cut or tolerance <= FINEST:
                return Solved(value, location, sides)
            tolerance = min(tolerance / 1000, 1e-11 * cut / excess.size)


def pack(graph: LayeredGraph) -> tuple[Network, npt.NDArray[np.float64]]:
    """Flatten a graph for the compiled loops: its shape, and all capacities end to end."""
    blocks = [block for link in graph.links for block in link.blocks]
    groups, rows, columns = (np.array([block.capacity.shape[axis] for block in blocks], np.int64) for axis in range(3))
    first = np.cumsum([0, *(len(link.blocks) for link in graph.links)])[:-1]
    heads = [link.blocks[0].capacity.shape for link in graph.links]
    split = [(shape[0] * shape[1], shape[0] * shape[2]) for shape in heads]
    net = Network(
        node=np.cumsum([0, *graph.widths]).astype(np.int64),
        split=np.array(split, np.int64),
        block=np.array([(at, at + len(link.blocks) - 1) for at, link in zip(first, graph.links, strict=True)], np.int64),
        groups=groups,
        rows=rows,
        columns=columns,
        interleaved=np.array([block.interleaved for block in blocks], np.bool_),
        source=np.array([block.source for block in blocks], np.int64),
        target=np.array([block.target for block in blocks], np.int64),
        edge=np.cumsum([0, *(groups * rows * columns)])[:-1].astype(np.int64),
    )
    flat = torch.cat([block.capacity.detach().reshape(-1) for block in blocks])
    return net, flat.to("cpu", torch.float64).numpy()
