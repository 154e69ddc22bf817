"""Pipelines as users write them: classes with loops of their own around the denoiser of a stock one."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanPipeline

from vico_lens.testing.pipelines import TinyPipeline

STEPS = (900.0, 500.0, 100.0)


class OwnWan(WanPipeline):
    """Wan with a loop of its own: other names, and an order of branches that no pipeline of diffusers has."""

    order = ("uncond", "cond")
    together = False
    guided_steps = len(STEPS)

    @torch.no_grad()
    def __call__(self, text: str, avoid: str) -> torch.Tensor:
        wished, unwanted = self.encode_prompt(text, avoid, max_sequence_length=24, device="cpu")
        texts = {"cond": wished, "uncond": unwanted}
        noisy = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
        for number, time in enumerate(STEPS):
            names = self.order if number < self.guided_steps else ("cond",)
            if self.together:
                outs = self._denoise(torch.cat([noisy] * len(names)), time, torch.cat([texts[name] for name in names]))
                outs = list(outs.chunk(len(names)))
            else:
                outs = [self._denoise(noisy, time, texts[name]) for i, name in enumerate(names)]
            noisy = noisy - 0.1 * sum(outs)
        return noisy

    def _denoise(self, noisy: torch.Tensor, time: float, states: torch.Tensor) -> torch.Tensor:
        return self.transformer(noisy, torch.full((len(noisy),), time), states).sample


def own_wan(tiny: TinyPipeline, **settings: Any) -> OwnWan:
    """The class above, around the parts of a tiny pipeline."""
    pipe = OwnWan(**{name: part for name, part in tiny.pipe.components.items() if isinstance(name, str) and part is not None})
    for name, value in settings.items():
        setattr(pipe, name, value)
    return pipe
