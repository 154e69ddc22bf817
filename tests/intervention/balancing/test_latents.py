"""The map from latents to denoiser input, and the conditional rows of its arguments."""

from __future__ import annotations

import pytest
import torch

from vico_lens.errors import BalanceError
from vico_lens.intervention.balancing.latents import find_latents, solve_map
from vico_lens.intervention.balancing.rows import conditional_rows


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 0.07, 3.0])
@pytest.mark.parametrize("axis", [None, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_solved_map_rebuilds_the_input_from_other_latents(
    repeat: int, scale: float, axis: int | None, dtype: torch.dtype
) -> None:
    def make(latents: torch.Tensor) -> torch.Tensor:
        rows = (torch.cat([latents] * repeat) * scale).to(dtype)
        more = draw(2 * repeat, *[3 if other == axis else size for other, size in enumerate(latents.shape)][1:], seed=1).to(dtype)
        return rows if axis is None else torch.cat([rows, more], axis)

    latents, other = draw(2, 4, 3, 5, 6), draw(2, 4, 3, 5, 6, seed=2)
    found = solve_map(latents, make(latents))
    assert found.repeat == repeat
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-2}
    torch.testing.assert_close(found(other), make(other), **tolerance)
    torch.testing.assert_close(found.conditional(other), make(other)[-2:], **tolerance)


def test_map_is_differentiable() -> None:
    latents = draw(1, 2, 3)
    found = solve_map(latents, 0.5 * torch.cat([latents, latents]))
    variable = latents.clone().requires_grad_()
    found(variable).sum().backward()
    torch.testing.assert_close(variable.grad, torch.ones_like(latents))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x + 0.05 * draw(*x.shape, seed=5),
        lambda x: x[:, :, :2],
        lambda x: x.flatten(1),
        lambda x: torch.cat([x.flip(1), x]),
        lambda x: x[:, :1],
    ],
    ids=["noise", "cropped", "flattened", "flipped", "fewer channels"],
)
def test_unrelated_input_is_an_error_and_not_a_guess(spoil: object) -> None:
    latents = draw(1, 4, 6, 5)
    with pytest.raises(BalanceError, match="latents of shape"):
        solve_map(latents, spoil(latents))  # type: ignore[operator]


def test_three_branches_are_refused() -> None:
    latents = draw(1, 4, 6)
    with pytest.raises(BalanceError, match="3 times"):
        solve_map(latents, torch.cat([latents] * 3))


class Pipeline:
    """As much of a pipeline as the look-up sees."""

    def __init__(self, latents: object) -> None:
        self.given = latents

    def __call__(self) -> torch.Tensor:
        latents = self.given  # noqa: F841 - read through the frame
        return self.inner()

    def inner(self) -> torch.Tensor:
        return find_latents(self)[1]


def test_latents_are_the_tensor_itself() -> None:
    latents = draw(1, 2)
    assert Pipeline(latents)() is latents


def test_look_up_says_what_is_missing() -> None:
    with pytest.raises(BalanceError, match="none is on the stack"):
        Pipeline(draw(1, 2)).inner()
    with pytest.raises(BalanceError, match="got NoneType"):
        Pipeline(None)()
    with torch.inference_mode(), pytest.raises(BalanceError, match="inference_mode"):
        Pipeline(draw(1, 2))()


def test_conditional_rows_by_name_and_size() -> None:
    rows, repeat = 4, 2
    arguments = {
        "hidden_states": torch.arange(4),
        "encoder_hidden_states": torch.arange(12),
        "timestep": torch.tensor(5.0),
        "image_rotary_emb": (torch.arange(4), torch.arange(4)),
        "added_cond_kwargs": {"image_embeds": [torch.arange(8)]},
        "attention_kwargs": None,
        "num_frames": 4,
        "grid": torch.arange(8),
    }
    taken = {name: conditional_rows(value, rows, repeat, name) for name, value in arguments.items()}
    assert taken["hidden_states"].tolist() == [2, 3]
    assert taken["encoder_hidden_states"].tolist() == [6, 7, 8, 9, 10, 11]
    assert taken["timestep"] == 5.0
    assert [part.tolist() for part in taken["image_rotary_emb"]] == [[0, 1, 2, 3]] * 2
    assert taken["added_cond_kwargs"]["image_embeds"][0].tolist() == [4, 5, 6, 7]
    assert taken["attention_kwargs"] is None and taken["num_frames"] == 4
    assert taken["grid"].tolist() == list(range(8))
    same = conditional_rows(arguments["hidden_states"], rows, 1, "hidden_states")
    assert same is arguments["hidden_states"]
