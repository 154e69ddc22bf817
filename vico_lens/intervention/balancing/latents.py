"""The latents of a running pipeline, and how they become the denoiser's input.

A stock pipeline keeps its latents in a local variable of ``__call__`` and hands the denoiser something made of them: repeated for
guidance, scaled by the scheduler, joined with the channels of a mask or an image. To differentiate the denoiser with respect to
the latents, and to rebuild its input after they moved, that relation must be known. It is not looked up by pipeline class: it is
solved for on the first call of every denoising step and then verified number by number, so an unknown pipeline is an error and
never a wrong video.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from vico_lens.errors import BalanceError
from vico_lens.tracing.running_call import running_call

__all__ = ["LatentMap", "find_latents", "solve_map"]


def find_latents(pipe: Any) -> tuple[FrameType, Tensor]:
    """Find the innermost running ``__call__`` of a pipeline and its latents.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline whose call is under way, further out on this thread's stack.

    Returns
    -------
    frame : FrameType
        Of the running call. Do not keep it: it keeps alive all that the call holds.
    latents : Tensor
        The tensor itself, not a copy; its layout is the pipeline's own.

    Raises
    ------
    BalanceError
        If no such call is running, it has no tensor named ``latents``, or it runs in inference mode.
    """
    call = running_call(pipe)
    if call is None or call.frame is None:
        raise BalanceError(
            f"expected the denoiser to be called by a running {type(pipe).__name__}.__call__, but none is on the stack; "
            "inside `balance(pipe, ...)` call that pipeline itself, in the same thread."
        )
    latents = call.latents
    if latents is None:
        raise BalanceError(
            f"expected {type(pipe).__name__}.__call__ to hold a tensor named `latents`, got "
            f"{type(call.locals.get('latents')).__name__}; "
            "its sampling loop keeps them elsewhere, so balancing cannot reach them."
        )
    if latents.is_inference() or torch.is_inference_mode_enabled():
        raise BalanceError(
            "expected a pipeline call in which gradients can be switched on, but it runs under torch.inference_mode(), "
            "where they cannot; call the pipeline outside of it (it uses torch.no_grad() by itself)."
        )
    return call.frame, latents


@dataclass(frozen=True, slots=True)
class LatentMap:
    """Differentiable map from latents to the denoiser's input.

    Attributes
    ----------
    repeat : int
        How often the batch of latents stands in the input: 1, or 2 for guidance by batch (unconditional rows first).
    scale : float
        Constant factor (input scaling of the scheduler at this step).
    axis : int or None
        Axis on which further channels follow the latents (a mask, an image); None where there are none.
    template : Tensor
        The input as the pipeline made it: gives those channels, the dtype and the device.
    given : Tensor or None
        Which cells of the latents are given and not generated, broadcastable to them: they are taken from the template.
    """

    repeat: int
    scale: float
    axis: int | None
    template: Tensor
    given: Tensor | None = None

    def __call__(self, latents: Tensor, template: Tensor | None = None) -> Tensor:
        """Rebuild the whole input from `latents`, with the further channels of `template` (default: the one solved on)."""
        template = self.template if template is None else template
        copies = template.shape[0] // latents.shape[0]
        return self._join(torch.cat([latents] * copies) if copies > 1 else latents, template)

    def conditional(self, latents: Tensor) -> Tensor:
        """Build the rows of the input that are conditioned on the prompt: the last of the repeats."""
        return self._join(latents, self.template[-latents.shape[0] :])

    def _join(self, rows: Tensor, template: Tensor) -> Tensor:
        scaled = (rows * self.scale).to(template.device, template.dtype)
        if self.given is not None:
            known = template if self.axis is None else template.narrow(self.axis, 0, rows.shape[self.axis])
            scaled = torch.where(_repeated(self.given, rows.shape[0]), known, scaled)
        if self.axis is None:
            return scaled
        size = rows.shape[self.axis]
        return torch.cat([scaled, template.narrow(self.axis, size, template.shape[self.axis] - size)], self.axis)


def _repeated(given: Tensor, rows: int) -> Tensor:
    """Bring the given cells of each video to the rows of a batch that holds the videos several times."""
    return given if given.shape[0] == 1 else torch.cat([given] * (rows // given.shape[0]))


def solve_map(latents: Tensor, model_input: Tensor, given: Tensor | None = None) -> LatentMap:
    """Solve for the map from latents to model input, and verify it on every element.

    Parameters
    ----------
    latents : Tensor [batch, ...]
        As the pipeline keeps them.
    model_input : Tensor [repeat * batch, ...]
        What the denoiser was given, of the same number of axes.
    given : Tensor, optional
        Cells that are given, see `vico_lens.intervention.balancing.given_cells`; the input may hold anything there.

    Returns
    -------
    LatentMap

    Raises
    ------
    BalanceError
        If the input is not made by repeating the batch, scaling by a constant and appending channels, or holds numbers that
        are not finite: after updates, because they were too large.

    Examples
    --------
    >>> latents = torch.arange(4.0).reshape(1, 4)
    >>> found = solve_map(latents, 0.5 * torch.cat([latents, latents]))
    >>> found.repeat, found.scale
    (2, 0.5)
    """
    what = f"latents of shape {tuple(latents.shape)} and a denoiser input of shape {tuple(model_input.shape)}"
    if not (bool(torch.isfinite(latents).all()) and bool(torch.isfinite(model_input).all())):
        raise BalanceError(
            f"expected finite latents and a finite denoiser input, got NaN or infinity in {what}. If earlier denoising steps "
            "were balanced, their updates were too large: lower the size of the step rule (the default is FixedRms(0.05)) or the "
            "number of iterations. If not, the pipeline overflows by itself: run it in float32 or bfloat16."
        )
    if latents.dim() != model_input.dim() or model_input.shape[0] % latents.shape[0]:
        raise _unknown(what)
    wider = [axis for axis in range(1, latents.dim()) if latents.shape[axis] != model_input.shape[axis]]
    if len(wider) > 1:
        raise _unknown(what)
    axis = wider[0] if wider else None
    known = model_input if axis is None else model_input.narrow(axis, 0, min(latents.shape[axis], model_input.shape[axis]))
    repeat = model_input.shape[0] // latents.shape[0]
    if repeat > 2:
        raise BalanceError(
            f"expected the batch of latents once or twice in the denoiser's input, found it {repeat} times ({what}): which rows "
            "are the conditional ones is not known for this kind of guidance; switch it off."
        )
    rows = torch.cat([latents] * repeat).float()
    if known.shape != rows.shape:
        raise _unknown(what)
    if given is not None:
        free = ~_repeated(given, rows.shape[0])
        rows, known = rows * free, known * free
    peak = rows.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)  # squares of huge latents would overflow
    power = (rows / peak).square().sum()
    scale = float((known.float() / peak * (rows / peak)).sum() / power) if power > 0 else 1.0
    exact = model_input.dtype == torch.float32 and latents.dtype == torch.float32
    scale = 1.0 if abs(scale - 1.0) < (1e-6 if exact else 1e-2) else scale
    if not torch.allclose(known.float(), rows * scale, rtol=1e-4 if exact else 2e-2, atol=1e-3):
        raise _unknown(what)
    return LatentMap(repeat, scale, axis, model_input, given)


def _unknown(what: str) -> BalanceError:
    return BalanceError(
        "expected the denoiser's input to be the pipeline's latents, repeated, scaled by one factor, perhaps with channels "
        f"appended; found {what}, which are not related so. This pipeline's sampling loop cannot be balanced; please report its "
        "class."
    )
