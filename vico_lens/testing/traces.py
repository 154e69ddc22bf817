"""Synthetic traces: what a traced run would give, without a model, seeded and in milliseconds.

Two blobs move through the video; the queries of cross-attention know which blob they lie in, the keys of a word know which blob
it names, and self-attention prefers near places and equal blobs. So maps look like attention (peaked, smooth, row-stochastic),
and a method that finds the blobs can be told from one that does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.kernels.softmax import MASKED
from vico_lens.store.writer import TraceWriter
from vico_lens.testing.eager import eager_tree
from vico_lens.vocabulary.schema import (
    SCHEMA_VERSION,
    AttentionCall,
    AttentionSite,
    Branch,
    Form,
    Grid,
    Kind,
    Sink,
    TokenKind,
    TokenTable,
)

__all__ = ["PROMPT", "FakeFamily", "fake_calls", "fake_sites", "fake_tokens", "fake_trace", "record"]

FakeFamily = Literal["unet", "spacetime", "joint"]

PROMPT = "a red circle moving right and a blue square moving up"

_PIECE = 6  # longer words are split in two pieces, so that concepts of several pieces are met everywhere
_CONTRAST = 3.0


def fake_tokens(prompt: str = PROMPT, length: int = 20) -> TokenTable:
    """Tokenize `prompt` as a small CLIP-like tokenizer would: a start token, pieces of words, an end token, padding.

    Examples
    --------
    >>> fake_tokens("a bicycle", 6).text
    ('<|start|>', 'a</w>', 'bicycl', 'e</w>', '<|end|>', '<|pad|>')
    """
    rows: list[tuple[str, TokenKind, str, int, int]] = [("<|start|>", "special", "", -1, -1)]
    position = 0
    for word in prompt.split():
        position = prompt.index(word, position)
        for first in range(0, len(word), _PIECE):
            piece = word[first : first + _PIECE]
            last = first + _PIECE >= len(word)
            rows.append((piece + ("</w>" if last else ""), "text", word, position + first, position + first + len(piece)))
        position += len(word)
    rows.append(("<|end|>", "special", "", -1, -1))
    if len(rows) > length:
        raise InputError(f"length: expected at least {len(rows)} tokens for {prompt!r}; got {length}.")
    rows += [("<|pad|>", "padding", "", -1, -1)] * (length - len(rows))
    text, kind, word_of, start, stop = zip(*rows, strict=True)
    vocabulary = {piece: number for number, piece in enumerate(sorted(set(text)))}
    return TokenTable(text, kind, word_of, tuple(vocabulary[piece] for piece in text), start, stop)


def fake_sites(
    family: FakeFamily = "unet",
    *,
    grid: Grid = (4, 4, 4),
    coarse: Grid | None = (4, 2, 2),
    blocks: int = 2,
    heads: int = 2,
    head_size: int = 8,
    tokens: int = 20,
) -> list[AttentionSite]:
    """Return the attention sites of an imagined denoiser, in execution order.

    Parameters
    ----------
    family : str
        ``unet`` (spatial, cross, temporal a block; the last half of the blocks on the `coarse` grid), ``spacetime`` (spacetime,
        cross a block) or ``joint`` (one joint site a block).
    grid : tuple of int
        Frames, rows, columns.
    coarse : tuple of int or None
        Second grid of a ``unet``; None keeps all blocks on `grid`.
    blocks, heads, head_size, tokens : int
        Sizes.
    """
    plans: dict[str, list[tuple[str, Kind]]] = {
        "unet": [("attn1", "spatial"), ("attn2", "cross"), ("motion.attn1", "temporal")],
        "spacetime": [("attn1", "spacetime"), ("attn2", "cross")],
        "joint": [("attn", "joint")],
    }
    if family not in plans:
        raise InputError(f"family: expected one of {', '.join(plans)}; got {family!r}.")
    sites: list[AttentionSite] = []
    for block in range(blocks):
        place = coarse if family == "unet" and coarse is not None and block >= (blocks + 1) // 2 else grid
        for name, kind in plans[family]:
            text = tokens if kind in ("cross", "joint") else 0
            sites.append(AttentionSite(f"denoiser.blocks.{block}.{name}", kind, place, heads, head_size, text, len(sites)))
    return sites


def fake_calls(
    sites: Sequence[AttentionSite],
    tokens: TokenTable | None = None,
    *,
    step: int = 0,
    timestep: float | None = None,
    branch: Branch = "cond",
    prompt: int = 0,
    seed: int = 0,
    mask_padding: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[AttentionCall]:
    """Return one call of each site, as one forward of the denoiser would make them.

    Parameters
    ----------
    sites : sequence of AttentionSite
        As from `fake_sites`.
    tokens : TokenTable, optional
        Tokens of the prompt; `fake_tokens` of the default prompt if left out.
    step, timestep, branch, prompt
        Labels of the calls. Each changes the random numbers.
    seed : int
        Seed of the random numbers.
    mask_padding : bool
        Hide padding tokens from cross and joint attention by a bias.
    dtype : torch.dtype
        Of query and key.

    Examples
    --------
    >>> calls = fake_calls(fake_sites("joint"))
    >>> calls[0].site.kind, calls[0].query.shape[0]
    ('joint', 2)
    """
    tokens = tokens or fake_tokens()
    timestep = 1000.0 - 100.0 * step if timestep is None else timestep
    calls = []
    for site in sites:
        entropy = np.random.SeedSequence([seed, site.order, step, int(branch == "cond"), prompt])
        random = torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
        query, key = _operands(site, tokens, random)
        bias = None
        if mask_padding and site.tokens:
            shown = torch.zeros(site.tokens + (site.cells if site.kind == "joint" else 0))
            shown[: site.tokens][torch.tensor([kind == "padding" for kind in tokens.kind])] = MASKED
            bias = shown.reshape(*(1,) * (2 if site.kind == "joint" else 4), -1)
        calls.append(
            AttentionCall(
                site, step, timestep, branch, prompt, query.to(dtype), key.to(dtype), scale=site.head_size**-0.5, bias=bias
            )
        )
    return calls


def fake_trace(
    family: FakeFamily = "unet",
    *,
    prompt: str | Sequence[str] = PROMPT,
    steps: Sequence[int] = (0, 1),
    branches: Sequence[Branch] = ("cond",),
    grid: Grid = (4, 4, 4),
    coarse: Grid | None = (4, 2, 2),
    blocks: int = 2,
    heads: int = 2,
    head_size: int = 8,
    tokens: int = 20,
    seed: int = 0,
    mask_padding: bool = False,
    video: bool = False,
    to: str | PathLike[str] | None = None,
    form: Form | None = None,
) -> xr.DataTree:
    """Return a synthetic trace: eager weights, or written and opened as a traced run would be.

    Parameters
    ----------
    family, grid, coarse, blocks, heads, head_size
        See `fake_sites`.
    prompt : str or sequence of str
        Several prompts give a ``prompt`` dimension.
    steps : sequence of int
        Denoising steps recorded.
    branches : sequence of str
        Two branches give a ``branch`` dimension.
    tokens : int
        Text tokens, padding included.
    seed : int
        Equal arguments give equal traces.
    mask_padding : bool
        Hide padding from the softmax.
    video : bool
        Add a ``/video`` group, in which the blobs can be seen.
    to : path or None
        Store to write.
    form : str or None
        Form of storage. None gives eager weights, without a store, unless there is a path to write to.

    Examples
    --------
    >>> fake_trace()["cross/4x4x4"].weights.dims
    ('step', 'layer', 'head', 'frame', 'y', 'x', 'token')
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    tables = [fake_tokens(text, tokens) for text in prompts]
    sites = fake_sites(family, grid=grid, coarse=coarse, blocks=blocks, heads=heads, head_size=head_size, tokens=tokens)
    calls = [
        call
        for step in steps
        for branch in branches
        for row, table in enumerate(tables)
        for call in fake_calls(sites, table, step=step, branch=branch, prompt=row, seed=seed, mask_padding=mask_padding)
    ]
    attrs = fake_attrs(prompts, steps, sites, seed)
    frames = fake_video(grid) if video else None
    if to is None and form is None:
        return eager_tree(calls, tables, attrs, video=frames)
    return record(TraceWriter(to, form=form or "auto"), calls, tables, attrs, steps=steps, branches=branches, video=frames)


