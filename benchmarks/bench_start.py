"""How long a user waits for the package itself: importing it, and starting the command line. Each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks import Measured

WAYS = {
    "python alone": "pass",
    "import vico_lens": "import vico_lens",
    "command line, help": "from vico_lens.cli.app import build_app; build_app()",
    "first attribution name": "import vico_lens; vico_lens.attribute",
}


def run(repeats: int = 5) -> Iterator[Measured]:
    """Best of several runs, in seconds of wall time."""
    for name, code in WAYS.items():
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds.append(time.perf_counter() - start)
        yield Measured(name, min(seconds), "s")
