"""Exact flow, in short; ``python -m benchmarks.flow`` compares with other solvers."""

from __future__ import annotations

from benchmarks.flow import run

__all__ = ["run"]
