"""What a request for influence will read and compute, before it does; and a refusal of what cannot fit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch.nn.functional import scaled_dot_product_attention

from vico_lens.attribution.base import Method
from vico_lens.errors import AttributionError
from vico_lens.kernels.deferred import DeferredOperator
from vico_lens.kernels.operators import Operator
from vico_lens.kernels.resampled import ResampledOperator
from vico_lens.kernels.stages import Stage

__all__ = ["Plan", "plan_of", "rate"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request takes.

    Attributes
    ----------
    method : str
        Name of the method.
    sites, steps : int
        Attention sites read a step, and steps.
    read : int
        Bytes read from the trace.
    held : int
        Bytes in memory at once, at the largest site.
    operations : int
        Floating-point operations of all products with maps.
    seconds : float
        For those operations, at the rate of a short measurement on this device.
    largest : str
        Module of the site that holds most.

    Examples
    --------
    >>> print(Plan("rollout", 30, 1, 4 << 30, 400 << 20, 72 * 10**12, 940.0, "blocks.0.attn"))
    rollout of 30 sites, 1 step: reads 4.3 GB, holds 0.4 GB at once, 72.0 Tflop, about 16 minutes
    """

    method: str
    sites: int
    steps: int
    read: int
    held: int
    operations: int
    seconds: float
    largest: str

    def __str__(self) -> str:
        steps = f"{self.steps} step" + ("s" if self.steps != 1 else "")
        duration = f"{self.seconds / 60:.0f} minutes" if self.seconds >= 90 else f"{self.seconds:.0f} seconds"
        return (
            f"{self.method} of {self.sites} sites, {steps}: reads {self.read / 1e9:.1f} GB, holds {self.held / 1e9:.1f} GB at "
            f"once, {self.operations / 1e12:.1f} Tflop, about {duration}"
        )

    def refuse_unless_it_fits(self, available: int | None = None) -> None:
        """Refuse a plan that holds more than there is.

        Parameters
        ----------
        available : int, optional
            Bytes; by default what the machine has free, where it says.

        Raises
        ------
        AttributionError
            Before anything is read, with what would fit.
        """
        available = free_memory() if available is None else available
        if available is not None and self.held > available:
            raise AttributionError(
                f"{self.method} would hold {self.held / 1e9:.1f} GB at {self.largest}, and {available / 1e9:.1f} GB are free. A "
                "site stored as weights, or opened with chunks=, is read whole: open the trace without chunks=, choose "
                "fewer heads=, leave the site out with layers=, or record with Capture(store='factors'), from which no map is "
                "ever made."
            )


def plan_of(stages: Sequence[Stage], method: Method, *, steps: int = 1) -> Plan:
    """Plan a method on the stages of one step, for several such steps; reads nothing.

    Examples
    --------
    >>> import tempfile
    >>> from vico_lens.attribution import stages_from_trace
    >>> from vico_lens.attribution.base import methods
    >>> from vico_lens.testing.traces import fake_trace
    >>> tree = fake_trace(to=tempfile.mkdtemp() + "/run.zarr", form="factors")
    >>> plan = plan_of(stages_from_trace(tree, 1), methods()["rollout"], steps=2)
    >>> plan.sites, plan.steps, plan.read > 0
    (6, 2, True)
    """
    read = held = operations = 0
    largest = ""
    for stage in stages:
        site = _site(stage.operator)
        if not isinstance(site, DeferredOperator):
            continue
        read += site.cost.read
        operations += int(site.cost.product * method.products)
        if site.cost.held > held:
            held, largest = site.cost.held, stage.module
    seconds = steps * operations / rate(str(stages[0].operator.device)) if operations * steps > 10**10 else 0.0
    return Plan(method.name, len(stages), steps, steps * read, held, steps * operations, seconds, largest)


def _site(operator: Operator) -> Operator:
    return operator.site if isinstance(operator, ResampledOperator) else operator


@lru_cache
def rate(device: str = "cpu") -> float:
    """Floating-point operations a second of attention on a device, from one call of some milliseconds."""
    query = torch.randn(1, 4, 1024, 64, device=device)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        # Reading one number waits for the device.
        scaled_dot_product_attention(query, query, query)[0, 0, 0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 4 * 4 * 1024**2 * 64 / best


def free_memory() -> int | None:
    """Bytes of main memory that are free, where the system says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
