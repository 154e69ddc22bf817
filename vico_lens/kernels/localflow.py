"""Exact maximum flow of one group (cross-attention, then temporal sites) to every video token, with its gradient.

The cheap products bound this flow; this is the flow itself, one small push-relabel for each (token, frame, position). The
gradient is the indicator of a minimum cut: the flow grows with the edges that cross it and with no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vico_lens.errors import InputError
from vico_lens.kernels.products import sum_product

if TYPE_CHECKING:
    from vico_lens.kernels.maxflow_loops import Network

__all__ = ["local_flow"]


def _chain(frames: int, hops: int) -> Network:
    """Shape of `hops` dense stages between levels of `frames` nodes."""
    import numpy as np

    from vico_lens.kernels.maxflow_loops import Network

    size = np.full(hops, frames, np.int64)
    zero = np.zeros(hops, np.int64)
    stage = np.arange(hops, dtype=np.int64)
    return Network(
        node=np.arange(hops + 2, dtype=np.int64) * frames,
        split=np.full((hops, 2), frames, np.int64),
        block=np.stack([stage, stage], 1),
        groups=zero + 1,
        rows=size,
        columns=size,
        interleaved=np.zeros(hops, np.bool_),
        source=zero,
        target=zero,
        edge=stage * frames * frames,
    )


class _LocalFlow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, injection: Tensor, hops: Tensor, ends: Tensor) -> Tensor:
        from vico_lens.kernels import localflow_loops as loops
        from vico_lens.kernels.jit import over_threads

        arrays = [tensor.detach().cpu().double().contiguous() for tensor in (injection, hops, ends)]
        positions, tokens, frames = injection.shape
        value = torch.empty(positions, tokens, frames, dtype=torch.float64)
        source_side = torch.empty(positions, tokens, frames, hops.shape[1] + 1, frames, dtype=torch.bool)
        net = _chain(frames, hops.shape[1])
        parts = [tensor.numpy() for tensor in (*arrays, value, source_side)]
        over_threads(lambda part: loops.forward(net, *(array[part] for array in parts)), positions)
        ctx.save_for_backward(source_side)
        ctx.like = [(tensor.shape, tensor.dtype, tensor.device) for tensor in (injection, hops, ends)]
        return value.to(injection)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        from vico_lens.kernels import localflow_loops as loops
        from vico_lens.kernels.jit import over_threads

        (source_side,) = ctx.saved_tensors
        grads = [torch.zeros(shape, dtype=torch.float64) for shape, _, _ in ctx.like]
        parts = [tensor.numpy() for tensor in (source_side, grad.cpu().double().contiguous(), *grads)]
        over_threads(lambda part: loops.backward(*(array[part] for array in parts)), len(source_side))
        return tuple(grad.to(device, dtype) for grad, (_, dtype, device) in zip(grads, ctx.like, strict=True))


def local_flow(injection: Tensor, hops: Sequence[Tensor]) -> Tensor:
    """Exact flow from each source to each video token through one group.

    Parameters
    ----------
    injection : Tensor
        Capacity from a source into each video token, ``[frame, position, token]``, finite and not negative.
    hops : sequence of Tensor
        Capacities along time at each position, ``[position, frame, key frame]``, in execution order. Without any, the flow is the
        injection; with one, it is `vico_lens.kernels.products.sum_product`, exactly.

    Returns
    -------
    Tensor
        ``[frame, position, token]``; computed in float64 on the CPU, returned as `injection` is. Differentiable: the gradient
        is the min-cut indicator, one of several subgradients where cuts tie.

    Raises
    ------
    InputError
        If a capacity is negative or not finite.

    Examples
    --------
    Two frames; the token is seen in the first only, and time spreads it:

    >>> injection = torch.tensor([[[0.6]], [[0.0]]])
    >>> time = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]])
    >>> local_flow(injection, [time, time])[:, 0, 0]
    tensor([0.6000, 0.6000])
    """
    for name, tensor in (("injection", injection), *((f"hops[{k}]", hop) for k, hop in enumerate(hops))):
        if not bool(torch.isfinite(tensor).all()) or bool((tensor < 0).any()):
            raise InputError(f"{name}: expected finite capacities that are not negative; got others. Look upstream for NaN.")
    if not hops:
        return injection
    if len(hops) == 1:
        return sum_product(hops[0], injection.permute(1, 0, 2)).permute(1, 0, 2)
    inner = torch.stack([hop.mT for hop in hops[:-1]], 1)
    value: Tensor = _LocalFlow.apply(injection.permute(1, 2, 0), inner, hops[-1])  # type: ignore[no-untyped-call]
    return value.permute(2, 0, 1)
