"""What the training loop needs to know of an architecture: its parts, its call and its folder. One subclass a bundled model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vico_lens.errors import InputError
from vico_lens.tinyworld.training.recipe import Recipe
from vico_lens.tinyworld.vocabulary import FRAMES

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
    from transformers import PreTrainedTokenizerBase

__all__ = ["Architecture", "Networks", "architecture_of"]

_LEAST_MUON_SIDE = 32  # smaller matrices are embeddings and norms in disguise


@dataclass(slots=True)
class Networks:
    """The two networks that are trained together."""

    denoiser: nn.Module
    text_encoder: nn.Module

    def parameters(self) -> list[nn.Parameter]:
        """Return all parameters, in a fixed order."""
        return [*self.denoiser.parameters(), *self.text_encoder.parameters()]

    def state_dict(self) -> dict[str, Any]:
        """Return both state dicts."""
        return {"denoiser": self.denoiser.state_dict(), "text_encoder": self.text_encoder.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load both state dicts."""
        self.denoiser.load_state_dict(state["denoiser"])
        self.text_encoder.load_state_dict(state["text_encoder"])


class Architecture(ABC):
    """An architecture, built for one recipe.

    Attributes
    ----------
    name : str
        What recipes call it.
    subsets : bool
        Whether it can be trained on some of the frames, at their true temporal positions.
    patched : bool
        Whether it cuts the latent into patches, whose size a stage gives.
    build_autoencoder : callable
        Returns its untrained autoencoder.

    Parameters
    ----------
    recipe : Recipe
        Gives the sizes.
    patch : int, optional
        Side of a patch in cells; the last stage's unless given.
    """

    name: ClassVar[str]
    subsets: ClassVar[bool] = False
    patched: ClassVar[bool] = False
    build_autoencoder: ClassVar[Callable[[], Any]]

    def __init__(self, recipe: Recipe, patch: int | None = None) -> None:
        for stage in recipe.stages:
            if stage.frames != FRAMES and not self.subsets:
                raise InputError(f"expected whole clips in every stage of a {self.name} recipe, got {stage.frames} frames.")
            if (stage.patch is not None) != self.patched:
                raise InputError(
                    f"expected {'a' if self.patched else 'no'} patch in stage {stage.name!r} of a {self.name} recipe."
                )
        self.recipe = recipe
        self.patch = recipe.stages[-1].patch if patch is None else patch

    @property
    def cells(self) -> int:
        """Cells on a side of a token: of a patch, or one."""
        return self.patch or 1

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, whose padding gives every caption the same length."""

    @abstractmethod
    def denoiser(self) -> nn.Module:
        """Return the untrained denoiser."""

    @abstractmethod
    def text_encoder(self, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
        """Return the untrained text encoder."""

    @abstractmethod
    def velocity(self, networks: Networks, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Return noise minus clip, for latents ``[clip, channel, frame, y, x]`` at noise levels ``[clip]`` in 0..1."""

    @abstractmethod
    def assemble(self, networks: Networks, autoencoder: nn.Module, tokenizer: PreTrainedTokenizerBase) -> DiffusionPipeline:
        """Return the stock pipeline around the trained parts."""

    def refined(self, state: dict[str, Tensor], coarse: int) -> dict[str, Tensor]:
        """Return the denoiser's state for `patch`, made from its state for patches of `coarse` cells."""
        raise InputError(
            f"a {self.name} model cannot change its patches from {coarse} to {self.patch} cells while it is trained."
        )

    @contextmanager
    def frame_positions(self, networks: Networks, frames: Tensor) -> Iterator[None]:
        """Let the denoiser see only `frames`, at their true positions. Architectures without `subsets` see all."""
        yield

    def scheduler(self) -> DPMSolverMultistepScheduler:
        """Return a second-order solver on the noise levels of training."""
        from diffusers import DPMSolverMultistepScheduler

        return DPMSolverMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=self.recipe.shift,
            solver_order=2,
            lower_order_final=True,
        )

    def takes_muon(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a parameter of the denoiser is a matrix of its blocks, to be trained by Muon; the others take AdamW."""
        return parameter.ndim == 2 and "block" in name and min(parameter.shape) >= _LEAST_MUON_SIDE

    def networks(self, tokenizer: PreTrainedTokenizerBase) -> Networks:
        """Return untrained networks; the recipe's seed fixes their weights."""
        torch.manual_seed(self.recipe.seed)
        return Networks(self.denoiser(), self.text_encoder(tokenizer))


def architecture_of(recipe: Recipe, patch: int | None = None) -> Architecture:
    """Return the architecture that a recipe names, for patches of its last stage or of `patch` cells.

    Raises
    ------
    InputError
        If there is none of that name, or the recipe does not fit it.
    """
    from vico_lens.tinyworld.training.cosmos import Cosmos
    from vico_lens.tinyworld.training.joint import Joint
    from vico_lens.tinyworld.training.unet import UNet

    known: dict[str, type[Architecture]] = {kind.name: kind for kind in (UNet, Joint, Cosmos)}
    if recipe.model not in known:
        raise InputError(f"expected model to be one of {', '.join(sorted(known))}, got {recipe.model!r}.")
    return known[recipe.model](recipe, patch)
