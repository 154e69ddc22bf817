"""Objectives against the numbers of the published code, and against what they say they are."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.attribution import influence_of_stages
from vico_lens.errors import InputError
from vico_lens.intervention.balancing.objectives import (
    AttendAndExcite,
    Directed,
    Equal,
    Influences,
    Variance,
    Weakest,
    objectives,
    travel,
)
from vico_lens.kernels.parity import smooth
from vico_lens.kernels.stages import Stage


def oracle_stages() -> list[Stage]:
    """The group of method.md 7.4: four frames, a 3 x 3 grid, 8 tokens, 2 heads, one cross and two temporal sites."""
    frames, heads, tokens = 4, 2, 8

    def softmax(wave: torch.Tensor, *shape: int) -> torch.Tensor:
        return torch.softmax(wave.reshape(shape), -1)

    cross = softmax(
        3 * torch.sin(0.37 * torch.arange(frames * heads * 9 * tokens, dtype=torch.float64)), frames, heads, 9, tokens
    )
    first = softmax(2 * torch.sin(0.53 * torch.arange(9 * heads * 16, dtype=torch.float64)), 9, heads, frames, frames)
    second = softmax(2 * torch.cos(0.29 * torch.arange(9 * heads * 16, dtype=torch.float64)), 9, heads, frames, frames)
    grid = (frames, 3, 3)
    block = "unet.down_blocks.0"
    return [
        Stage("cross", f"{block}.attentions.0.attn2", 0, grid, cross.mean(1)),
        Stage("temporal", f"{block}.motion_modules.0.attn1", 1, grid, first.mean(1)),
        Stage("temporal", f"{block}.motion_modules.0.attn2", 2, grid, second.mean(1)),
    ]


@pytest.mark.parametrize(
    ("kind", "strengths", "loss"),
    [
        ("hard", [0.130589774, 0.045967612, 0.538245289], 0.954032388),
        ("soft", [0.130331304, 0.041643008, 0.541851525], 0.958356992),
        ("rollout", [0.02318171, 0.00662132, 0.600453947], 0.99337868),
    ],
)
def test_weakest_is_the_published_loss(kind: str, strengths: list[float], loss: float) -> None:
    content = [(token,) for token in range(1, 7)]  # without the start token and from the end token on
    maps = influence_of_stages(oracle_stages(), content, "subgraph_flow", kind=kind, parity=True)
    verdict = Weakest()(Influences(maps, ((1,), (3,), (5,)), maps[[1, 3, 5]]))
    assert verdict.loss.item() == pytest.approx(loss, abs=1e-6)
    assert verdict.strengths.tolist() == pytest.approx(strengths, abs=1e-6)


def test_loss_can_be_taken_twice() -> None:
    """The published code scales its maps in place, so that a second look differs."""
    maps = influence_of_stages(oracle_stages(), [(token,) for token in range(1, 7)], "subgraph_flow", parity=True)
    given_maps = Influences(maps, ((0,), (2,)), maps[:2])
    assert Weakest()(given_maps).loss.item() == Weakest()(given_maps).loss.item()


def random_maps(seed: int, count: int = 4, grid: tuple[int, int, int] = (3, 4, 2)) -> torch.Tensor:
    return torch.rand(count, *grid, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_smoothing_is_the_kernel_of_the_published_loss() -> None:
    maps = random_maps(0)
    axis = torch.exp(-((torch.arange(3.0, dtype=torch.float64) - 1) ** 2))  # the released exponent at its sigma of 0.5
    kernel = axis[:, None, None] * axis[:, None] * axis
    padded = torch.nn.functional.pad(maps[:, None], (1,) * 6, mode="reflect")
    torch.testing.assert_close(smooth(maps), torch.nn.functional.conv3d(padded, (kernel / kernel.sum())[None, None])[:, 0])


def test_smoothing_keeps_a_constant_where_an_axis_has_one_cell() -> None:
    torch.testing.assert_close(smooth(torch.full((2, 1, 1, 5), 0.3)), torch.full((2, 1, 1, 5), 0.3))


def test_smoothing_over_two_axes_leaves_frames_apart() -> None:
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 1] = 1
    torch.testing.assert_close(smooth(maps, 2), maps)


@given(st.integers(0, 1000))
def test_equal_is_zero_only_at_its_targets(seed: int) -> None:
    maps = random_maps(seed, 3)
    totals = maps.flatten(1).sum(1)
    at_targets = Equal(targets=totals.tolist())(Influences(maps, ((0,), (1,), (2,)), maps))
    assert at_targets.loss.item() == pytest.approx(0, abs=1e-12)
    shares = totals / totals.sum()
    expected = sum(math.log((1 / 3) / share) / 3 for share in shares.tolist())
    assert Equal()(Influences(maps, ((0,), (1,), (2,)), maps)).loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("targets", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, 1.0, 1.0)])
def test_equal_refuses_targets_that_do_not_fit(targets: tuple[float, ...]) -> None:
    maps = random_maps(0, 2)
    with pytest.raises(InputError, match="one positive target share for each of 2"):
        Equal(targets=targets)(Influences(maps, ((0,), (1,)), maps))


def test_variance_is_that_of_the_strengths_of_weakest() -> None:
    maps = random_maps(1)
    given_maps = Influences(maps, ((0,), (1, 2)), maps[:2])
    strengths = Weakest()(given_maps).strengths
    verdict = Variance()(given_maps)
    torch.testing.assert_close(verdict.strengths, strengths)
    assert verdict.loss.item() == pytest.approx(2 * float(strengths.var(unbiased=False)))


def test_attend_and_excite_looks_at_every_frame() -> None:
    """A concept that is strong in one frame and absent in the others is starved, though its best voxel is not."""
    maps = torch.zeros(2, 4, 5, 5, dtype=torch.float64)
    maps[0, :, 0, 0] = maps[1, 0, 4, 4] = 0.2
    given_maps = Influences(maps, ((0,), (1,)), maps)
    everywhere, once = AttendAndExcite()(given_maps).strengths.tolist()
    assert everywhere > once
    assert Weakest(sigma=1e-3)(given_maps).strengths.tolist() == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize("name", list(objectives))
def test_gradients_match_finite_differences(name: str) -> None:
    objective = objectives[name]()
    maps = (0.05 * random_maps(3, 3, (2, 3, 3))).requires_grad_()

    def loss(values: torch.Tensor) -> torch.Tensor:
        return objective(Influences(values, ((0,), (1, 2)), torch.stack([values[0], values[1] + values[2]]))).loss

    assert torch.autograd.gradcheck(loss, (maps,), eps=1e-7, atol=1e-4)


def blob(row: float, column: float, side: int = 16) -> torch.Tensor:
    """A round spot with its centre at a place given as shares of the picture."""
    places = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return torch.exp(-((places[:, None] - row).square() + (places[None, :] - column).square()) / (2 * 0.08**2))


@given(
    start=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
    speed=st.tuples(st.floats(-0.02, 0.02), st.floats(-0.02, 0.02)),
    power=st.sampled_from([1.0, 3.0]),
)
def test_travel_is_the_way_of_a_spot(start: tuple[float, float], speed: tuple[float, float], power: float) -> None:
    frames = torch.stack([blob(start[0] + speed[0] * t, start[1] + speed[1] * t) for t in range(8)])
    # From the middle of frames 0 to 2 to the middle of frames 5 to 7 are five frames.
    assert travel(frames[None], power)[0].tolist() == pytest.approx([5 * speed[0], 5 * speed[1]], abs=0.01)


def test_directed_asks_for_the_way_that_the_words_name() -> None:
    right = torch.stack([blob(0.5, 0.3 + 0.05 * t) for t in range(8)])
    still = torch.stack([blob(0.25, 0.5)] * 8)
    maps = torch.stack([right, still])

    def misled(*directions: tuple[float, float] | None) -> float:
        influences = Influences(maps, ((0,), (1,)), maps, directions)
        return (Directed(motion=1.0)(influences).loss - Weakest()(influences).loss).item()

    assert misled((0.0, 1.0), (0.0, 0.0)) == pytest.approx(0, abs=2e-4)  # travels 0.25, more than the margin
    assert misled((0.0, -1.0), (0.0, 0.0)) == pytest.approx(0.2 + 0.25, abs=5e-3)
    assert misled((1.0, 0.0), None) == pytest.approx(0.2, abs=5e-3)
    assert misled((0.0, 0.0), (-1.0, 0.0)) == pytest.approx(0.25 + 0.2, abs=5e-3)
    assert misled(None, None) == misled() == 0


def test_directed_turns_a_motion_round() -> None:
    """Descent on the loss, with the map itself as the variable, reverses the way that the map goes."""
    logits = torch.log(torch.stack([blob(0.5, 0.4 + 0.03 * t, 8) for t in range(8)]) + 1e-3)[None].requires_grad_()
    objective = Directed(motion=1.0)

    def maps() -> torch.Tensor:
        return torch.softmax(logits.flatten(2), 2).reshape(logits.shape)

    assert travel(maps())[0, 1] > 0.05
    for _ in range(40):
        loss = objective(Influences(maps(), ((0,),), maps(), ((0.0, -1.0),))).loss
        (gradient,) = torch.autograd.grad(loss, logits)
        if not gradient.any():  # far enough
            break
        with torch.no_grad():
            logits -= 0.2 * gradient / gradient.square().mean().sqrt()
    assert travel(maps())[0, 1] < -0.05