def record(
    sink: Sink,
    calls: Iterable[AttentionCall],
    tokens: Sequence[TokenTable],
    attrs: Mapping[str, object],
    *,
    steps: Sequence[int],
    branches: Sequence[Branch] = ("cond",),
    video: np.ndarray | None = None,
) -> xr.DataTree:
    """Play `calls`, ordered by step, into a sink as a tracer would, and close it."""
    sink.start(attrs, tokens, prompts=len(tokens), branches=branches, steps=steps)
    for step, members in groupby(calls, lambda call: call.step):
        for call in members:
            sink.write(call)
        sink.finish_step(step)
    if video is not None:
        sink.keep_video(video)
    return sink.close()


def fake_attrs(prompts: Sequence[str], steps: Sequence[int], sites: Sequence[AttentionSite], seed: int) -> dict[str, Any]:
    """Provenance as a tracer would hand it over."""
    names = [site.module for site in sites]
    return {
        "prompt": prompts[0] if len(prompts) == 1 else list(prompts),
        "negative_prompt": "",
        "pipeline": "FakePipeline",
        "model": str(Path("vico_lens.testing.traces")),
        "weights_hash": "0" * 16,
        "scheduler": "FakeScheduler",
        "guidance_scale": 7.5,
        "seed": seed,
        "capture": '{"store": "weights"}',
        "versions": json.dumps({"torch": torch.__version__}),
        "device": "cpu",
        "dtype": "float32",
        "schema_version": SCHEMA_VERSION,
        "coverage": json.dumps({"seen": len(names), "recorded": len(names), "left_out": {}}),
        "complete": True,
        "steps_finished": len(steps),
        "steps_planned": len(steps),
    }


