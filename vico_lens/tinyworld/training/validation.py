"""Measure a training on clips that it never sees: layouts rendered fresh, the same for every model.

The probe asks whether the direction word bites: the rise of the loss at full noise when "left" is exchanged for "right" and "up"
for "down". At full noise the word is all there is to go by. Raw sensitivity to the word is no substitute: an untrained network
scores on that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vico_lens.tinyworld.codec import PatchCode
from vico_lens.tinyworld.prompts import TinyPrompt
from vico_lens.tinyworld.training.architecture import Architecture, Networks
from vico_lens.tinyworld.training.captions import Captions
from vico_lens.tinyworld.training.data import draw_clip
from vico_lens.tinyworld.training.precision import products_in

__all__ = ["Validation", "make_validation"]

_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_BATCH = 16
_HIGH = 0.9


@dataclass(frozen=True, slots=True)
class Validation:
    """Fresh clips of one and of two objects, latents ``[clip, channel, frame, y, x]`` with their prompts, and noise levels.

    `levels` ``[clip]`` and `noise` ``[clip, channel, frame, y, x]`` serve every set, so that losses compare over time.
    """

    one: tuple[Tensor, tuple[TinyPrompt, ...]]
    two: tuple[Tensor, tuple[TinyPrompt, ...]]
    moving: tuple[Tensor, tuple[TinyPrompt, ...]]
    levels: Tensor
    noise: Tensor

    @torch.no_grad()
    def measure(self, architecture: Architecture, networks: Networks, captions: Captions) -> dict[str, float]:
        """Return losses on one and two objects over all noise levels and at a high one, and the probe at full noise.

        The high level is where shapes and places are decided.
        """

        def loss(clips: Tensor, texts: list[str], levels: Tensor) -> float:
            tokens, at = captions(texts), levels.view(-1, 1, 1, 1, 1)
            noisy = (1 - at) * clips + at * self.noise
            errors = []
            for part in torch.arange(len(clips)).split(_BATCH):
                with products_in(architecture.recipe.precision):
                    velocity = architecture.velocity(networks, noisy[part], levels[part], tokens[part])
                errors.append((velocity.float() - (self.noise[part] - clips[part])).square())
            return float(torch.cat(errors).mean())

        full, high = torch.ones_like(self.levels), torch.full_like(self.levels, _HIGH)
        sets = {"one": self.one, "two": self.two}
        moving, prompts = self.moving
        probe = loss(moving, [str(prompt) for prompt in prompts], full)
        swapped = loss(moving, [_swapped(prompt) for prompt in prompts], full)
        losses = {
            f"{label}_{name}": round(loss(clips, [str(prompt) for prompt in asked], levels), 4)
            for name, (clips, asked) in sets.items()
            for label, levels in (("loss", self.levels), ("high", high))
        }
        return losses | {
            "probe": round(probe, 4),
            "probe_rise": round(swapped - probe, 4),
        }


def make_validation(code: PatchCode, *, seed: int, shift: float, clips: int = 48) -> Validation:
    """Render `clips` clips a set; chance comes from `seed`, apart from the training's own.

    Parameters
    ----------
    code : PatchCode
        Of the training's clips.
    seed : int
        The recipe's.
    shift : float
        The recipe's time shift: noise levels stand at even steps of it.
    clips : int
        Clips a set.
    """
    rng = np.random.default_rng([seed, 5])

    def render(kind: str, moving: bool) -> tuple[Tensor, tuple[TinyPrompt, ...]]:
        found: list[tuple[TinyPrompt, Tensor]] = []
        while len(found) < clips:
            prompt, frames = draw_clip(kind, rng)
            if not moving or prompt.objects[0].motion != "still":
                found.append((prompt, code.encode(frames)))
        return torch.stack([latents for _, latents in found]).transpose(1, 2), tuple(prompt for prompt, _ in found)

    uniform = (torch.arange(clips) + 0.5) / clips
    one, two, moving = render("one", False), render("two", False), render("one", True)
    noise = torch.randn(one[0].shape, generator=torch.Generator().manual_seed(seed))
    return Validation(one, two, moving, shift * uniform / (1 + (shift - 1) * uniform), noise)


def _swapped(prompt: TinyPrompt) -> str:
    motion = prompt.objects[0].motion
    return str(prompt).replace(f"moving {motion}", f"moving {_OPPOSITE[motion]}")
