"""Measurements that `make bench` repeats: one file ``bench_*.py`` a topic, each with a function ``run`` that yields `Measured`
rows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Measured"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured number.

    Attributes
    ----------
    name : str
        What was measured, with its size ("max flow, 8x8x8, 20 sites").
    value : float
        The number.
    unit : str
        Its unit ("s", "MB", "x").
    """

    name: str
    value: float
    unit: str
