"""Step rules: sizes as stated, Adam as torch's, randomness of its own."""

from __future__ import annotations

import pytest
import torch

from vico_lens.errors import InputError
from vico_lens.intervention.balancing.steps import Adam, FixedRms, RandomDirection, clips_of, rms


def gradients(count: int = 1, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(2, 4, 3, 5, 5, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_fixed_rms_has_its_size_for_every_video_whatever_the_gradient(scale: float) -> None:
    (gradient,) = gradients(scale=scale)
    gradient[1] *= 100
    change = FixedRms(0.02).start(0, 10)(gradient)
    torch.testing.assert_close(rms(change), torch.full((2,), 0.02))
    assert torch.nn.functional.cosine_similarity(change.flatten(1), gradient.flatten(1)).tolist() == pytest.approx([-1, -1])


def test_decay_is_the_published_schedule() -> None:
    (gradient,) = gradients()
    sizes = [float(rms(FixedRms(1.0, decay=0.5).start(step, 50)(gradient))[0]) for step in range(50)]
    torch.testing.assert_close(torch.tensor(sizes), torch.linspace(1.0, 0.5, 50).sqrt())


def test_adam_is_adam() -> None:
    parameter = torch.zeros(2, 4, 3, 5, 5, requires_grad=True)
    reference = torch.optim.Adam([parameter], lr=1e-2, eps=1e-7)
    move = Adam(1e-2, epsilon=1e-7).start(0, 50)
    position = torch.zeros_like(parameter)
    for gradient in gradients(6):
        parameter.grad = gradient
        reference.step()
        position = position + move(gradient)
    torch.testing.assert_close(position, parameter.detach())


def test_adam_keeps_its_first_step_in_float16_gradients() -> None:
    """Where torch's float16 Adam divides by an underflowed second moment and jumps by 0.84, method.md 7.6."""
    gradient = torch.full((1, 8), 1e-3, dtype=torch.float16)
    change = Adam(1e-4, epsilon=1e-7).start(0, 50)(gradient)
    torch.testing.assert_close(change, torch.full((1, 8), -1e-4), rtol=2e-4, atol=0)


def test_adam_forgets_between_denoising_steps() -> None:
    rule = Adam(1e-4)
    (gradient,) = gradients()
    torch.testing.assert_close(rule.start(0, 50)(gradient), rule.start(0, 50)(gradient))


def test_random_direction_has_the_size_and_not_the_direction() -> None:
    state = torch.random.get_rng_state()
    (gradient,) = gradients()
    rule = RandomDirection(FixedRms(0.02), seed=3)
    change = rule.start(4, 10)(gradient)
    torch.testing.assert_close(rms(change), torch.full((2,), 0.02))
    assert abs(float(torch.nn.functional.cosine_similarity(change.flatten(), gradient.flatten(), dim=0))) < 0.2
    torch.testing.assert_close(rule.start(4, 10)(gradient), change)
    assert not torch.allclose(rule.start(5, 10)(gradient), change)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_every_clip_has_random_directions_of_its_own_whatever_is_beside_it() -> None:
    latents, gradient = gradients(2)
    clips = clips_of(latents)
    rule = RandomDirection(FixedRms(0.02), seed=3)
    move = rule.start(4, 10, clips)
    first, second = move(gradient), move(gradient)  # two iterations of a step
    alone = rule.start(4, 10, clips_of(latents[1:]))
    for change in (first, second):
        torch.testing.assert_close(alone(gradient[1:]), change[1:])
        assert abs(float(torch.nn.functional.cosine_similarity(change[0].flatten(), change[1].flatten(), dim=0))) < 0.2
    assert not torch.allclose(first, second)
    assert not torch.allclose(rule.start(4, 10, clips_of(latents + 1))(gradient), first)
    assert clips_of(latents) == clips and len(set(clips)) == 2


@pytest.mark.parametrize("make", [lambda: FixedRms(0), lambda: FixedRms(-1), lambda: Adam(0), lambda: Adam(float("nan"))])
def test_sizes_that_are_not_positive_are_refused(make: object) -> None:
    with pytest.raises(InputError, match="positive"):
        make()  # type: ignore[operator]
