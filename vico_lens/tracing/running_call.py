"""What the pipeline call that is running right now says about itself.

A stock pipeline is called untouched, so nobody hands the tracer the prompt, the seed or the step. They are read where they are:
in the local variables of the pipeline's own ``__call__``, found by walking the Python frames from the denoiser's forward
outwards. Diffusers names these variables alike in all its video pipelines; what a pipeline lacks is None here, never a guess.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

__all__ = ["RunningCall", "running_call"]


@dataclass(frozen=True, slots=True)
class RunningCall:
    """The local variables of a running ``pipe.__call__``, and the usual questions to them.

    Attributes
    ----------
    locals : mapping
        Name to value, at the moment of the look-up.
    order : int
        Denoiser evaluations a scheduler step needs (2 for Heun): the pipeline's loop counts evaluations.
    frame : frame or None
        The frame itself, to tell one call from another. Whoever keeps it keeps the latents of the call.
    """

    locals: Mapping[str, Any]
    order: int = 1
    frame: FrameType | None = None

    @property
    def latents(self) -> Tensor | None:
        """The running latents, or None."""
        value = self.locals.get("latents")
        return value if isinstance(value, Tensor) else None

    @property
    def iteration(self) -> int | None:
        """Index of the pipeline's denoising loop, or None before it."""
        value = self.locals.get("i")
        return value if isinstance(value, int) else None

    @property
    def step(self) -> int | None:
        """Index of the denoising step: evaluations of one second-order step share it."""
        return None if self.iteration is None else self.iteration // self.order

    @property
    def first_order(self) -> bool:
        """Whether this is the evaluation that starts a step, not the correction of a second-order scheduler."""
        return self.iteration is None or self.iteration % self.order == 0

    @property
    def timestep(self) -> float | None:
        """The loop's timestep as a number, or None."""
        return _number(self.locals.get("t"))

    @property
    def timesteps(self) -> list[float] | None:
        """Timesteps of the steps of this call, in order of denoising (one a step), or None before they are set."""
        value = self.locals.get("timesteps")
        if isinstance(value, Tensor):
            value = value.tolist()
        if not isinstance(value, Sequence) or not all(isinstance(t, (int, float)) for t in value):
            return None
        return [float(t) for t in value[:: self.order]]

    @property
    def prompts(self) -> list[str] | None:
        """The prompts, or None if the pipeline was called with embeddings."""
        return _strings(self.locals.get("prompt"))

    @property
    def negative_prompts(self) -> list[str] | None:
        """The negative prompts, or None."""
        return _strings(self.locals.get("negative_prompt"))

    @property
    def videos_per_prompt(self) -> int:
        """Videos asked for a prompt."""
        names = ("num_videos_per_prompt", "num_images_per_prompt")
        return next((v for name in names if isinstance(v := self.locals.get(name), int)), 1)

    @property
    def rows(self) -> int | None:
        """Videos made at once: prompts times videos a prompt."""
        if self.latents is not None:
            return int(self.latents.shape[0])
        prompts = self.prompts
        return None if prompts is None else len(prompts) * self.videos_per_prompt

    @property
    def guidance_scale(self) -> float | None:
        """Weight of classifier-free guidance, or None."""
        return _number(self.locals.get("guidance_scale"))

    @property
    def seeds(self) -> list[int] | None:
        """Seeds that the generators handed over were given, or None if the global generator draws."""
        value = self.locals.get("generator")
        generators = [value] if isinstance(value, torch.Generator) else value
        if not isinstance(generators, (list, tuple)) or not all(isinstance(g, torch.Generator) for g in generators):
            return None
        return [int(g.initial_seed()) for g in generators]


def running_call(pipe: object) -> RunningCall | None:
    """Find the running ``__call__`` of `pipe` among the callers of this function.

    Parameters
    ----------
    pipe : object
        A pipeline.

    Returns
    -------
    RunningCall or None
        None if `pipe` is not being called by this thread.

    Examples
    --------
    >>> class Pipeline:
    ...     def __call__(self, prompt):
    ...         return running_call(self).prompts
    >>> Pipeline()("a red circle")
    ['a red circle']
    >>> running_call(Pipeline()) is None
    True
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        # the name first: reading f_locals of every frame on the way would copy all their variables
        if frame.f_code.co_name == "__call__" and frame.f_code.co_varnames[:1] == ("self",):
            variables = frame.f_locals
            if variables.get("self") is pipe:
                order = getattr(getattr(pipe, "scheduler", None), "order", 1)
                return RunningCall(dict(variables), order if isinstance(order, int) else 1, frame)
        frame = frame.f_back
    return None


def _strings(value: object) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return list(value)
    return None


def _number(value: object) -> float | None:
    if isinstance(value, Tensor):
        return float(value.flatten()[0]) if value.numel() else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
