"""From an attention call to the arrays that are stored for it: the map itself, or the query and key that give it back exactly.

The map of a site costs queries times keys, its factors (queries plus keys) times the head size. `Former` chooses, copies what it
needs out of the model's hands, and leaves the rest of the work, a softmax or nothing, to the writer's thread.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from vico_lens.errors import InputError, StoreError
from vico_lens.kernels.softmax import MASKED, attention_columns
from vico_lens.store.precision import narrow, stored_dtype
from vico_lens.vocabulary.schema import (
    JOINT_BLOCKS,
    AttentionCall,
    AttentionSite,
    Form,
    Precision,
    factor_dims,
    shared_dims,
    softmax_dims,
)

__all__ = ["FORMS", "Former", "Stored", "full_weights", "only_tokens"]

FORMS: tuple[Form, ...] = get_args(Form)

_HIDDEN = 10 * MASKED
Arrays = dict[str, tuple[tuple[str, ...], np.ndarray]]


def full_weights(
    site: AttentionSite, query: Tensor, key: Tensor, scale: float, bias: Tensor | None, columns: Tensor | None = None
) -> Tensor:
    """Return the map of a call, ``[head, *query dims, *key dims]`` or ``[head, sequence, key_sequence]``, or columns of it."""
    shared = len(shared_dims(site.kind, framed=key.ndim == 4))
    rows, keys = query.shape[1:-1], key.shape[1 + shared : -1]
    batch = query.shape[: 1 + shared]
    if bias is not None:
        bias = bias.expand(len(query), *rows, *keys).reshape(*batch, -1, math.prod(keys))
    flat_query, flat_key = query.reshape(*batch, -1, query.shape[-1]), key.reshape(*batch, -1, key.shape[-1])
    shown = keys if columns is None else (len(columns),)
    return attention_columns(flat_query, flat_key, scale, bias, columns).reshape(len(query), *rows, *shown)


def only_tokens(call: AttentionCall, tokens: Sequence[int]) -> AttentionCall:
    """Return a call with the columns of chosen text tokens, as probabilities; a call that reads no text as it is.

    Raises
    ------
    InputError
        If text and video share one softmax: there the text is rows, too.
    """
    site = call.site
    if site.kind == "joint":
        raise InputError(
            f"Capture(tokens=...): expected cross-attention, got {site.module}, whose text and video share one softmax. Record "
            "it whole, or leave it out with kinds=..."
        )
    if site.kind != "cross":
        return call
    there = [token for token in tokens if token < site.tokens]
    with torch.no_grad():
        if call.query is None or call.key is None:
            assert call.probabilities is not None
            columns = call.probabilities[..., there]
        else:
            chosen = torch.tensor(there, dtype=torch.int64, device=call.query.device)
            columns = full_weights(site, call.query, call.key, call.scale, call.bias, chosen)
            columns = columns.to(torch.float16 if call.query.dtype.itemsize == 2 else columns.dtype)
    columns = pad(columns, [0, len(tokens) - len(there)])
    return replace(call, site=replace(site, tokens=len(tokens)), query=None, key=None, bias=None, probabilities=columns)


@dataclass(slots=True)
class Stored:
    """What is stored for one call.

    Attributes
    ----------
    site : AttentionSite
        Its site, with the trace's number of text tokens.
    form : str
        ``weights`` or ``factors``.
    scale : float
        Factor on the dot product of the stored factors; includes the powers of two that `narrow` took out.
    bytes : int
        Held until `arrays` has run.
    arrays : callable
        Gives the arrays by name, with their dimensions from the head on. Called in the writer's thread.
    """

    site: AttentionSite
    form: Literal["weights", "factors"]
    scale: float
    bytes: int
    arrays: Callable[[], Arrays]


@dataclass(slots=True)
class _Layout:
    """What the first calls of a group settled, for all its sites share arrays."""

    dtype: torch.dtype
    framed: bool | None = None
    bias: tuple[str, ...] | None = None
    forms: dict[str, str] = field(default_factory=dict)
    mixed: bool = False


class Former:
    """Decides the form of every site, and copies what is stored of its calls.

    Parameters
    ----------
    form : str
        ``weights``, ``factors``, ``auto`` for the smaller at each site, or ``given`` for factors where a call has them.
    precision : str
        ``model``, ``float32`` or ``float16``.
    tokens : int
        Text tokens of the trace. A site that sees fewer gets hidden ones at the end of its text.
    """

    def __init__(self, form: Form | Literal["given"], precision: Precision, tokens: int) -> None:
        self.form = form
        self.precision = precision
        self.tokens = tokens
        self._layouts: dict[str, _Layout] = {}

    def take(self, call: AttentionCall) -> Stored:
        """Copy what is stored of `call`.

        Raises
        ------
        StoreError
            If the form asked for cannot hold the call.
        """
        _check(call)
        call = _pad_text(call, self.tokens)
        example = call.query if call.query is not None else call.probabilities
        assert example is not None  # `_check` refuses a call without either
        dtype = stored_dtype(self.precision, example.dtype)
        layout = self._layouts.setdefault(call.site.group, _Layout(dtype))
        if dtype.itemsize > layout.dtype.itemsize and not layout.mixed:
            layout.mixed = True
            warnings.warn(
                f"{call.site.module} computes in {example.dtype}, other sites of {call.site.group} in half precision: it is "
                "stored in half precision too, as they share an array. Capture(dtype='float32') keeps every digit.",
                UserWarning,
                stacklevel=2,
            )
        if call.query is None or call.key is None:
            return self._weights(call, layout, None, None)
        key, bias, dims = _one_frame(call.site, call.key), *_essential(call)
        framed = call.site.kind == "cross" and key.ndim == 4
        fits = layout.framed in (None, framed, True) and (layout.bias is None or set(dims) <= set(layout.bias))
        form = layout.forms.get(call.site.module) or self._choose(call.site, call.query, key, bias, fits)
        if form == "weights":
            return self._weights(call, layout, key, bias)
        if not fits:
            raise StoreError(
                f"{call.site.module}: expected keys and masks over the same axes as the other sites of {call.site.group}, whose "
                f"factors share one array (bias over {layout.bias}); got {dims}. Record this site with Capture(store='weights')."
            )
        layout.forms[call.site.module] = "factors"
        layout.framed = framed if layout.framed is None else layout.framed
        if dims and layout.bias is None:
            layout.bias = dims
        if layout.framed and not framed and call.site.kind == "cross":
            key = key[:, None].expand(-1, call.site.grid[0], -1, -1)
        return self._factors(call, layout, key, bias)

    def _choose(self, site: AttentionSite, query: Tensor, key: Tensor, bias: Tensor | None, fits: bool) -> str:
        if self.form != "auto":
            return "factors" if self.form == "given" else self.form
        keys = math.prod(key.shape[1 + len(shared_dims(site.kind, key.ndim == 4)) : -1])
        dense = math.prod(query.shape[:-1]) * keys
        factored = query.numel() + key.numel() + (0 if bias is None else bias.numel())
        return "factors" if fits and factored < dense else "weights"

    def _factors(self, call: AttentionCall, layout: _Layout, key: Tensor, bias: Tensor | None) -> Stored:
        assert call.query is not None
        names = factor_dims(call.site.kind, bool(layout.framed))
        (queries, of_query), (keys, of_key) = narrow(call.query, layout.dtype), narrow(key, layout.dtype)
        arrays: Arrays = {"query": (names["query"], queries), "key": (names["key"], keys)}
        if bias is not None and layout.bias is not None:
            sizes = call.site.sizes
            wide = bias.expand([sizes[dim] if dim in layout.bias else 1 for dim in softmax_dims(call.site.kind)])
            shape = [sizes[dim] for dim in layout.bias]
            arrays["bias"] = (layout.bias, narrow(wide.clamp_min(_HIDDEN).reshape(shape), torch.float32)[0])
        size = sum(array.nbytes for _, array in arrays.values())
        return Stored(call.site, "factors", call.scale * of_query * of_key, size, lambda: arrays)

    def _weights(self, call: AttentionCall, layout: _Layout, key: Tensor | None, bias: Tensor | None) -> Stored:
        if layout.forms.get(call.site.module, "weights") != "weights" or self.form == "factors":
            raise StoreError(
                f"{call.site.module}: expected query and key to store factors, got probabilities only (an eager or sliced "
                "attention processor). Use the default processor, or Capture(store='weights')."
            )
        layout.forms[call.site.module] = "weights"
        with torch.no_grad():
            if call.probabilities is not None:
                maps = call.probabilities.detach().to("cpu", copy=True)
            elif call.query is not None and call.query.device.type != "cpu":
                assert key is not None
                maps = full_weights(call.site, call.query, key, call.scale, bias).to(layout.dtype).cpu()
            else:
                assert call.query is not None and key is not None
                query, key = call.query.detach().clone(), key.detach().clone()
                bias = None if bias is None else bias.detach().clone()
                size = query.nbytes + key.nbytes

                def compute() -> Arrays:
                    with torch.no_grad():
                        return _blocks(call.site, full_weights(call.site, query, key, call.scale, bias), layout.dtype)

                return Stored(call.site, "weights", call.scale, size, compute)
        return Stored(call.site, "weights", call.scale, maps.nbytes, lambda: _blocks(call.site, maps, layout.dtype))


def _blocks(site: AttentionSite, maps: Tensor, dtype: torch.dtype) -> Arrays:
    """Cut a whole map into the variables of its kind."""
    if site.kind != "joint":
        return {"weights": (softmax_dims(site.kind), _plain(maps, dtype))}
    part = {"text": slice(0, site.tokens), "video": slice(site.tokens, None)}
    axes = {"text": (site.tokens,), "video": site.grid}
    arrays: Arrays = {}
    for name, dims in JOINT_BLOCKS.items():
        rows, keys = name.split("_")
        block = maps[:, part[rows], part[keys]].reshape(len(maps), *axes[rows], *axes[keys])
        arrays[name] = (("head", *dims), _plain(block, dtype))
    return arrays


def _plain(maps: Tensor, dtype: torch.dtype) -> np.ndarray:
    """Weights lie between 0 and 1: they need no rescue of their range, and nothing keeps a factor for them."""
    return maps.detach().to("cpu", dtype).numpy()


def _check(call: AttentionCall) -> None:
    """Hold the axes of a call against its site; a mistake here would otherwise surface as a wrong map."""
    site = call.site
    if call.query is not None and call.key is not None:
        names = factor_dims(site.kind, framed=site.kind == "cross" and call.key.ndim == 4)
        got = {"query": call.query.shape, "key": call.key.shape}
    elif call.probabilities is not None:
        names, got = {"probabilities": softmax_dims(site.kind)}, {"probabilities": call.probabilities.shape}
    else:
        raise StoreError(f"{site.module}: expected query and key, or probabilities; got neither. Hand over one of them.")
    for name, dims in names.items():
        expected = site.shape(dims)
        if tuple(got[name]) != expected:
            axes = ", ".join(f"{dim} {size}" for dim, size in zip(dims, expected, strict=True))
            raise StoreError(f"{site.module} ({site.group}): expected {name} as ({axes}); got {tuple(got[name])}. Unfold it.")


def _pad_text(call: AttentionCall, tokens: int) -> AttentionCall:
    """Give a site that saw fewer text tokens than the trace has hidden ones at the end of its text."""
    site = call.site
    missing = tokens - site.tokens
    if site.kind not in ("cross", "joint") or missing == 0:
        return call
    if missing < 0:
        raise StoreError(f"{site.module}: expected at most {tokens} text tokens, as in the token table; got {site.tokens}.")

    def widen(values: Tensor, axis: int, fill: float = 0.0) -> Tensor:
        """Insert `missing` entries after the text along an axis counted from the end."""
        text, video = torch.split(values, [site.tokens, values.shape[axis] - site.tokens], axis)
        return torch.cat([pad(text, [0, 0] * (-axis - 1) + [0, missing], value=fill), video], axis)

    joint = site.kind == "joint"
    whole = replace(site, tokens=tokens)
    if call.probabilities is not None:
        maps = widen(call.probabilities, -1)
        return replace(call, site=whole, probabilities=widen(maps, -2) if joint else maps)
    assert call.query is not None and call.key is not None
    bias = torch.zeros([1] * len(softmax_dims(site.kind)), device=call.key.device) if call.bias is None else call.bias.float()
    bias = widen(bias.expand(*bias.shape[:-1], site.tokens + (site.cells if joint else 0)), -1, _HIDDEN)
    if joint and bias.shape[-2] > 1:
        bias = widen(bias, -2)
    return replace(call, site=whole, query=widen(call.query, -2) if joint else call.query, key=widen(call.key, -2), bias=bias)


def _one_frame(site: AttentionSite, key: Tensor) -> Tensor:
    """Drop the frame axis of the text's keys when all frames see the same text."""
    if site.kind != "cross" or key.ndim != 4 or not bool((key == key[:, :1]).all()):
        return key
    return key[:, 0]


def _essential(call: AttentionCall) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return the bias with size 1 along every axis over which it does not vary, and the names of the axes left."""
    if call.bias is None or not bool(call.bias.any()):
        return None, ()
    bias = call.bias.detach()
    for axis in range(bias.ndim):
        if bias.shape[axis] > 1 and bias.stride(axis) == 0:
            bias = bias.narrow(axis, 0, 1)
    dims = softmax_dims(call.site.kind)
    if bias.ndim != len(dims):
        raise StoreError(f"{call.site.module}: expected a bias over {', '.join(dims)}; got axes of sizes {tuple(bias.shape)}.")
    return bias, tuple(dim for dim, size in zip(dims, bias.shape, strict=True) if size > 1)
