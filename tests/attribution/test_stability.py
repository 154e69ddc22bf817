"""The radius of `stability` is relative to the spread of the text states; see section 2 of tests/kernels/oracles.md."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from vico_lens.attribution.judging.checks import stability


class Call:
    """A denoiser call of which nothing but the text is asked."""

    def __init__(self, text: Tensor) -> None:
        self.text = text

    def told(self, text: Tensor) -> Call:
        return Call(text)


def measured(scale: float, radius: float = 0.02) -> float:
    text = torch.linspace(-1, 1, 60).reshape(6, 10) * scale
    return stability(cast(Any, Call(text)), cast(Any, lambda call: call.text), radius=radius, samples=8)


def test_text_states_of_any_size_are_changed_in_proportion() -> None:
    assert measured(1000.0) == pytest.approx(measured(1.0), rel=1e-4) == pytest.approx(measured(0.001), rel=1e-4)


def test_the_change_is_that_of_uniform_noise_of_the_radius() -> None:
    """For the explanation that is the text itself: at most radius, and near radius / sqrt(3), the spread of uniform noise."""
    for radius in (0.02, 0.2):
        assert radius / 3**0.5 * 0.9 < measured(1.0, radius) < radius / 3**0.5 * 1.5
