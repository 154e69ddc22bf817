"""Run all benchmarks, or those named, and print one table: ``python -m benchmarks [NAME ...] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch

from vico_lens.cli.output import columns


def main() -> None:
    """Run the benchmarks of this folder."""
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(known)} (default: all)")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    torch.set_num_threads(1)
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores, 1 thread"
    )
    found = {}
    for name in arguments.names or known:
        rows = list(import_module(f"benchmarks.bench_{name}").run())
        found[name] = [asdict(row) for row in rows]
        print(f"\n{columns([[row.name, row.value, row.unit] for row in rows], [name, 'value', 'unit'])}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
