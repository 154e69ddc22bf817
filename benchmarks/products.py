"""Path products against their materialising definitions: time, peak memory, equality.

    python -m benchmarks.products       # prints, and writes benchmarks/results/products.md

Each case runs in a process of its own, so that one's memory is not another's peak. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import Measured
from vico_lens.kernels import products

RESULTS = Path(__file__).parent / "results" / "products.md"
SIZES = {
    "[160,16,16] x [160,16,77]": ((160, 16, 16), (160, 16, 77)),
    "[640,2560] x [2560,77]": ((1, 640, 2560), (1, 2560, 77)),
}
KINDS = ("hard", "sum", "soft")
TAU = 0.01


def run() -> Iterator[Measured]:
    """The short form for ``python -m benchmarks``: ours, forward and backward."""
    for size in SIZES:
        for kind in KINDS:
            yield Measured(f"{kind} product with gradient, {size}", measure(size, kind, "ours", True)["seconds"], "s")


def definition(left: Tensor, right: Tensor, kind: str) -> Tensor:
    """Materialise every pair, then reduce: for sums by torch's own reduction, which is faster than adding in order."""
    if kind == "sum":
        return torch.minimum(left[..., :, None, :], right.mT[..., None, :, :]).sum(-1)
    return products.hard_definition(left, right) if kind == "hard" else products.soft_definition(left, right, TAU)


def operands(size: str) -> tuple[Tensor, Tensor]:
    """Softmax rows, as attention has them."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator) for shape in SIZES[size])
    return (2 * left).softmax(-1), (2 * right).softmax(-1)


def measure(size: str, kind: str, form: str, gradient: bool) -> dict[str, float]:
    """Run one case in a fresh process; CPU seconds (best of some runs) and peak bytes above the inputs."""
    case = json.dumps([size, kind, form, gradient])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.products", "--case", case], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def _case(size: str, kind: str, form: str, gradient: bool) -> dict[str, float]:
    torch.set_num_threads(1)
    product: Callable[..., Tensor] = (
        definition if form == "definition" else lambda a, b, kind: products.path_product(a, b, kind, TAU)
    )

    def once(left: Tensor, right: Tensor) -> None:
        if not gradient:
            product(left, right, kind)
            return
        leaves = [part.clone().requires_grad_() for part in (left, right)]
        product(*leaves, kind).sum().backward()

    once(torch.rand(1, 2, 2), torch.rand(1, 2, 2))
    left, right = operands(size)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    once(left, right)
    peak = _memory("VmHWM") - before
    spent: list[float] = []
    while len(spent) < 9 and sum(spent) < 4:
        start = time.process_time()
        once(left, right)
        spent.append(time.process_time() - start)
    return {"seconds": min(spent), "bytes": float(peak)}


def _memory(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def equality() -> list[str]:
    """Rows: largest difference from the definitions, in values and gradients, without and with ties."""
    rows = []
    exact = {
        "hard": products.hard_definition,
        "sum": products.sum_definition,
        "soft": lambda a, b: products.soft_definition(a, b, TAU),
    }
    for label, levels in (("no ties", None), ("ties: values of 8 bits", 256)):
        left, right = operands("[160,16,16] x [160,16,77]")
        if levels is not None:
            left, right = ((part * levels).round() / levels for part in (left, right))
        for kind in KINDS:
            leaves = [part.clone().requires_grad_() for part in (left, right)]
            ours, theirs = products.path_product(*leaves, kind, TAU), exact[kind](*leaves)
            values = "equal bit for bit" if torch.equal(ours, theirs) else f"{(ours - theirs).abs().max().item():.1e}"
            weight = torch.linspace(-1, 2, ours.numel()).reshape(ours.shape)
            grads = zip(torch.autograd.grad(ours, leaves, weight), torch.autograd.grad(theirs, leaves, weight), strict=True)
            rows.append(f"| {kind} | {label} | {values} | {max((a - b).abs().max().item() for a, b in grads):.1e} |")
    return rows


def write(rows: list[str], equal: list[str], note: str) -> None:
    """Write the tables."""
    text = [
        "# Path products, measured",
        f"`python -m benchmarks.products` on {platform.platform()}, {os.cpu_count()} cores, one thread, Python "
        f"{platform.python_version()}, torch {torch.__version__}. {note}",
        "CPU time, best of several runs; float32. The definition materialises every pair as in algorithm 1 of arXiv "
        "2407.06182, with the reduced axis last; for sums it uses torch's own reduction. Peak memory is above the inputs. "
        "Soft at tau 0.01.",
        "| size | product | | definition, ms | ours, ms | x | definition, MiB | ours, MiB | x |\n"
        "|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows),
        "## Equality with the definitions, [160,16,16] x [160,16,77]",
        "| product | operands | values | largest difference of gradients |\n|---|---|---|---|\n" + "\n".join(equal),
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n\n".join(text) + "\n", encoding="utf-8")


def main() -> None:
    """Measure everything and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__)
    parser.add_argument("--note", default="", help="a sentence about the machine, for the head of the results")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(_case(*json.loads(arguments.case))))
        return
    rows: list[str] = []
    equal = equality()
    for size in SIZES:
        for kind in KINDS:
            for gradient in (False, True):
                ours, plain = (measure(size, kind, form, gradient) for form in ("ours", "definition"))
                mib = [case["bytes"] / 2**20 for case in (plain, ours)]
                cells = [
                    size,
                    kind,
                    "forward + backward" if gradient else "forward",
                    f"{1e3 * plain['seconds']:.1f}",
                    f"{1e3 * ours['seconds']:.2f}",
                    f"**{plain['seconds'] / ours['seconds']:.0f}**",
                    f"{mib[0]:.1f}",
                    f"{mib[1]:.1f}",
                    f"**{mib[0] / max(mib[1], 0.1):.0f}**",
                ]
                rows.append(f"| {' | '.join(cells)} |")
                print(rows[-1], flush=True)
                write(rows, equal, arguments.note)  # row by row: an interrupted run leaves what it measured
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
