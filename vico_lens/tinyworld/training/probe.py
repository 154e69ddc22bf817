"""Does the direction word bite? The rise of the loss at full noise when "left" is exchanged for "right" and "up" for "down".

At full noise the word is all there is to go by. Raw sensitivity to the word is no substitute: an untrained network scores on
that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vico_lens.tinyworld.training.data import TrainingData

if TYPE_CHECKING:
    from vico_lens.tinyworld.training.loop import Networks

__all__ = ["swapped_direction_loss"]

_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_CLIPS = 48


@torch.no_grad()
def swapped_direction_loss(networks: Networks, data: TrainingData) -> dict[str, float]:
    """Return the loss at full noise with true captions (``probe``) and its rise with opposite directions (``probe_rise``)."""
    from vico_lens.tinyworld.training.loop import predict

    by_prompt = {str(prompt): row for prompt, row in zip(data.prompts, data.tokens, strict=True) if len(prompt.objects) == 1}
    index = [
        i
        for i, prompt in enumerate(data.prompts)
        if len(prompt.objects) == 1
        and prompt.objects[0].motion != "still"
        and _swapped(str(prompt), prompt.objects[0].motion) in by_prompt
    ][:_CLIPS]
    clips = data.latents[index].float().permute(0, 2, 1, 3, 4)
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(5))
    level = torch.ones(len(index))
    swapped = torch.stack([by_prompt[_swapped(str(data.prompts[i]), data.prompts[i].objects[0].motion)] for i in index])
    losses = [
        float((predict(networks, noise, level, tokens) - (noise - clips)).square().mean())
        for tokens in (data.tokens[index], swapped)
    ]
    return {"probe": round(losses[0], 4), "probe_rise": round(losses[1] - losses[0], 4)}


def _swapped(text: str, motion: str) -> str:
    return text.replace(f"moving {motion}", f"moving {_OPPOSITE[motion]}")
