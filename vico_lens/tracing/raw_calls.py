"""What an interception hands on: one softmax as the model computed it, and all of one execution of an attention module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vico_lens.errors import TracingError
from vico_lens.tracing.multihead import Projected

__all__ = ["Attended", "RawCall"]


@dataclass(frozen=True, slots=True)
class RawCall:
    """One softmax, as the model computed it.

    Attributes
    ----------
    query, key : Tensor or None
        ``[batch, head, token, channel]``, live: part of the autograd graph, nothing copied. None if only the result was seen.
    mask : Tensor or None
        As passed: boolean (True takes part) or additive, broadcastable to ``[batch, head, query, key]``.
    causal : bool
        The call asked for the lower triangle only.
    scale : float
        What the logits were multiplied with.
    probabilities : Tensor or None
        ``[batch, head, query, key]`` if the model computed its softmax itself.
    """

    query: Tensor | None
    key: Tensor | None
    mask: Tensor | None
    causal: bool
    scale: float
    probabilities: Tensor | None = None


@dataclass(slots=True)
class Attended:
    """One execution of one attention module: its path, and the calls it made.

    Attributes
    ----------
    denoiser : str
        Name under which the root module was given.
    module : str
        Dotted path below the root.
    owner : nn.Module
        The module itself.
    conditioned : bool
        Encoder states reached the module as an argument.
    calls : list of RawCall
        In order of execution; mostly one. Empty until `join` if the module computed its softmax itself.
    pieces : list of Tensor
        Softmax results of a module that called no fused kernel.
    batch : int
        Leading size of the module's input.
    """

    denoiser: str
    module: str
    owner: nn.Module
    conditioned: bool
    calls: list[RawCall] = field(default_factory=list)
    pieces: list[Tensor] = field(default_factory=list)
    batch: int = 0
    hidden: Any = None
    """Function modes are off for the time of this module."""
    fused: Projected | None = None
    """What an encoder layer attends with, should it run as one kernel."""

    def join(self) -> None:
        """Put softmax results together to one call: sliced processors compute batch times head in slices.

        Raises
        ------
        TracingError
            If they do not make up a whole.
        """
        if self.calls:
            self._join_heads()
        if self.calls or not self.pieces:
            return
        if len({piece.shape[1:] for piece in self.pieces}) == 1 and self.batch:
            whole = self.pieces[0] if len(self.pieces) == 1 else torch.cat(self.pieces)
            if whole.ndim == 3 and whole.shape[0] % self.batch == 0:
                whole = whole.reshape(self.batch, -1, *whole.shape[1:])
            heads = getattr(self.owner, "heads", whole.shape[1])
            if whole.ndim == 4 and tuple(whole.shape[:2]) == (self.batch, heads):
                self.calls.append(RawCall(None, None, None, False, 1.0, whole))
                return
        shapes = ", ".join(str(tuple(piece.shape)) for piece in self.pieces[:4])
        raise TracingError(
            f"{self.denoiser}.{self.module}: expected softmax results that make up [batch * head, query, key] with batch "
            f"{self.batch}, got {len(self.pieces)} of shape {shapes}. Use an attention processor that calls "
            "scaled_dot_product_attention (in diffusers: model.set_default_attn_processor())."
        )

    def _join_heads(self) -> None:
        """Put calls together that a processor made head by head.

        Raises
        ------
        TracingError
            If a call has some of the module's heads, and there are none to complete it.
        """
        heads = next((n for name in ("heads", "num_heads") if isinstance(n := getattr(self.owner, name, None), int)), None)
        counts = [operand.shape[1] for call in self.calls if (operand := call.query) is not None and operand.ndim == 4]
        if heads is None or len(counts) != len(self.calls) or all(count >= heads for count in counts):
            return
        joined: list[RawCall] = []
        part: list[RawCall] = []
        missing = heads
        for call, count in zip(self.calls, counts, strict=True):
            part.append(call)
            missing -= count
            if not missing:
                joined.append(_joined(part))
                part, missing = [], heads
        if part or not _alike(self.calls):
            raise TracingError(
                f"{self.denoiser}.{self.module}: expected attention calls of all {heads} heads of the module, got "
                f"{len(self.calls)} calls of {', '.join(map(str, counts[:4]))} heads that do not make up a whole. Use a "
                "processor that attends with all heads at once (in diffusers: model.set_default_attn_processor())."
            )
        self.calls[:] = joined


def _alike(calls: Sequence[RawCall]) -> bool:
    """Whether calls differ in nothing but the heads they compute."""
    facts = set()
    for call in calls:
        shapes = tuple(None if x is None else (x.shape[0], *x.shape[2:]) for x in (call.query, call.key))
        facts.add((shapes, call.scale, call.causal, call.mask is None))
    return len(facts) == 1


def _joined(calls: Sequence[RawCall]) -> RawCall:
    """One call of all heads, from calls of some each."""
    first = calls[0]
    if len(calls) == 1 or first.query is None or first.key is None:
        return first
    mask = first.mask
    if mask is not None and any(call.mask is not mask for call in calls):
        masks = [call.mask[(None,) * (4 - call.mask.ndim)] for call in calls if call.mask is not None]
        sizes = [call.query.shape[1] for call in calls if call.query is not None]
        mask = torch.cat([m.expand(-1, n, -1, -1) if m.shape[1] == 1 else m for m, n in zip(masks, sizes, strict=True)], 1)
    query, key = (torch.cat([getattr(call, name) for call in calls], 1) for name in ("query", "key"))
    return RawCall(query, key, mask, first.causal, first.scale)
