"""The pipeline call that is running right now: whose it is, and what its local variables say.

A stock pipeline is called untouched, so nobody hands over the prompt, the seed or the step. They are read where they are: in the
local variables of the pipeline's own ``__call__``, found by walking the Python frames from the denoiser's forward outwards.
Diffusers names these variables alike in all its video pipelines. What a pipeline lacks is None here, never a guess. A class of
one's own may use the same names for other things, so its loop index counts only where its timesteps confirm it.

Every part of the package that looks at a running call does it here, and ends one early with `StopCall`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Pipeline", "RunningCall", "StopCall", "running_call", "strings"]


class Pipeline(Protocol):
    """What is asked of a pipeline: it is called, and its parts are attributes. Denoisers are named by the table of families.

    A ``scheduler``, an ``encode_prompt``, tokenizers, text encoders and a ``video_processor`` are used where they are there.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make a video."""


class StopCall(BaseException):
    """Ends a pipeline call from inside, once enough was seen. A pipeline's ``except Exception`` does not catch it."""


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
    stock : bool
        The code that runs is that of diffusers.
    pipe : object
        The pipeline that is being called.

    Examples
    --------
    >>> call = RunningCall({"prompt": "a red circle", "i": 3, "guidance_scale": 7.5}, order=2)
    >>> call.prompts, call.step, call.first_order, call.guidance_scale
    (['a red circle'], 1, False, 7.5)
    """

    locals: Mapping[str, Any]
    order: int = 1
    frame: FrameType | None = None
    stock: bool = True
    pipe: object = None

    @property
    def latents(self) -> Tensor | None:
        """The running latents, or None."""
        value = self.locals.get("latents")
        return value if isinstance(value, Tensor) else None

    @property
    def iteration(self) -> int | None:
        """Index of the pipeline's denoising loop, or None before it, or in a loop that does not say."""
        value = self.locals.get("i")
        if not isinstance(value, int) or self.stock:
            return value if isinstance(value, int) else None
        loop = _numbers(self.locals.get("timesteps"))
        here = loop is not None and value < len(loop) and loop[value] == self.timestep
        return value if here else None

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
        """Timesteps of the steps of this call, in order of denoising (one a step), or None before they are set.

        Where every frame has a timestep of its own (diffusion forcing), those of the first frame.
        """
        matrix = self.locals.get("step_matrix")
        if isinstance(matrix, Tensor) and matrix.ndim == 2:
            return [float(t) for t in matrix[:, 0].tolist()]
        value = self.locals.get("timesteps")
        if value is None and not self.stock:
            value = getattr(self.locals.get("scheduler") or getattr(self.pipe, "scheduler", None), "timesteps", None)
        numbers = _numbers(value)
        return None if numbers is None else numbers[:: self.order]

    @property
    def restart(self) -> tuple[int, int]:
        """Index and number of the samplings of which only the last one is kept (FreeInit); (0, 1) without."""
        index, count = self.locals.get("free_init_iter"), self.locals.get("num_free_init_iters")
        return (index, count) if isinstance(index, int) and isinstance(count, int) else (0, 1)

    @property
    def prompts(self) -> list[str] | None:
        """The prompts, or None if the pipeline was called with embeddings."""
        return strings(self.locals.get("prompt"))

    @property
    def negative_prompts(self) -> list[str] | None:
        """The negative prompts, or None."""
        return strings(self.locals.get("negative_prompt"))

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
        """Weight of classifier-free guidance, or None; of a guider if the pipeline has one."""
        asked = _number(self.locals.get("guidance_scale"))
        return asked if asked is not None else _number(getattr(getattr(self.pipe, "guider", None), "guidance_scale", None))

    @property
    def seeds(self) -> list[int] | None:
        """Seeds that the generators handed over were given, or None if the global generator draws."""
        value = self.locals.get("generator")
        generators = [value] if isinstance(value, torch.Generator) else value
        if not isinstance(generators, (list, tuple)) or not all(isinstance(g, torch.Generator) for g in generators):
            return None
        return [int(g.initial_seed()) for g in generators]


def running_call(pipe: object, denoiser: object = None) -> RunningCall | None:
    """Find the running ``__call__`` of `pipe` among the callers of this function.

    Parameters
    ----------
    pipe : object
        A pipeline.
    denoiser : object
        Its denoiser: the call of another pipeline that holds the same one is found too.

    Returns
    -------
    RunningCall or None
        The innermost one; None if this thread is in none. Its `pipe` says which pipeline it is.

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
    block: dict[str, Any] = {}
    while frame is not None:
        # the name first: reading f_locals of every frame on the way would copy all their variables
        if frame.f_code.co_name == "__call__" and frame.f_code.co_varnames[:1] == ("self",):
            variables = frame.f_locals
            caller = variables.get("self")
            if "block_state" in variables and not block:  # a block of a modular pipeline, innermost first
                block = {name: variables[name] for name in ("i", "t") if name in variables} | _values(variables["block_state"])
            if caller is pipe or (denoiser is not None and _holds(caller, denoiser)):
                order = getattr(getattr(caller, "scheduler", None), "order", 1)
                stock = str(frame.f_globals.get("__name__", "")).startswith("diffusers.")
                known = {**variables, **_values(variables.get("state")), **block}
                return RunningCall(known, order if isinstance(order, int) else 1, frame, stock, caller)
        frame = frame.f_back
    return None


def _holds(caller: object, denoiser: object) -> bool:
    """Whether an object is a pipeline around this denoiser, compiled or not."""
    if getattr(caller, "scheduler", None) is None:
        return False
    inner = getattr(denoiser, "_orig_mod", denoiser)
    return any(inner is getattr(part, "_orig_mod", part) for part in vars(caller).values())


def _values(state: object) -> dict[str, Any]:
    """Values that the blocks of a modular pipeline hand on."""
    values = getattr(state, "values", None)
    return dict(values) if isinstance(values, Mapping) else dict(getattr(state, "__dict__", {}))


def strings(value: object) -> list[str] | None:
    """Return a prompt or several as a list, None if they are something else."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return list(value)
    return None


def _numbers(value: object) -> list[float] | None:
    if isinstance(value, Tensor):
        value = value.tolist()
    if not isinstance(value, Sequence) or not all(isinstance(t, (int, float)) for t in value):
        return None
    return [float(t) for t in value]


def _number(value: object) -> float | None:
    if isinstance(value, Tensor):
        return float(value.flatten()[0]) if value.numel() else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
