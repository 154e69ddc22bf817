"""Factors at CogVideoX size, in short; ``python -m benchmarks.factors`` does the same for other sizes."""

from __future__ import annotations

from benchmarks.factors import run

__all__ = ["run"]
