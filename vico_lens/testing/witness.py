"""A witness: it finds and computes every softmax of a denoiser without any of the tracer's code.

The tracer finds the module of a call with forward hooks and knows layouts from a table. The witness finds it by looking at the
Python frames around the call, computes the softmax eagerly in float64, and uses no layout: its maps are flat, as the
model makes them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Softmax", "Witnessed", "witness"]

_FUSED = nn.functional.scaled_dot_product_attention
_EAGER = (torch.softmax, Tensor.softmax, nn.functional.softmax)


@dataclass(frozen=True, slots=True)
class Softmax:
    """One softmax: the dotted path of its module below the denoiser, and its map ``[batch, head, query, key]`` in float64."""

    module: str
    weights: Tensor


@dataclass(slots=True)
class Witnessed:
    """One forward of a denoiser: its name, its arguments, the rows of its batch, and its softmaxes in order of execution."""

    denoiser: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    softmaxes: list[Softmax] = field(default_factory=list)

    def of(self, module: str) -> list[Tensor]:
        """Return the maps of one module, in order of its calls."""
        return [softmax.weights for softmax in self.softmaxes if softmax.module == module]


class _Mode(TorchFunctionMode):
    def __init__(self, forwards: list[Witnessed], paths: Mapping[int, str]) -> None:
        super().__init__()
        self.forwards = forwards
        self.paths = paths
        self.running = False

    def __torch_function__(self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.running and func is _FUSED:
            self._see(_definition(*args, **kwargs))
        elif self.running and func in _EAGER and out.ndim >= 3:
            self._see(out.double())
        return out

    def _see(self, weights: Tensor) -> None:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            for name in ("attn", "self", "module"):
                path = self.paths.get(id(frame.f_locals.get(name)))
                if path is not None:
                    self.forwards[-1].softmaxes.append(Softmax(path, weights.detach()))
                    return
            frame = frame.f_back


def _definition(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The textbook: softmax(q k^T scale + mask), hidden keys at minus infinity, rows without a key at zero."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    logits = query.double() @ key.double().transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        logits = logits.masked_fill(torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        logits = logits + attn_mask.double()
    return logits.softmax(-1).nan_to_num(0.0)


@contextmanager
def witness(denoisers: Mapping[str, nn.Module]) -> Iterator[list[Witnessed]]:
    """Watch the denoisers for the time of a ``with``.

    Parameters
    ----------
    denoisers : mapping of str to nn.Module
        Component name to denoiser.

    Yields
    ------
    list of Witnessed
        One entry a forward of any of them, in order.

    Examples
    --------
    >>> class Attention(nn.Module):
    ...     def forward(self, x): return nn.functional.scaled_dot_product_attention(x, x, x)
    >>> layer = nn.Sequential(Attention())
    >>> with witness({"layer": layer}) as forwards:
    ...     _ = layer(torch.zeros(1, 2, 3, 4))
    >>> forwards[0].softmaxes[0].module, tuple(forwards[0].softmaxes[0].weights.shape)
    ('0', (1, 2, 3, 3))
    """
    forwards: list[Witnessed] = []
    paths = {id(module): path for root in denoisers.values() for path, module in root.named_modules() if path}
    mode = _Mode(forwards, paths)
    handles = []
    for name, root in denoisers.items():

        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
            forwards.append(Witnessed(name, module, args, dict(kwargs)))
            mode.running = True

        def end(*_: object) -> None:
            mode.running = False

        handles += [root.register_forward_pre_hook(begin, with_kwargs=True), root.register_forward_hook(end, always_call=True)]
    try:
        with mode:
            yield forwards
    finally:
        for handle in handles:
            handle.remove()
