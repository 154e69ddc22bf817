"""Orthogonalised momentum (Muon) for the matrices of many small layers.

`torch.optim.Muon` does the same one matrix at a time in bfloat16, which CPUs emulate: with some 150 matrices of 32 to 256 rows
that costs more than the backward pass. Here matrices of equal shape are stacked and treated together in float32.
Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["BatchedMuon", "orthogonalise"]

# Coefficients of the quintic iteration, chosen by its author for a steep slope at zero.
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Replace the singular values of wide matrices ``[matrix, row, column]`` by values near one, by a Newton-Schulz iteration."""
    x = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(_ITERATIONS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_CUBIC, alpha=_QUINTIC), x, beta=_LINEAR)
    return x


class BatchedMuon(torch.optim.Optimizer):
    """Muon over matrices, those of equal shape in one batch.

    Parameters
    ----------
    params : iterable of Parameter
        Matrices ``[out, in]``.
    lr : float
        Step size; a tall matrix takes ``sqrt(out / in)`` times it.
    momentum, weight_decay : float
        Nesterov momentum and decoupled decay.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.015,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure: the loss is never re-evaluated
        """Apply one update."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor, bool]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                average = state.setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(average, group["momentum"])
                tall = parameter.shape[0] > parameter.shape[1]
                update = update.T if tall else update
                by_shape.setdefault((update.shape[0], update.shape[1]), []).append((parameter, update, tall))
            for members in by_shape.values():
                steps = orthogonalise(torch.stack([update for _, update, _ in members]).to(self.precision)).float()
                for (parameter, _, tall), direction in zip(members, steps, strict=True):
                    stretch = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(direction.T if tall else direction, alpha=-group["lr"] * stretch)
