"""A site given by its query and key: exact, on any device, in memory linear in the number of tokens.

Mass goes through the map as the values of torch's own attention, which streams over keys. Strips of the map are computed from
each row's maximum and sum, which one pass finds and the operator keeps. Half precision is kept as it came and brought to float32
one head (one strip) at a time: a processor's half precision attention is slower than the conversion, and mass rounded to half
precision would lose what rollout adds up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from vico_lens.errors import InputError
from vico_lens.kernels.operators import STRIP, Operator, Strip, overlaps, refuse_large
from vico_lens.kernels.softmax import (
    MASKED,
    Normaliser,
    attention,
    attention_columns,
    block_bias,
    exact_dtype,
    hides,
    row_normaliser,
    without_autocast,
)

__all__ = ["FactorOperator"]

# Numbers of query, key and result of the heads that go through one attention call: 64 MiB in float32.
_CARRIED = 1 << 24
# Keys whose logits are made at once: with some queries they stay in a processor's cache.
_KEYS = 1024
# Logits, over all heads, of a map that is made whole rather than streamed.
_SMALL = 1 << 22
# Logits of all heads at once when they are few; some heads after others when they are many.
_LOGITS_AT_ONCE = 1 << 25


class FactorOperator(Operator):
    """Attention by query and key, averaged over heads.

    Parameters
    ----------
    query : Tensor
        ``[head, batch, query, channel]``.
    key : Tensor
        ``[head, batch, key, channel]``; one batch item serves all, and several heads may share one key (``heads / groups``).
    scale : float
        Factor on the dot product.
    bias : Tensor, optional
        Broadcasts against ``[head, batch, query, key]``; an entry at or below `vico_lens.kernels.softmax.MASKED` hides its key.
    causal : bool
        Hide every key after its query.
    memo : dict, optional
        Where the rows' normaliser is kept; operators of the same factors may share one.

    Raises
    ------
    InputError
        If the shapes do not belong together.

    Examples
    --------
    >>> query, key = torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4)
    >>> FactorOperator(query, key, 0.5).carry(torch.tensor([[[3.0, 0.0, 0.0]]]))
    tensor([[[1., 1., 1.]]])
    """

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        scale: float,
        bias: Tensor | None = None,
        *,
        causal: bool = False,
        memo: dict[str, Normaliser] | None = None,
        first_query: int = 0,
        first_key: int = 0,
    ) -> None:
        if query.ndim != 4 or key.ndim != 4 or query.shape[-1] != key.shape[-1]:
            raise InputError(
                f"expected query and key as [head, batch, token, channel] with one head size; got {tuple(query.shape)} and "
                f"{tuple(key.shape)}."
            )
        if query.shape[0] % key.shape[0] or key.shape[1] not in (1, query.shape[1]):
            raise InputError(
                f"expected the heads of the query ({query.shape[0]}) to be a multiple of the key's ({key.shape[0]}), and one "
                f"batch item of keys for each of the query's ({query.shape[1]}) or for all; got {key.shape[1]}."
            )
        self.query, self.key, self.scale, self.bias, self.causal = query, key, scale, bias, causal
        self.first_query, self.first_key = first_query, first_key
        self.shape = (query.shape[1], query.shape[2] - first_query, key.shape[2] - first_key)
        self.dtype, self.device = exact_dtype(query, key), query.device
        self.memo: dict[str, Normaliser] = {} if memo is None else memo

    @property
    def heads(self) -> int:
        """Heads that are averaged."""
        return self.query.shape[0]

    @property
    def in_memory(self) -> bool:
        """Whether the logits of all heads are so few that the map is made whole."""
        return self.heads * self.shape[0] * self.query.shape[2] * self.key.shape[2] <= _SMALL

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Query and key."""
        return (self.query, self.key)

    def part(self, first_query: int, first_key: int) -> FactorOperator:
        """The same factors; the rows keep their sums over all keys."""
        return FactorOperator(
            self.query,
            self.key,
            self.scale,
            self.bias,
            causal=self.causal,
            memo=self.memo,
            first_query=self.first_query + first_query,
            first_key=self.first_key + first_key,
        )

    # -- products -----------------------------------------------------------------------------------------------------------

    @without_autocast
    def carry(self, mass: Tensor) -> Tensor:
        """One `scaled_dot_product_attention` whose values are the mass, of some heads at a time.

        The processor's kernel streams over keys only where values are as wide as a head, so columns are padded to that.
        """
        dtype = torch.promote_types(self.dtype, mass.dtype)
        query, channels = self.query[:, :, self.first_query :], self.query.shape[-1]
        batch, rows, _ = self.shape
        values = pad(mass.to(dtype), (self.first_key, 0)).mT
        some = max(1, _CARRIED // (batch * channels * (2 * rows + self.key.shape[2])))
        dead = self._dead()
        parts = []
        for first in range(0, values.shape[-1], channels):
            part = values[..., first : first + channels]
            width = part.shape[-1]
            part = pad(part, (0, channels - width))[:, None]
            total: Tensor | None = None
            for head in range(0, self.heads, some):
                q = query[head : head + some].to(dtype).transpose(0, 1)
                k = self._key(slice(head, head + q.shape[1])).to(dtype).transpose(0, 1).expand(batch, -1, -1, -1)
                mask = self._mask(slice(head, head + q.shape[1]), q)
                got = scaled_dot_product_attention(
                    q, k, part.expand(-1, q.shape[1], -1, -1), attn_mask=mask, is_causal=self._plain_causal, scale=self.scale
                )[..., :width]
                if dead is not None:
                    got = got.masked_fill(dead[:, head : head + some] if dead.shape[1] > 1 else dead, 0.0)
                found = got.sum(1)
                total = found if total is None else total + found
            assert total is not None  # a site has at least one head
            parts.append(total)
        return (torch.cat(parts, -1) / self.heads).mT

    @without_autocast
    def columns(self, keys: Sequence[int]) -> Tensor:
        """Columns from the rows' normalisers, head by head."""
        chosen = torch.as_tensor(keys, device=self.device) + self.first_key
        normaliser = None if self.in_memory else self.normaliser()
        total: Tensor | None = None
        rows = slice(self.first_query, None)
        for head in range(self.heads):
            key, bias = self._key(slice(head, head + 1))[0], self._bias_of(head)
            if self.causal:
                found = self._causal_columns(head, key, bias, chosen, normaliser)
            else:
                pair = None if normaliser is None else (normaliser[0][head][:, rows], normaliser[1][head][:, rows])
                bias = bias[:, rows] if bias is not None and bias.shape[1] > 1 else bias
                found = attention_columns(self.query[head][:, rows], key, self.scale, bias, chosen, normaliser=pair)
            total = found if total is None else total + found
        assert total is not None
        return total / self.heads

    def _causal_columns(
        self, head: int, key: Tensor, bias: Tensor | None, chosen: Tensor, normaliser: Normaliser | None
    ) -> Tensor:
        pair = None if normaliser is None else (normaliser[0][head], normaliser[1][head])
        found = attention_columns(self.query[head], key, self.scale, bias, chosen, normaliser=pair, causal=True)
        return found[:, self.first_query :]

    @without_autocast
    def dense(self) -> Tensor:
        """The head mean of `vico_lens.kernels.softmax.attention`, some heads at a time."""
        batch = self.shape[0]
        refuse_large(self.shape)
        some = max(1, _LOGITS_AT_ONCE // (batch * self.query.shape[2] * self.key.shape[2]))
        total: Tensor | None = None
        for head in range(0, self.heads, some):
            part = slice(head, min(head + some, self.heads))
            weights = self._whole(part, slice(0, batch)).sum(0)
            total = weights if total is None else total + weights
        assert total is not None
        return (total / self.heads)[:, self.first_query :, self.first_key :]

    # -- strips -------------------------------------------------------------------------------------------------------------

    def normaliser(self) -> Normaliser:
        """Maximum logit and sum of ``exp(logit - maximum)`` of every row, each ``[head, batch, query]``; computed once.

        Raises
        ------
        InputError
            If query or key hold NaN or infinity.
        """
        if "normaliser" not in self.memo:
            found = [
                row_normaliser(
                    self.query[head].detach(),
                    self._key(slice(head, head + 1))[0].detach(),
                    self.scale,
                    self._bias_of(head),
                    causal=self.causal,
                )
                for head in range(self.heads)
            ]
            pair = torch.stack([peak for peak, _ in found]), torch.stack([total for _, total in found])
            if not bool((pair[0] + pair[1]).isfinite().all()):
                raise InputError("expected finite query and key; got NaN or infinity. Trace in float32.")
            self.memo["normaliser"] = pair
        return self.memo["normaliser"]

    def strips(self, items: slice | None = None, queries: slice | None = None) -> Iterator[Strip]:
        """Whole maps of as many batch items as fit, or some queries of one item by all keys."""
        batch, size = self.query.shape[1], _SMALL // (self.heads * self.query.shape[2] * self.key.shape[2])
        if not size:
            for item in range(batch):
                if overlaps(slice(item, item + 1), items):
                    yield from self._strips_of(item, queries)
            return
        for first in range(0, batch, size):
            some = slice(first, min(first + size, batch))
            if not overlaps(some, items):
                continue
            with torch.no_grad():
                weights = self._whole(slice(0, self.heads), some).mean(0)[:, self.first_query :, self.first_key :]
            yield Strip(some, slice(0, self.shape[1]), weights.mT)

    def _strips_of(self, item: int, wanted: slice | None) -> Iterator[Strip]:
        """Strips of one batch item: query block, key block, then all heads, whose mean must be whole before a minimum."""
        peak, total = self.normaliser()
        queries, keys = self.query.shape[2], self.key.shape[2]
        rows = max(1, min(queries, STRIP // keys))
        buffer = torch.empty(keys * rows, dtype=self.dtype, device=self.device)
        block = torch.empty(min(_KEYS, keys) * rows, dtype=self.dtype, device=self.device)
        for first in range(self.first_query, queries, rows):
            here = slice(first, min(first + rows, queries))
            part = slice(first - self.first_query, here.stop - self.first_query)
            if not overlaps(part, wanted):
                continue
            height = here.stop - here.start
            strip = buffer[: keys * height].view(keys, height).zero_()
            for there in self._key_blocks():
                out = block[: (there.stop - there.start) * height].view(-1, height)
                for head in range(self.heads):
                    strip[there] += self._weights_of(head, item, here, there, peak, total, out)
            strip /= self.heads
            yield Strip(slice(item, item + 1), part, strip[None, self.first_key :])

    def _key_blocks(self) -> Iterator[slice]:
        keys = self.key.shape[2]
        for first in range(0, keys, _KEYS):
            yield slice(first, min(first + _KEYS, keys))

    @without_autocast
    def _weights_of(
        self, head: int, item: int, here: slice, there: slice, peak: Tensor, total: Tensor, out: Tensor | None
    ) -> Tensor:
        """Weights of one head, ``[key, query]``, for queries `here` and keys `there`."""
        with torch.no_grad():
            query = self.query[head, item, here].to(self.dtype) * self.scale
            key = self._one_key(head, item, there).to(self.dtype)
            logits = torch.mm(key, query.mT) if out is None else torch.mm(key, query.mT, out=out)
            bias = self._bias_of(head)
            bias = None if bias is None else bias.expand(self.query.shape[1], self.query.shape[2], self.key.shape[2])[item]
            part = block_bias(bias, here, there, self.causal, self.device)
            if part is not None:
                logits += part.mT.to(logits).clamp_min(10 * MASKED)
            # Dividing by the sum here, through its logarithm, would lose digits where logits are large.
            weights = logits.sub_(peak[head, item, here]).exp_().mul_(total[head, item, here].reciprocal())
            return weights if part is None else weights.masked_fill_(hides(part).mT, 0.0)

    def pull(self, strip: Strip, gradient: Tensor, into: Sequence[Tensor]) -> None:
        """Gradient of query and key from that of a strip: a softmax's backward pass on that strip alone.

        With weights W of a head and gradient G on them, the gradient on the logits is ``W * (G - sum over keys of G * W)``.
        """
        peak, total = self.normaliser()
        to_query, to_key = into
        here = slice(strip.queries.start + self.first_query, strip.queries.stop + self.first_query)
        groups = self.heads // self.key.shape[0]
        for place, item in enumerate(range(strip.batch.start, strip.batch.stop)):
            above = pad(gradient[place], (0, 0, self.first_key, 0)) / self.heads
            at = item if self.key.shape[1] > 1 else 0
            for head in range(self.heads):
                query = self.query[head, item, here].to(self.dtype)
                row_sum = torch.zeros(here.stop - here.start, dtype=self.dtype, device=self.device)
                for there in self._key_blocks():
                    weights = self._weights_of(head, item, here, there, peak, total, None)
                    row_sum += (weights * above[there]).sum(0)
                for there in self._key_blocks():
                    weights = self._weights_of(head, item, here, there, peak, total, None)
                    logits = weights * (above[there] - row_sum) * self.scale
                    to_query[head, item, here] += logits.mT @ self._one_key(head, item, there).to(self.dtype)
                    to_key[head // groups, at, there] += logits @ query

    # -- operands -----------------------------------------------------------------------------------------------------------

    def _key(self, heads: slice) -> Tensor:
        """Keys of some heads of the query, ``[head, batch, key, channel]``."""
        groups = self.heads // self.key.shape[0]
        if groups == 1:
            return self.key[heads]
        return self.key[[head // groups for head in range(heads.start, min(heads.stop, self.heads))]]

    def _one_key(self, head: int, item: int, there: slice) -> Tensor:
        groups = self.heads // self.key.shape[0]
        return self.key[head // groups, item if self.key.shape[1] > 1 else 0, there]

    def _bias_of(self, head: int) -> Tensor | None:
        """Bias of one head, ``[batch or 1, query or 1, key or 1]``."""
        return None if self.bias is None else self.bias[head if self.bias.shape[0] > 1 else 0]

    def _whole(self, heads: slice, items: slice) -> Tensor:
        """Weights of some heads and batch items, ``[head, batch, query, key]``, by the definition."""
        key = self._key(heads)
        key = key[:, items] if key.shape[1] > 1 else key
        bias = self.bias
        if bias is not None:
            bias = bias[heads] if bias.shape[0] > 1 else bias
            bias = bias[:, items] if bias.shape[1] > 1 else bias
        return attention(self.query[heads][:, items], key, self.scale, bias, causal=self.causal)

    @property
    def _plain_causal(self) -> bool:
        return self.causal and self.bias is None and self.first_query == 0

    def _mask(self, heads: slice, query: Tensor) -> Tensor | None:
        """Bias of some heads as the kernel takes it, ``[batch, head, query, key]``, a view where it can be."""
        if self.bias is None and (not self.causal or self._plain_causal):
            return None
        keys = self.key.shape[2]
        bias = self.bias
        if bias is not None:
            bias = (bias[heads] if bias.shape[0] > 1 else bias).transpose(0, 1)
            bias = bias[:, :, self.first_query :] if bias.shape[2] > 1 else bias
            bias = bias.to(query.dtype).masked_fill(hides(bias), 10 * MASKED)
            bias = bias.expand(*query.shape[:3], keys)
        if self.causal:
            rows = slice(self.first_query, self.first_query + query.shape[2])
            later = block_bias(None, rows, slice(0, keys), True, self.device)
            assert later is not None
            later = later.to(query.dtype).clamp_min(10 * MASKED)
            bias = later.expand(*query.shape[:3], keys) if bias is None else torch.minimum(bias, later)
        return bias

    def _dead(self) -> Tensor | None:
        """Which rows a mask hides altogether, to be broadcast against ``[batch, head, query, 1]``."""
        if self.bias is None:
            return None
        rows = hides(self.bias).all(-1, keepdim=True)
        if self.causal:  # the first queries see few keys
            rows = hides(self._mask_whole()).all(-1, keepdim=True)
        rows = rows[:, :, self.first_query :] if rows.shape[2] > 1 else rows
        return rows.transpose(0, 1)

    def _mask_whole(self) -> Tensor:
        assert self.bias is not None
        whole = self.bias.expand(*self.bias.shape[:2], self.query.shape[2], self.key.shape[2])
        hidden = block_bias(whole, slice(0, self.query.shape[2]), slice(0, self.key.shape[2]), True, self.device)
        assert hidden is not None
        return hidden
