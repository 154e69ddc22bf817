"""What a causal map costs, told before it is made."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CausalPlan"]


@dataclass(frozen=True, slots=True)
class CausalPlan:
    """Cost of a causal map, known after the first denoiser forward of its run.

    Attributes
    ----------
    concepts : tuple of str
        Names of the concepts.
    layers : tuple of str
        Paths of the sites that are cut, in the order of execution.
    steps : tuple of int
        Denoising steps at which they are cut.
    forwards : int
        Extra denoiser forwards.
    runs : int
        Extra sampling runs, for the effect on the final video.
    seconds : float
        About how long the whole takes: forwards, and forwards of the runs, times the seconds of the first one.

    Examples
    --------
    >>> print(CausalPlan(("cat", "dog"), ("unet.a", "unet.b"), (0, 1, 2), 12, 0, 6.4))
    2 concepts, 2 layers, 3 steps: 12 extra denoiser forwards and 0 sampling runs, about 6 s
    """

    concepts: tuple[str, ...]
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    forwards: int
    runs: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{len(self.concepts)} concepts, {len(self.layers)} layers, {len(self.steps)} steps: {self.forwards} extra denoiser "
            f"forwards and {self.runs} sampling runs, about {self.seconds:.0f} s"
        )
