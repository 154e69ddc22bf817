"""Readers for what a row of the table cannot say: text compressed, reordered, or attended to beside an earlier part of the video.

Each brings a call to the plain layout, text first or no text at all, and leaves the rest to
`vico_lens.tracing.families.reader.plain`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from vico_lens.errors import TracingError
from vico_lens.tracing.families.base import Family, Forward, LeftOut, Rule, Unfolded
from vico_lens.tracing.families.reader import MASKED, plain, sizes
from vico_lens.tracing.raw_calls import Attended, RawCall

__all__ = ["compressed_text", "reordered_text", "unless_decoder", "with_history"]


def compressed_text(run: Attended, rule: Rule, family: Family, forward: Forward, rows: Sequence[int]) -> Iterator[Unfolded]:
    """One kernel call a batch row, over the video and those text tokens that the mask keeps, which come last (Mochi)."""
    mask = forward.inputs.get(family.mask)
    if len(run.calls) != forward.batch or not isinstance(mask, Tensor):
        raise TracingError(
            f"{run.denoiser}.{run.module}: expected one attention call for each of {forward.batch} rows and the text mask as "
            f"{family.mask!r}, got {len(run.calls)} calls."
        )
    kept = mask.bool().reshape(forward.batch, -1)
    single = replace(forward, batch=1)
    for row in rows:
        count = int(kept[row].sum())
        if not bool(kept[row, :count].all()):
            raise TracingError(
                f"{run.denoiser}.{run.module}: expected the text mask to keep the first tokens, got one with gaps."
            )
        one = replace(run, calls=[run.calls[row]])
        for part in plain(one, rule, single, [0], text_last=True):
            yield replace(part, row=row)


def reordered_text(run: Attended, rule: Rule, family: Family, forward: Forward, rows: Sequence[int]) -> Iterator[Unfolded]:
    """Text of several encoders behind the video, valid tokens first (HunyuanVideo 1.5), put back in the order of the encoders.

    The model's order is: valid image, second and first text tokens, then the invalid ones likewise. Image slots of text-to-video
    are all masked and dropped.
    """
    masks = [_mask(forward, name, states) for name, states in zip(_MASKS, family.states, strict=True)]
    first, second, image = masks
    lengths = [mask.shape[1] for mask in masks]
    base = [0, lengths[0], lengths[0] + lengths[1]]
    raw = run.calls[0]
    video = prod(forward.grids[0])
    keep = sum(forward.texts)
    single = replace(forward, batch=1)
    for row in rows:
        parts = [(image[row], base[2]), (second[row], base[1]), (first[row], base[0])]
        order = [torch.nonzero(mask).flatten() + at for mask, at in parts] + [
            torch.nonzero(~mask).flatten() + at for mask, at in parts
        ]
        back = torch.argsort(torch.cat(order))[:keep] + video
        index = torch.cat([back, torch.arange(video, device=back.device)])
        one = slice(row, row + 1)
        mask = raw.mask if raw.mask is None or raw.mask.shape[0] == 1 else raw.mask[one]
        call = RawCall(
            None if raw.query is None else raw.query[one, :, index],
            None if raw.key is None else raw.key[one, :, index],
            None if mask is None else _both(mask, index),
            raw.causal,
            raw.scale,
            None if raw.probabilities is None else _both(raw.probabilities[one], index),
        )
        for part in plain(replace(run, calls=[call]), rule, single, [0]):
            yield replace(part, row=row)


_MASKS = ("encoder_attention_mask", "encoder_attention_mask_2", "")


def _mask(forward: Forward, name: str, states: str) -> Tensor:
    """Which tokens of one encoder are valid, ``[row, token]``."""
    given: object = forward.inputs.get(name)
    encoded: Tensor = forward.inputs[states]
    if isinstance(given, Tensor):
        return given.bool()
    # an image is valid if there is one: text-to-video passes zeros
    return encoded.new_full(encoded.shape[:2], bool(encoded.any()), dtype=torch.bool)


def _both(x: Tensor, index: Tensor) -> Tensor:
    """Reorder both axes of a softmax or its mask, where they are not of size 1."""
    for axis in (-2, -1):
        x = x if x.shape[axis] == 1 else x.index_select(axis, index)
    return x


def with_history(run: Attended, rule: Rule, family: Family, forward: Forward, rows: Sequence[int]) -> Iterator[Unfolded]:
    """Tokens of earlier chunks in front of the current ones (Helios): cross-attention of the current, self-attention if alone."""
    _, _, queries, _, _ = sizes(run.calls[-1])
    video = prod(forward.grids[0])
    if queries > video and rule.kind != "cross":
        raise LeftOut(f"its softmax takes in {queries - video} tokens of earlier chunks, which are on other grids")
    raw = run.calls[-1]
    current = replace(
        raw,
        query=None if raw.query is None else raw.query[:, :, -video:],
        probabilities=None if raw.probabilities is None else raw.probabilities[:, :, -video:],
    )
    yield from plain(replace(run, calls=[current]), rule, forward, rows)


def unless_decoder(run: Attended, rule: Rule, family: Family, forward: Forward, rows: Sequence[int]) -> Iterator[Unfolded]:
    """Blocks that attend to the text; the decoder's attend to the encoded video in its place and are left out (Motif-Video).

    Cross-attention sees the text without the image tokens in front of it: their columns are added, masked.
    """
    _, _, queries, keys, _ = sizes(run.calls[0])
    image, text = forward.texts
    if (queries - prod(forward.grids[0]) if rule.kind == "joint" else keys) != (image + text if rule.kind == "joint" else text):
        raise LeftOut("attends between two states of the video, without text")
    for part in plain(run, rule, forward, rows, text_last=True):
        if rule.kind == "joint" or not image:
            yield part
            continue
        key = part.key
        if key is None or part.query is None:
            raise TracingError(f"{run.denoiser}.{run.module}: expected a fused attention kernel, got a softmax of its own.")
        bias = part.bias if part.bias is not None else key.new_zeros((1,) * 4 + (text,), dtype=torch.float32)
        masked = bias.new_full((*bias.shape[:-1], image), MASKED)
        zeros = key.new_zeros((key.shape[0], image, key.shape[-1]))
        yield replace(
            part,
            tokens=image + text,
            key=torch.cat([zeros, key], 1),
            bias=torch.cat([masked, bias.expand(*bias.shape[:-1], text)], -1),
        )
