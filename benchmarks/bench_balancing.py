"""What balancing costs beside a plain call: seconds, memory, denoiser forwards."""

from __future__ import annotations

from benchmarks.balancing import run

__all__ = ["run"]
