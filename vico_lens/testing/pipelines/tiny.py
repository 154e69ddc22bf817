"""What a tiny pipeline is, and the table of those that exist.

Every one is the stock diffusers class with stock component classes at toy sizes and random weights: plumbing is real, pictures
are noise. Building is seeded and leaves the caller's random state alone; running draws from a generator of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from vico_lens.errors import InputError
from vico_lens.testing.pipelines.tokenizers import PROMPT
from vico_lens.vocabulary.registry import Registry

__all__ = ["TINY_PIPELINES", "TinyPipeline"]

_DENOISERS = ("unet", "transformer", "transformer_2")
_SHARPNESS = 4.0
_GATE = 0.1
_MIXING = 0.1
_EMBEDDINGS = ("token_embedding.weight", "embed_tokens.weight", "position_embedding.weight", "shared.weight")
_MIXERS = ("out_proj.weight", "o_proj.weight", ".o.weight")


@dataclass(frozen=True, slots=True)
class TinyPipeline:
    """One stock pipeline at toy size, with the arguments that run it.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
        The stock pipeline, its progress bar off.
    kwargs : dict
        Arguments of the stock call; ``pipe(**kwargs)`` draws from torch's global generator, `run` from its own.
    shape : tuple of int
        Of what `run` returns: (video, frame, row, column, channel).
    name : str
        Its entry in the table.
    prompt : str
        The text that conditions it, also where only its embeddings are handed over.
    notes : str
        What differs from the real pipeline: embeddings in place of an encoder, a stubbed module.
    context : callable
        Returns the context manager a call needs (a stub of a missing optional module); it does nothing for most.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("latte-t2v")
    >>> tiny.run(seed=0).shape == tiny.shape
    True
    """

    pipe: Any
    kwargs: dict[str, Any]
    shape: tuple[int, int, int, int, int]
    name: str = ""
    prompt: str = PROMPT
    notes: str = ""
    context: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        """Component name to the denoiser it holds, in the order in which the pipeline uses them."""
        found = ((name, getattr(self.pipe, name, None)) for name in _DENOISERS)
        return {name: module for name, module in found if isinstance(module, nn.Module)}

    def call(self, seed: int = 0, **overrides: Any) -> Any:
        """Run the stock call with a fresh generator and return what it returns."""
        with self.context():
            return self.pipe(**{**self.kwargs, "generator": torch.Generator().manual_seed(seed), **overrides})

    def run(self, seed: int = 0, **overrides: Any) -> np.ndarray:
        """Generate, bit for bit the same for the same `seed`.

        Parameters
        ----------
        seed : int
            Of the generator made for this call.
        **overrides
            Arguments of the stock call that take the place of those in :attr:`kwargs`.

        Returns
        -------
        numpy.ndarray
            Frames in [0, 1], float32, (video, frame, row, column, channel).
        """
        frames = self.call(seed, **overrides).frames
        return frames.numpy() if isinstance(frames, torch.Tensor) else np.asarray(frames)


TINY_PIPELINES: Registry[Callable[[], TinyPipeline]] = Registry("tiny pipeline", "vico_lens.tiny_pipelines")


def build(name: str, seed: int = 0) -> TinyPipeline:
    """Build the pipeline registered as `name`, ready to run; see `vico_lens.testing.pipelines.tiny_pipeline`."""
    builder = TINY_PIPELINES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tiny = replace(builder(), name=name)
        for component in tiny.pipe.components.values():
            if isinstance(component, nn.Module):
                component.eval().requires_grad_(False)
        for name, component in tiny.pipe.components.items():
            if name.startswith("text_encoder"):
                _calm(component)
        for denoiser in tiny.denoisers.values():
            _wake(denoiser)
    if not tiny.denoisers:
        raise InputError(
            f"expected tiny pipeline {name!r} to have one of the components {', '.join(_DENOISERS)}; got none of them."
        )
    tiny.pipe.set_progress_bar_config(disable=True)
    return tiny


def _calm(encoder: nn.Module) -> None:
    """Have every text state speak of its own token, as training would: at initialisation attention outweighs the embeddings."""
    for name, parameter in encoder.named_parameters():
        if name.endswith(_MIXERS):
            parameter.mul_(_MIXING)
        elif name.endswith(_EMBEDDINGS):
            parameter.div_(parameter.std())


def _wake(denoiser: nn.Module) -> None:
    """Make attention matter, as training would.

    At initialisation the softmax is so flat that swapped tokens would go unnoticed, and some models start with their gates shut
    (weights of zero), so that attention would not reach the video at all.
    """
    for name, parameter in denoiser.named_parameters():
        if name.endswith(("to_q.weight", "to_query.weight")):
            parameter.mul_(_SHARPNESS)
        elif parameter.dim() > 1 and not parameter.any():
            parameter.normal_(std=_GATE)
