"""Attribution at the real size of video models: seconds, rates and memory of every streamed pass, without a map.

Sites are made from random query and key in half precision, as a trace stores them. Rollout is measured beside a plain
`scaled_dot_product_attention` of the same shape in the same run; memory is what a pass adds to the process's peak. One thread.

    python -m benchmarks.real_size_attribution                  # some minutes a layer; writes benchmarks/results
    python -m benchmarks.real_size_attribution --layers 2       # through the writer, the store and vl.attribute, too
    python -m benchmarks.real_size_attribution --growth         # exponent of memory between 1,024 and 8,192 tokens only
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.functional import scaled_dot_product_attention

from vico_lens.kernels.factored import FactorOperator
from vico_lens.kernels.operators import Blend

__all__ = ["Shape", "growth", "measure", "stored_layers"]

RESULTS = Path(__file__).parent / "results" / "real_size_attribution.json"


@dataclass(frozen=True)
class Shape:
    """One layer of a published model."""

    name: str
    grid: tuple[int, int, int]
    text: int
    heads: int
    head_size: int
    layers: int

    @property
    def tokens(self) -> int:
        """Tokens of its softmax."""
        return self.text + math.prod(self.grid)


SHAPES = (
    Shape("CogVideoX-2b, 480 x 720, 49 frames", (13, 30, 45), 226, 30, 64, 30),
    Shape("Wan 2.1 1.3B, 480 x 832, 81 frames", (21, 30, 52), 0, 12, 128, 30),
)


@dataclass(frozen=True)
class Row:
    """One pass over one layer.

    Attributes
    ----------
    seconds : float
        Processor time.
    rate : float
        GFLOP a second of products with query, key and mass.
    added : float
        MB above what the process held before.
    """

    shape: str
    tokens: int
    heads: int
    what: str
    seconds: float
    rate: float
    added: float


def peak(forget: bool = False) -> float:
    """Largest resident size of this process in MB, since the last `forget`."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Processor seconds, and MB added."""
    # Freed memory goes back to the system first, or a pass would find it there and seem to need none.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = peak(forget=True)
    start = time.process_time()
    run()
    return time.process_time() - start, peak() - before


def site(tokens: int, heads: int, head_size: int, seed: int = 0) -> FactorOperator:
    """A layer with some structure: queries that find keys near them, in half precision."""
    random = torch.Generator().manual_seed(seed)
    parts = [torch.empty(heads, 1, tokens, head_size, dtype=torch.float16) for _ in range(2)]
    for head in range(heads):
        common = torch.randn(tokens, head_size, generator=random)
        for part in parts:
            part[head, 0] = (common + torch.randn(tokens, head_size, generator=random)).half()
    return FactorOperator(parts[0], parts[1], head_size**-0.5)


def passes(operator: FactorOperator, concepts: int = 2, sinks: int = 13) -> dict[str, Callable[[], object]]:
    """What methods ask of a layer, with how many products of query and key each takes."""
    random, count, blend = torch.Generator().manual_seed(1), operator.shape[2], Blend(0.5, 0.5)
    mass = torch.rand(1, concepts, count, generator=random)
    reach = torch.rand(1, sinks, count, generator=random) / count
    share = torch.rand(1, concepts, sinks, count, generator=random)
    cell = torch.arange(count)[None] * 60 // count
    return {
        "rollout": lambda: operator.carry(mass),
        "row normaliser": operator.normaliser,
        "columns of 8 words": lambda: operator.columns(range(8)),
        "widest path": lambda: operator.widest(mass, blend),
        "(+, min) from 13 frames": lambda: operator.narrow_sum(reach, blend, back=True),
        "(+, min) in float64": lambda: operator.narrow_sum(reach.double(), blend, back=True),
        "greedy push, 2 x 13": lambda: operator.push(share, reach, blend),
        "contraction to 60 cells": lambda: operator.pooled(cell, cell, 60, blend),
    }


