"""Targets of captum's methods: the effect falls in the frame and the place in which it happens."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from vico_lens.attribution.methods.captum_methods import PromptEffect


class Problem:
    grid = (3, 2, 2)


class Call:
    """A denoiser whose prediction is the sum of the text times a map that differs in every frame, row and column."""

    text = torch.ones(2, 1)
    weights = torch.arange(1.0, 13).reshape(3, 2, 2, 1)

    def predict(self, text: Tensor, grid: tuple[int, int, int]) -> Tensor:
        return text.sum() * self.weights


@pytest.mark.parametrize("target", ["video", "frame", "token"])
def test_effect_of_the_prompt_falls_where_it_happens(target: str) -> None:
    effect = PromptEffect(cast(Any, Call()), torch.zeros(2, 1), cast(Any, Problem()), target)  # type: ignore[arg-type]
    square = Call.weights.square()[..., 0] / Call.weights.square().sum()
    expected = {"video": square.sum()[None], "frame": square.sum((1, 2)), "token": square.flatten()}[target]
    half = torch.tensor([[1.0], [0.0]])
    scores = effect(torch.stack([Call.text, half, torch.zeros(2, 1)]))
    torch.testing.assert_close(scores, torch.stack([expected, expected / 2, 0 * expected]))
