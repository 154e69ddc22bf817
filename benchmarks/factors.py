"""A joint site of 17,776 keys (CogVideoX-2b: 226 text tokens, 13 x 30 x 45 video tokens, head size 64), stored as factors.

What it must hold: stored bytes at most 1/100 of the dense map, and one text token's map of one head in under 1 s and 500 MB.
Reading happens in fresh processes with one thread, as on the laptop where the trace is opened. Seconds are the better of two, by
the clock and of the processor, which differ on a machine that is busy. The map is checked against whole rows in float64.

    python -m benchmarks.factors                 # prints, and writes benchmarks/results/factors.md
    python -m benchmarks.factors --heads 2       # another size; prints only
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import Measured
from vico_lens.store.opening import open_trace
from vico_lens.store.writer import TraceWriter
from vico_lens.testing.traces import fake_tokens, record
from vico_lens.vocabulary.schema import AttentionCall, AttentionSite

RESULTS = Path(__file__).parent / "results" / "factors.md"
GRID, TOKENS, CHANNELS = (13, 30, 45), 226, 64

READ = """
import json, resource, sys, time
import torch
torch.set_num_threads(1)
from vico_lens.store.opening import open_trace
import xarray, zarr, numcodecs.blosc, vico_lens.store.opening
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
imported = peak()
times, busy = [], []
tree = open_trace(sys.argv[1])
for token in (57, 58):
    start, used = time.perf_counter(), time.process_time()
    tree[sys.argv[2]].video_text.isel(step=0, layer=0, head=0, token=token).load()
    times.append(time.perf_counter() - start)
    busy.append(time.process_time() - used)
print(json.dumps({"first": times[0], "second": times[1], "busy": busy[0], "added": peak() - imported, "peak": peak()}))
"""


def call(heads: int) -> AttentionCall:
    """One joint site with correlated, peaked random operands, as a half precision model would give them."""
    random = torch.Generator().manual_seed(0)
    frames, rows, columns = GRID
    count = TOKENS + frames * rows * columns
    site = AttentionSite("transformer.transformer_blocks.0.attn1", "joint", GRID, heads, CHANNELS, TOKENS, 0)
    common = torch.randn(heads, count, CHANNELS, generator=random)
    query, key = ((common + torch.randn(heads, count, CHANNELS, generator=random)).half() for _ in range(2))
    return AttentionCall(site, 0, 999.0, "cond", 0, query, key, CHANNELS**-0.5)


def exact_rows(attention: AttentionCall, rows: torch.Tensor, token: int) -> np.ndarray:
    """One column of a few rows of the first head, by the definition in float64."""
    assert attention.query is not None and attention.key is not None
    logits = attention.query[0, TOKENS + rows].double() @ attention.key[0].double().T * attention.scale
    return logits.softmax(-1)[:, token].numpy()


def run(heads: int = 1) -> Iterator[Measured]:
    """Store and read the site."""
    attention = call(heads)
    keys = TOKENS + attention.site.cells
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        start = time.perf_counter()
        tokens = fake_tokens(length=TOKENS)
        record(TraceWriter(path), [attention], [tokens], {"prompt": "benchmark"}, steps=[0])
        written = time.perf_counter() - start
        stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        name = attention.site.group
        command = [sys.executable, "-c", READ, str(path), name]
        results = [json.loads(subprocess.check_output(command, text=True)) for _ in range(2)]
        result = {measure: min(one[measure] for one in results) for measure in results[0]}
        rows = torch.arange(0, attention.site.cells, 997)
        got = open_trace(path)[name].to_dataset().video_text.isel(step=0, layer=0, head=0, token=57).values.ravel()[rows]
    error = float(np.abs(got - exact_rows(attention, rows, 57)).max())
    ratio = heads * keys**2 * 2 / stored
    label = f"{keys:,} keys, {heads} head{'s' if heads > 1 else ''}"
    yield Measured(f"dense map over stored bytes, float16, {label}", ratio, "x")
    yield Measured(f"write, {label}", written, "s")
    yield Measured("one token's map of one head, first", result["first"], "s")
    yield Measured("the same, processor time", result["busy"], "s")
    yield Measured("another token's map of that head", result["second"], "s")
    yield Measured("memory added by reading", result["added"], "MB")
    yield Measured("memory of the reading process", result["peak"], "MB")
    yield Measured("largest error against float64", error, "1")


BOUNDS = {"x": (100, False), "error": (1e-6, True), "memory of": (500, True), "map of one head, first": (1, True)}
"""Part of a row's name or its unit: the bound, and whether it is an upper one."""


def bound(row: Measured) -> tuple[float, bool] | None:
    """Return the bound that a measurement has to keep, or None."""
    return next((limit for part, limit in BOUNDS.items() if part == row.unit or (part != "x" and part in row.name)), None)


def missed(row: Measured) -> bool:
    """Whether a measurement is on the wrong side of its bound."""
    limit = bound(row)
    return limit is not None and (row.value > limit[0] if limit[1] else row.value < limit[0])


def main() -> None:
    """Print the measurements; the exit code says whether a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=1)
    heads = parser.parse_args().heads
    torch.set_num_threads(1)
    lines = [
        "# One site of 17,776 keys, stored as factors and read back",
        "",
        f"`python -m benchmarks.factors` on {platform.platform()}, {os.cpu_count()} cores, one thread, Python "
        f"{platform.python_version()}, torch {torch.__version__}; load average {os.getloadavg()[1]:.1f}. The better of two fresh "
        "processes.",
        "",
        "| what | value | bound |",
        "|---|---|---|",
    ]
    wrong = False
    for row in run(heads):
        wrong |= missed(row)
        limit = bound(row)
        words = (
            "" if limit is None else f"{'at most' if limit[1] else 'at least'} {limit[0]:g}{', missed' if missed(row) else ''}"
        )
        lines.append(f"| {row.name} | {row.value:.4g} {row.unit} | {words} |")
        print(f"{row.name:60} {row.value:10.4g} {row.unit}{'   bound missed' if missed(row) else ''}", flush=True)
    if heads == 1:
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(int(wrong))


if __name__ == "__main__":
    main()
