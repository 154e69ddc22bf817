"""Path products, in short; ``python -m benchmarks.products`` compares with the definitions."""

from __future__ import annotations

from benchmarks.products import run

__all__ = ["run"]
