"""Hypothesis strategies for attention sites, calls and traces (needs hypothesis, which the `dev` extra brings)."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from vico_lens.kernels.softmax import MASKED
from vico_lens.vocabulary.schema import KINDS, AttentionCall, AttentionSite, Kind, softmax_dims

__all__ = ["calls", "grids", "sites"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def grids(largest: int = 4) -> st.SearchStrategy[tuple[int, int, int]]:
    """Video token grids: frames, rows, columns, not all alike."""
    return st.tuples(*[st.integers(1, largest)] * 3)


@st.composite
def sites(draw: st.DrawFn, kinds: tuple[Kind, ...] = KINDS) -> AttentionSite:
    """Attention sites of any kind."""
    kind = draw(st.sampled_from(kinds))
    tokens = draw(st.integers(1, 5)) if kind in ("cross", "joint") else 0
    return AttentionSite("denoiser.attn", kind, draw(grids()), draw(st.integers(1, 3)), draw(st.integers(1, 6)), tokens, 0)


@st.composite
def calls(draw: st.DrawFn, site: AttentionSite | None = None) -> AttentionCall:
    """Calls with random operands of any floating dtype, large or small, and any mask: none, additive, boolean, whole rows."""
    site = draw(sites()) if site is None else site
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from(DTYPES))
    size = draw(st.sampled_from([1e-3, 1.0, 30.0]))

    def noise(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=random) * size).to(dtype)

    frames, rows, columns = site.grid
    channels, heads = site.head_size, site.heads
    query = noise(heads, frames, rows, columns, channels)
    key = noise(heads, frames, rows, columns, channels)
    if site.kind == "cross":
        framed = draw(st.booleans())
        key = noise(heads, frames, site.tokens, channels) if framed else noise(heads, site.tokens, channels)
    elif site.kind == "temporal":
        query, key = query.permute(0, 2, 3, 1, 4), key.permute(0, 2, 3, 1, 4)
    elif site.kind == "joint":
        text = noise(2, heads, site.tokens, channels)
        query, key = torch.cat([text[0], query.flatten(1, 3)], 1), torch.cat([text[1], key.flatten(1, 3)], 1)
    return AttentionCall(site, 0, 1.0, "cond", 0, query, key, channels**-0.5, draw(biases(site, random)))


@st.composite
def biases(draw: st.DrawFn, site: AttentionSite, random: torch.Generator) -> torch.Tensor | None:
    """Masks of a site: over any subset of its axes, additive or hiding keys, sometimes all keys of a row."""
    form = draw(st.sampled_from(["none", "additive", "hidden", "all hidden"]))
    if form == "none":
        return None
    dims = softmax_dims(site.kind)
    kept = draw(st.lists(st.booleans(), min_size=len(dims), max_size=len(dims)))
    shape = [size if keep else 1 for size, keep in zip(site.shape(dims), kept, strict=True)]
    values = torch.randn(shape, generator=random)
    if form == "additive":
        return values
    return torch.where(values > (0.0 if form == "hidden" else 1.5), 0.0, draw(st.sampled_from([MASKED, -torch.inf])))
