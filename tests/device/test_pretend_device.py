"""The pretended device itself: it computes what the CPU computes, and reports each fault that a GPU would show."""

from __future__ import annotations

import pytest
import torch

from vico_lens.testing.pretend_device import DEVICE, PretendTensor, pretend_device, to_pretend_device


def test_values_and_gradients_are_those_of_the_cpu() -> None:
    query, key, mass = torch.randn(2, 4, 8), torch.randn(2, 6, 8), torch.rand(6, 3)

    def work(q: torch.Tensor, k: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return torch.softmax(q @ k.mT / 8**0.5, -1).mean(0)[..., [0, 2, 4]] @ m[::2]

    expected_query = query.clone().requires_grad_()
    expected = work(expected_query, key, mass)
    expected.square().sum().backward()
    with pretend_device() as log:
        moved = to_pretend_device(query.requires_grad_())
        got = work(moved, to_pretend_device(key), to_pretend_device(mass))
        got.square().sum().backward()
    assert isinstance(got, PretendTensor) and got.device == DEVICE
    torch.testing.assert_close(got.wrapped, expected.detach())
    torch.testing.assert_close(moved.grad.wrapped, expected_query.grad)
    assert log.events("mixed", "numpy", "down", "sync") == []


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (lambda x: x + torch.ones(3), "mixed"),
        (lambda x: torch.ones(3)[x.long()], "mixed"),
        (lambda x: x.numpy(), "numpy"),
        (lambda x: x.sum().item(), "sync"),
        (lambda x: float(x[0]), "sync"),
        (lambda x: bool((x > 0).all()), "sync"),
        (lambda x: x.tolist(), "sync"),
        (lambda x: x.nonzero(), "sync"),
        (lambda x: x[x > 0], "sync"),
        (lambda x: x.cpu(), "down"),
        (lambda x: x.to("cpu", torch.float64), "down"),
        (lambda x: torch.zeros(3).copy_(x), "down"),
        (lambda x: x.copy_(torch.ones(3)), "up"),
        (lambda x: torch.ones(3).to(x.device), "up"),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), "up"),
        (lambda x: x.new_tensor([1.0]), "up"),
        (lambda x: x[[0, 2]], "up"),
    ],
)
def test_each_fault_is_reported_with_its_line(work: object, kind: str) -> None:
    with pretend_device(package="device") as log:
        try:
            work(to_pretend_device(torch.ones(3)))  # type: ignore[operator]
        except (RuntimeError, TypeError):
            assert kind in ("mixed", "numpy")
    (event,) = log.in_package(kind)  # type: ignore[arg-type]
    assert event.times == 1 and event.line.startswith("test_pretend_device.py:")


def test_work_that_stays_on_the_device_reports_nothing() -> None:
    with pretend_device() as log:
        x = to_pretend_device(torch.ones(3, 3))
        (x @ x + torch.zeros(3, device=x.device)).softmax(-1).sum(0)[1:] * 2.0 + torch.arange(2, device=x.device)
    assert log.events() == []