def measure(shape: Shape, only: Sequence[str] | None = None) -> list[Row]:
    """Every pass over one layer, plain attention first."""
    tokens, heads = shape.tokens, shape.heads
    product = 2 * heads * tokens**2 * shape.head_size
    operator = site(tokens, heads, shape.head_size)
    rows = []

    def add(what: str, run: Callable[[], object], products: int) -> None:
        seconds, added = timed(run)
        rows.append(Row(shape.name, tokens, heads, what, seconds, products * product / seconds / 1e9, added))
        print(f"{what:28} {seconds:8.1f} s {rows[-1].rate:7.1f} GFLOP/s {added:8.1f} MB", flush=True)

    with torch.no_grad():
        operands = [part.transpose(0, 1).float() for part in operator.parameters]
        operands.append(torch.randn_like(operands[1]))
        add("plain attention, float32", lambda: scaled_dot_product_attention(*operands), 2)
        operands.clear()
        for what, run in passes(operator).items():
            if only is None or what in only:
                add(what, run, 2 if what == "rollout" else 1)
    return rows


def growth(sizes: Sequence[int] = (1024, 2048, 4096, 8192), heads: int = 2, head_size: int = 64) -> dict[str, float]:
    """Exponent of added memory over tokens of every pass, from the first to the last size, without the fixed strip."""
    held: dict[str, list[float]] = {}
    with torch.no_grad():
        for size in sizes:
            operator = site(size, heads, head_size)
            for what, run in passes(operator).items():
                run()
                held.setdefault(what, []).append(max(1.0, timed(run)[1]))
    spread = math.log(sizes[-1] / sizes[0])
    return {what: math.log(values[-1] / values[0]) / spread for what, values in held.items()}


def stored_layers(shape: Shape, layers: int) -> dict[str, float]:
    """Write some joint layers with our own writer, open them and roll out: seconds, memory, and what all layers would take."""
    import vico_lens as vl
    from vico_lens.store.writer import TraceWriter
    from vico_lens.testing.traces import fake_attrs, fake_tokens
    from vico_lens.vocabulary.schema import AttentionCall, AttentionSite

    tokens = max(shape.text, 20)
    table = fake_tokens(length=tokens)
    count = tokens + math.prod(shape.grid)
    with tempfile.TemporaryDirectory() as folder:
        sites = [
            AttentionSite(f"blocks.{k}.attn", "joint", shape.grid, shape.heads, shape.head_size, tokens, k) for k in range(layers)
        ]
        writer = TraceWriter(f"{folder}/run.zarr", form="factors")
        writer.start(fake_attrs([""], [0], sites, 0), [table], steps=[0])
        for number, place in enumerate(sites):
            operator = site(count, shape.heads, shape.head_size, seed=number)
            query, key = (part[:, 0] for part in operator.parameters)
            writer.write(AttentionCall(place, 0, 1000.0, "cond", 0, query, key, shape.head_size**-0.5))
        writer.finish_step(0)
        writer.close()
        del operator, query, key
        tree = vl.open_trace(f"{folder}/run.zarr")
        concepts = {"first": [1, 2], "second": [5]}
        seconds, added = timed(lambda: vl.attribute(tree, "rollout", concepts=concepts, steps=0))
    return {"layers": layers, "seconds": seconds, "added_MB": added, "seconds_of_all_layers": seconds / layers * shape.layers}


def main() -> None:
    """Measure, print, and keep the rows."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--shape", type=int, choices=range(len(SHAPES)))
    options = parser.parse_args()
    shapes = SHAPES if options.shape is None else SHAPES[options.shape : options.shape + 1]
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.growth:
        found["exponent of memory"] = growth()
        print(json.dumps(found["exponent of memory"], indent=1))
    for shape in () if options.growth else shapes:
        if options.layers:
            found.setdefault("stored", {})[shape.name] = stored_layers(shape, options.layers)
            print(json.dumps(found["stored"][shape.name]))
        else:
            found.setdefault("layer", {})[shape.name] = [asdict(row) for row in measure(shape, options.only)]
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
