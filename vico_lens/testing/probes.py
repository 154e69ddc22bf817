"""Check the axes of attention calls with the model itself: change one part of its input, and see where the calls change.

Maps can be equal to an eager softmax number by number and still have rows for columns, frames for batch rows, or the wrong word
over a token. A probe finds such mistakes: a disturbed cell of the latents must show in the query and key at that cell, and an
exchanged word must show in the key at its token.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vico_lens.testing.witness import Witnessed
from vico_lens.tracing.attention_calls import Label
from vico_lens.tracing.families import Family, family_of
from vico_lens.tracing.tracer import observe
from vico_lens.vocabulary.schema import QUERY_DIMS, AttentionCall

__all__ = ["check_axes", "check_branch", "check_words"]

_LATENT_AXES = {"BCFHW": (2, 3, 4), "BFCHW": (1, 3, 4), "BFHWC": (1, 2, 3)}


def check_axes(pipe: Any, forward: Witnessed) -> None:
    """Disturb single cells of the latents and look for them in query and key.

    The change must be largest at the disturbed cell at the first site of every group. A UNet's convolutions smear it, so there it
    may be largest up to two cells beside, and the frame counts only where the kind is met first.

    Parameters
    ----------
    pipe : diffusers pipeline
        Its denoiser is called outside of the pipeline.
    forward : Witnessed
        A forward of the denoiser; its arguments are used again.

    Raises
    ------
    AssertionError
        Names the site, the cell, and where the change was found.
    """
    family = family_of(pipe)
    arguments = inspect.signature(type(forward.module).forward).bind(forward.module, *forward.args, **forward.kwargs).arguments
    arguments.pop("self")
    extra = arguments.pop("kwargs", {})
    sample = arguments[family.sample]
    first = sample[0] if isinstance(sample, (list, tuple)) else sample

    def calls(latents: Tensor) -> dict[str, AttentionCall]:
        """First site of every group in order of execution, first row of the batch."""
        value = type(sample)([latents, *sample[1:]]) if isinstance(sample, (list, tuple)) else latents
        rows: list[Label] = [("cond", row) for row in range(latents.shape[0])]
        with torch.no_grad(), observe(pipe, rows=rows) as seen:
            forward.module(**{**arguments, **extra, family.sample: value})
        firsts: dict[str, AttentionCall] = {}
        for call in seen:
            if call.prompt == 0 and call.query is not None:
                firsts.setdefault(call.site.group, call)
        return firsts

    before = calls(first)
    assert before, "no query was seen when the denoiser was called outside of the pipeline"
    grid = max((call.site.grid for call in before.values()), key=lambda grid: grid[0] * grid[1] * grid[2])
    first_of_kind = {call.site.kind: group for group, call in reversed(before.items())}
    for cell in ((0, 0, grid[2] - 1), (grid[0] - 1, grid[1] - 1, 0)):
        after = calls(_disturbed(first, family, grid, cell))
        for group, call in after.items():
            frames = 1 if first_of_kind[call.site.kind] == group else grid[0]
            slack = (0, 0, 0) if family.levels == 0 else (frames, 2, 2)
            expected = tuple(place * size // full for place, size, full in zip(cell, call.site.grid, grid, strict=True))
            for operand in ("query", "key") if call.site.kind != "cross" else ("query",):
                found = _largest(call, before[group], operand)
                near = all(abs(a - b) <= s for a, b, s in zip(found, expected, slack, strict=True))
                assert near, (
                    f"{call.site.module} ({group}): a change of the latents at frame, y, x {expected} should show in the "
                    f"{operand} there, but it is largest at {found}: its grid, folded axes or place of the text are wrong."
                )


def _disturbed(latents: Tensor, family: Family, grid: tuple[int, int, int], cell: tuple[int, int, int]) -> Tensor:
    latents = latents.clone()
    if family.latents == "packed":
        latents[:, (cell[0] * grid[1] + cell[1]) * grid[2] + cell[2]] += 3.0
        return latents
    index: list[slice] = [slice(None)] * 5
    for axis, place, size in zip(_LATENT_AXES[family.latents], cell, grid, strict=True):
        step = -(-latents.shape[axis] // size)
        index[axis] = slice(place * step, (place + 1) * step)
    latents[tuple(index)] += 3.0
    return latents


def _largest(after: AttentionCall, before: AttentionCall, operand: str) -> tuple[int, int, int]:
    """Frame, row and column at which an operand changed most."""
    change = (getattr(after, operand) - getattr(before, operand)).float().norm(dim=-1).sum(0)
    site = after.site
    if site.kind == "joint":
        change = change[site.tokens :].reshape(site.grid)
        dims = QUERY_DIMS["spacetime"]
    else:
        dims = QUERY_DIMS[site.kind]
    place = torch.unravel_index(change.argmax(), change.shape)
    named = {dim: int(index) for dim, index in zip(dims, place, strict=True)}
    return named["frame"], named["y"], named["x"]


def _first_text_site(pipe: Any, run: Callable[..., Any], **overrides: Any) -> AttentionCall:
    calls: list[AttentionCall] = []

    def keep(call: AttentionCall) -> None:
        if not calls:
            call.key = None if call.key is None else call.key.clone()
            calls.append(call)

    with observe(pipe, kinds=("cross", "joint"), on_call=keep):
        run(**overrides)
    assert calls, "no site with text was seen"
    return calls[0]


def check_words(
    pipe: Any, run: Callable[..., Any], prompt: str, swaps: Iterable[tuple[str, str]], words: list[str], padding: np.ndarray
) -> None:
    """Exchange single words of the prompt and look for them in the keys of the first site that has text.

    Parameters
    ----------
    pipe : diffusers pipeline
        The pipeline that `run` calls.
    run : callable
        Takes arguments of the pipeline call that replace its own.
    prompt : str
        The prompt that `run` uses.
    swaps : iterable of (str, str)
        A word of the prompt, and one with the same number of tokens to take its place.
    words : list of str
        Coordinate ``word`` of the trace: the word that each token belongs to.
    padding : np.ndarray
        Which tokens are fill. They are not looked at: encoders write the context into them.

    Raises
    ------
    AssertionError
        Names the word, and the token at which the change was found.
    """
    before = _first_text_site(pipe, run)
    assert before.key is not None
    for word, other in swaps:
        key = _first_text_site(pipe, run, prompt=" ".join(other if piece == word else piece for piece in prompt.split())).key
        assert key is not None and key.shape == before.key.shape, f"{word!r} and {other!r} do not have the same number of tokens."
        change = (key - before.key).float().norm(dim=-1)
        change = change.flatten(0, -2).sum(0)[: before.site.tokens]
        change = change.masked_fill(torch.from_numpy(padding[: len(change)]), 0)
        token = int(change.argmax())
        assert words[token] == word, (
            f"{before.site.module}: exchanging {word!r} for {other!r} changed the key most at token {token}, which the "
            f"trace says belongs to {words[token]!r}: the family's tokenizer, crop, or order of text tokens is wrong."
        )


def check_branch(pipe: Any, run: Callable[..., Any], negative: str) -> None:
    """Change only the negative prompt: at the first step the conditional calls must stay, the unconditional ones must change.

    Parameters
    ----------
    pipe : diffusers pipeline
        The pipeline that `run` calls.
    run : callable
        Takes arguments of the pipeline call that replace its own.
    negative : str
        Another negative prompt than the one that `run` uses.

    Raises
    ------
    AssertionError
        If the branches of guidance are mistaken for each other.
    """

    def keys(**overrides: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(call: AttentionCall) -> None:
            if call.key is not None:
                found.setdefault(call.branch, call.key.clone())

        with observe(pipe, branches=("cond", "uncond"), kinds=("cross", "joint"), on_call=keep):
            run(**overrides)
        return found

    before, after = keys(), keys(negative_prompt=negative)
    assert torch.equal(before["cond"], after["cond"]), (
        "another negative prompt changed the calls labelled conditional at the first step."
    )
    same = before["uncond"].shape == after["uncond"].shape and torch.equal(before["uncond"], after["uncond"])
    assert not same, "another negative prompt did not change the calls labelled unconditional."
