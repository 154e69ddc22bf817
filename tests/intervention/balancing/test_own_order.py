"""A class of one's own may put its branches in another order than diffusers: balance must not move the negative prompt's rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import WanPipeline

import vico_lens as vl
from vico_lens.errors import BalanceError
from vico_lens.testing import tiny_pipeline

PROMPT = "a red circle and a blue square"


class Ordered(WanPipeline):
    order = ("cond", "uncond")
    together = False

    @torch.no_grad()
    def __call__(self, prompt: str, avoid: str) -> torch.Tensor:
        wished, unwanted = self.encode_prompt(prompt, avoid, max_sequence_length=24, device="cpu")
        texts = {"cond": wished, "uncond": unwanted}
        generator = torch.Generator().manual_seed(0)
        latents = self.prepare_latents(1, 16, 32, 48, 9, torch.float32, torch.device("cpu"), generator)
        timesteps = [900.0, 500.0]
        for i, t in enumerate(timesteps):  # noqa: B007 (balance reads i)
            groups = [self.order] if self.together else [(name,) for name in self.order]
            outs: list[Any] = []
            for names in groups:
                states = torch.cat([texts[name] for name in names])
                both, times = torch.cat([latents] * len(names)), torch.full((len(names),), t)
                outs += self.transformer(both, times, states).sample.chunk(len(names))
            latents = latents - 0.1 * torch.stack(outs).mean(0)
        return latents


@pytest.mark.parametrize(
    ("order", "together", "taken"),
    [
        (("cond", "uncond"), False, True),
        (("uncond", "cond"), True, True),
        (("uncond", "cond"), False, False),
        (("cond", "uncond"), True, False),
    ],
)
def test_the_rows_of_the_negative_prompt_are_never_balanced(order: Any, together: bool, taken: bool) -> None:
    pipe = Ordered(**{name: part for name, part in tiny_pipeline("wan21-t2v").pipe.components.items() if part is not None})
    pipe.order, pipe.together = order, together
    plain = pipe(PROMPT, "still")
    if taken:
        with vl.balance(pipe):
            assert not torch.equal(pipe(PROMPT, "still"), plain)
        return
    with pytest.raises(BalanceError, match="got the negative prompt there"), vl.balance(pipe):
        pipe(PROMPT, "still")
