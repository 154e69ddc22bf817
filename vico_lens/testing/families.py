"""Check a model family: what the tracer promises, tested on one pipeline against independent computations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from vico_lens.store.layout import attention_groups
from vico_lens.testing.matching import check_maps
from vico_lens.testing.probes import check_axes, check_branch, check_words
from vico_lens.testing.witness import Witnessed, witness
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.families import denoisers, family_of
from vico_lens.tracing.recording import trace

__all__ = ["FamilyReport", "check_family"]

_MARKS = ("</w>", "▁", "Ġ", "##")


@dataclass(frozen=True, slots=True)
class FamilyReport:
    """What was checked on a pipeline.

    Attributes
    ----------
    family : str
        Name of its row.
    sites : dict
        Group of the trace to the number of its sites.
    left_out : dict
        Module path to the reason why it is not in a trace.
    tokens : list of str
        Text tokens, as the trace names them.
    error : float
        Largest difference between a recorded map and the eager softmax.

    Examples
    --------
    >>> FamilyReport("wan", {"cross/3x2x2": 2}, {}, ["a", "cat"], error=0.0).family
    'wan'
    """

    family: str
    sites: dict[str, int]
    left_out: dict[str, str]
    tokens: list[str]
    error: float


def check_family(
    pipe: Any,
    run: Callable[..., Any],
    prompt: str,
    *,
    swaps: Iterable[tuple[str, str]] = (),
    negative: str | None = None,
    tolerance: float = 1e-6,
) -> FamilyReport:
    """Check that a pipeline is traced correctly.

    Each check compares the trace with a computation that does not use the tracer. The output is the same bit for bit with and
    without tracing. Every softmax of the denoiser is recorded, or left out with a reason. Recorded maps equal an eager softmax in
    float64, and their rows sum to 1. A disturbed latent cell shows at its own place on the axes. Text tokens spell the prompt,
    and an exchanged word shows at its own token. The branches of guidance are told apart. After success, after an exception in
    the model and after Ctrl-C, no hook of the tracer is left, and another run gives the same output bit for bit.

    Parameters
    ----------
    pipe : diffusers pipeline
        A small one: maps are computed in full, several times.
    run : callable
        Calls the pipeline with a fresh generator and returns its frames; takes arguments of the call that replace its own.
    prompt : str
        The prompt that `run` uses.
    swaps : iterable of (str, str)
        Words of the prompt with others of as many tokens. None: tokens are checked by their strings only.
    negative : str, optional
        Another negative prompt than the one that `run` uses. None: for pipelines without guidance.
    tolerance : float
        Largest difference allowed between a recorded weight and the eager softmax (float32: 1e-6).

    Returns
    -------
    FamilyReport
        What was found.

    Raises
    ------
    AssertionError
        Says what is wrong, and which site shows it.

    Examples
    --------
    >>> from vico_lens.testing import check_family, tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> check_family(tiny.pipe, tiny.run, tiny.prompt, swaps=[("red", "blue")], negative="still").family
    'animatediff'
    """
    family = family_of(pipe)
    plain = np.asarray(run())
    # After the first run: transformers adds hooks of its own when a text encoder is first asked for its states.
    before = _state(pipe)
    _same(run(), plain, "two runs without tracing differ: `run` must make a fresh generator for every call")
    with witness(denoisers(pipe, family)) as forwards:
        run()
    with trace(pipe) as recording:
        traced = run()
    _same(traced, plain, "the output with tracing on differs from the output without")
    _undone(pipe, before, "after a traced run")

    tree = recording.tree
    left_out = _check_coverage(tree, forwards)
    error = check_maps(tree, forwards, tolerance)
    words = _check_tokens(tree, getattr(pipe, family.tokenizers[0], None), prompt, quoted=bool(family.quoted))
    padding = tree.coords["token_kind"].values == "padding"
    check_axes(pipe, forwards[0])
    check_words(pipe, run, prompt, swaps, words, padding)
    if negative is not None:
        check_branch(pipe, run, negative)
    _check_undo(pipe, run, tree, plain, before)
    sites = {name: node.sizes["layer"] for name, _, _, node in attention_groups(tree)}
    return FamilyReport(family.name, sites, left_out, [str(text) for text in tree.coords["token_text"].values], error)


def _check_coverage(tree: xr.DataTree, forwards: list[Witnessed]) -> dict[str, str]:
    root = forwards[0].denoiser
    seen = {f"{root}.{softmax.module}" for forward in forwards for softmax in forward.softmaxes}
    recorded = {str(module) for _, _, _, node in attention_groups(tree) for module in node.coords["module"].values}
    coverage = tree.attrs["coverage"]
    left_out: dict[str, str] = (json.loads(coverage) if isinstance(coverage, str) else coverage)["left_out"]
    missed = sorted(seen - recorded - set(left_out))
    assert not missed, f"softmax attention that is neither recorded nor left out with a reason: {', '.join(missed)}"
    silent = sorted(path for path, reason in left_out.items() if not reason)
    assert not silent, f"left out without a reason: {', '.join(silent)}"
    assert recorded <= seen, f"recorded, but no softmax was seen there: {', '.join(sorted(recorded - seen))}"
    return left_out


def _check_tokens(tree: xr.DataTree, tokenizer: Any, prompt: str, *, quoted: bool) -> list[str]:
    """Text tokens must be the tokenizer's pieces of the prompt, in order, and spell it; then bytes of what is quoted."""
    texts, kinds, words = ([str(value) for value in tree.coords[name].values] for name in ("token_text", "token_kind", "word"))
    pieces = [text for text, kind in zip(texts, kinds, strict=True) if kind == "text"]
    if tokenizer is not None:
        expected = [_bare(piece) for piece in tokenizer.tokenize(prompt)]
        if quoted:
            expected += [letter for text in dict.fromkeys(re.findall(r'"(.*?)"', prompt)) for letter in text]
        got = [_bare(piece) for piece in pieces]
        assert got == expected, f"text tokens should be {expected}, the trace has {got}"
    assert all(kind == "text" or not word for kind, word in zip(kinds, words, strict=True)), "a token that is not text has a word"
    starts, stops = tree.coords["token_start"].values, tree.coords["token_stop"].values
    spelled = [prompt[a:b] for a, b in zip(starts, stops, strict=True) if a >= 0]
    assert [s.lower() for s in spelled] == [_bare(p).lower() for p in pieces], (
        f"character spans read {spelled}, tokens are {pieces}"
    )
    joined = "".join(dict.fromkeys(f"{word}\0{prompt.find(word)}" for word in words if word))
    assert all(word in prompt for word in words), f"words that are not in the prompt: {joined}"
    return words


