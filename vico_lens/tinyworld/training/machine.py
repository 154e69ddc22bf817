"""What a training ran on, since the last bits of its sums depend on it."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

__all__ = ["machine"]


def machine() -> str:
    """Return the processor, the widest instructions that torch finds on it, and the version of torch."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():  # Linux; elsewhere the name that Python knows must do
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    return f"{processor}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