def blobs(grid: Grid) -> Tensor:
    """Strength of the two moving blobs: ``[frame, y, x, blob]`` in [0, 1]; one moves right, one moves up."""
    frames, rows, columns = grid
    time = torch.linspace(0, 1, frames)[:, None, None]
    y = ((torch.arange(rows) + 0.5) / rows)[None, :, None]
    x = ((torch.arange(columns) + 0.5) / columns)[None, None, :]
    right = ((x - 0.2 - 0.6 * time) ** 2 + (y - 0.3) ** 2) / 0.03
    up = ((x - 0.75) ** 2 + (y - 0.8 + 0.6 * time) ** 2) / 0.03
    return torch.stack([(-right).exp(), (-up).exp()], -1)


def fake_video(grid: Grid, size: int = 4) -> np.ndarray:
    """Draw the blobs, one red and one blue: uint8 ``[frame, row, column, channel]``, `size` pixels a cell."""
    colours = torch.tensor([[255.0, 0.0, 0.0], [0.0, 0.0, 255.0]])
    picture = (blobs(grid) @ colours).clamp(0, 255).repeat_interleave(size, 1).repeat_interleave(size, 2)
    return picture.to(torch.uint8).numpy()


def _operands(site: AttentionSite, tokens: TokenTable, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Query and key of one site, in the axes that `AttentionCall` documents."""
    heads, channels, grid = site.heads, site.head_size, site.grid

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    contrast = _CONTRAST * site.head_size**0.25
    directions = torch.nn.functional.normalize(noise(heads, 5, channels), dim=-1)
    content = torch.einsum("fyxb,hbc->hfyxc", blobs(grid), directions[:, :2])
    place = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, size) for size in grid), indexing="ij"), -1)
    place = torch.einsum("fyxp,hpc->hfyxc", place, directions[:, 2:])
    video = contrast * (content + 0.5 * place) + 0.3 * noise(heads, *grid, channels)
    half = (tokens.kind.count("text") + 1) // 2 + 1  # the start token, and the first half of the words: they name the first blob
    names = torch.tensor([[kind == "text" and i < half, kind == "text" and i >= half] for i, kind in enumerate(tokens.kind)])
    text = contrast * torch.einsum("tb,hbc->htc", names.float(), directions[:, :2]) + 0.5 * noise(heads, len(tokens), channels)
    if site.kind == "cross":
        return video, text
    key = video + 0.3 * noise(heads, *grid, channels)
    if site.kind == "temporal":
        return video.permute(0, 2, 3, 1, 4), key.permute(0, 2, 3, 1, 4)
    if site.kind == "joint":
        return torch.cat([text, video.flatten(1, 3)], 1), torch.cat([text, key.flatten(1, 3)], 1)
    return video, key