def _bare(piece: str) -> str:
    for mark in _MARKS:
        piece = piece.replace(mark, "")
    return piece


class _Interruption(Exception):
    """Raised in the middle of the model on purpose."""


def _check_undo(pipe: Any, run: Callable[..., Any], tree: xr.DataTree, plain: np.ndarray, before: dict[str, Any]) -> None:
    modules = [str(module) for _, _, _, node in attention_groups(tree) for module in node.coords["module"].values]
    denoiser, _, path = modules[len(modules) // 2].partition(".")
    victim = getattr(pipe, denoiser).get_submodule(path)
    for kind in (_Interruption, KeyboardInterrupt):
        countdown = [2]

        def fail(*_: object, kind: type[BaseException] = kind, countdown: list[int] = countdown) -> None:
            countdown[0] -= 1
            if not countdown[0]:
                raise kind

        handle = victim.register_forward_pre_hook(fail)
        try:
            with trace(pipe, capture=Capture()):
                run()
        except kind:
            pass
        else:
            raise AssertionError(f"{kind.__name__} raised inside the model did not reach the caller of the traced run")
        finally:
            handle.remove()
        _undone(pipe, before, f"after {kind.__name__} in the model")
        _same(run(), plain, f"a rerun after {kind.__name__} in the model differs from the run before")


def _same(got: Any, expected: np.ndarray, message: str) -> None:
    assert np.array_equal(np.asarray(got), expected), message


def _undone(pipe: Any, before: dict[str, Any], when: str) -> None:
    after = _state(pipe)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    assert not changed, f"{when}, something of the tracer is left: {', '.join(changed[:6])}"


def _state(pipe: Any) -> dict[str, Any]:
    """Everything a tracer could leave behind: hooks, replaced forwards and processors, function modes, the attention backend."""
    state: dict[str, Any] = {"function modes": torch._C._len_torch_function_stack()}
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    # A pipeline that is not from diffusers need not list its components; then its attributes hold them.
    for component, root in getattr(pipe, "components", vars(pipe)).items():
        if not isinstance(root, nn.Module):
            continue
        for path, module in root.named_modules():
            held = [tuple(getattr(module, name)) for name in hooks] + ["forward" in vars(module)]
            processor = getattr(module, "processor", None)
            state[f"{component}.{path}"] = (held, id(processor), str(getattr(processor, "_attention_backend", None)))
    from diffusers.models import attention_dispatch

    state["attention backend"] = str(attention_dispatch._AttentionBackendRegistry._active_backend)
    state["decoding"] = {
        name: id(vars(pipe).get(name)) for name in ("decode_latents", "video_processor", "vae") if name in vars(pipe)
    }
    return state
