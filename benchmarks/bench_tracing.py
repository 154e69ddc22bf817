"""What tracing costs beside an untraced call and beside a recorder that materialises every softmax."""

from __future__ import annotations

from benchmarks.tracing import run

__all__ = ["run"]
