"""What Cosmos' stock pipeline asks for beside the model: a safety checker. The tiny world holds nothing that needs one."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

__all__ = ["ShapesOnlyChecker"]


class ShapesOnlyChecker(ModelMixin, ConfigMixin):
    """Lets every prompt and clip pass: a model that knows coloured shapes alone cannot say or draw anything else.

    `CosmosTextToWorldPipeline` builds NVIDIA's guardrail, a gated download, unless its folder brings a checker. This one has no
    weights but an empty buffer, so that ``DiffusionPipeline.from_pretrained(folder)`` loads it like any other part.
    """

    nothing: Tensor

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1))

    def check_text_safety(self, prompt: str) -> bool:
        """Say that `prompt` may be used."""
        return True

    def check_video_safety(self, frames: Any) -> Any:
        """Return `frames` as they are."""
        return frames
