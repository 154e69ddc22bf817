"""`compare`: several methods on one trace. Which agree, and which to believe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from vico_lens.attribution.base import METHODS, Problem
from vico_lens.attribution.facade import Concepts, attribute, resolve_concepts, resolve_steps
from vico_lens.attribution.judging.checks import Explain, explainer, stability, weight_dependence
from vico_lens.attribution.judging.faithfulness import (
    NULLS,
    TokenSwitch,
    concept_shares,
    infidelity,
    localisation,
    null_influences,
    removal_curves,
    settled,
    spearman,
)
from vico_lens.attribution.methods.captum_methods import PromptEffect
from vico_lens.attribution.replay import DenoiserCall, record_calls, sampling_of, shared_calls, text_of_prompt
from vico_lens.attribution.trace_stages import GridChoice, choose_grid
from vico_lens.errors import InputError
from vico_lens.store.selection import Layers, records, text_coordinate

__all__ = ["DEFAULT_METHODS", "compare"]

DEFAULT_METHODS = ("cross_attention", "rollout", "subgraph_flow", "max_flow")

# A map for each single video token takes as many flows as there are tokens; frames say as much in a comparison of concepts.
_OPTIONS: dict[str, dict[str, Any]] = {"max_flow": {"sink": "frame"}}


def compare(
    tree: xr.DataTree,
    methods: Sequence[str] | Mapping[str, tuple[str, Mapping[str, Any]]] = DEFAULT_METHODS,
    *,
    concepts: Concepts = None,
    pipe: Any = None,
    masks: Any = None,
    steps: int | Sequence[int] | slice | None = None,
    layers: Layers = None,
    grid: GridChoice = None,
    prompt: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    sampling: Mapping[str, Any] | None = None,
    reference: Mapping[str, Any] | None = None,
    token_step: int | None = None,
    checks: bool = False,
    seed: int = 0,
) -> xr.Dataset:
    """Compare attribution methods on one trace: how far they agree, and with the pipeline, which predicts what words really do.

    Parameters
    ----------
    tree : DataTree
        A trace.
    methods : sequence of str, or mapping
        Names of attribution methods; or labels with a method and its options, to compare one method with itself:
        ``{"soft": ("subgraph_flow", {"kind": "soft"}), "hard": ("subgraph_flow", {"kind": "hard"})}``.
    concepts, steps, layers, grid, prompt
        As in `vico_lens.attribute`.
    pipe : optional
        The pipeline; adds the faithfulness scores.
    masks : array, optional
        True object masks ``[concept, frame, row, column]``; adds localisation.
    options : mapping, optional
        Options of single methods, ``{"subgraph_flow": {"kind": "sum"}}``. `max_flow` runs with ``sink="frame"`` unless said
        otherwise.
    sampling : mapping, optional
        Arguments of the pipeline call that the trace does not record.
    reference : mapping, optional
        Options of the `leave_one_out` that serves as the reference.
    token_step : int, optional
        Step at which single tokens are taken away (deletion, insertion, infidelity) and checks run; the middle one by default.
    checks : bool
        With `pipe`, also check the methods themselves, on single tokens: whether they depend on the weights, and how far they
        jump.
    seed : int
        Of the random null and of infidelity.

    Returns
    -------
    Dataset
        Dimension ``method``: the methods asked for, then with `pipe` or `masks` the nulls ``uniform``, ``position``, ``random``.

        ``agreement`` (method, other_method): rank correlation of the maps, mean over concepts and steps, where both methods give
        maps; else of the concepts' shares over steps. ``share`` (method, concept).

        With `pipe`: ``rank_correlation`` of shares over concepts and steps with leave-one-out; ``weakest_found``, how often the
        concept of least influence is the one whose removal changes least; ``map_correlation`` of maps with leave-one-out's;
        ``deletion`` and ``insertion``, areas under the curves of the prompt's effect; ``infidelity``.

        With `checks`: ``shuffled_weights``, rank correlation of the maps (of the tokens, for a method without maps) before and
        after the denoiser's weights are shuffled, near 0 for a method that explains the model; and ``sensitivity``, the largest
        relative change for a small change of the text.

        With `masks`: ``iou`` and ``pointing``. Scores a method cannot have (no map) are NaN.

    Raises
    ------
    InputError
        For an unknown method, fewer than one method, or options of a method that is not compared.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> table = compare(fake_trace(), ["cross_attention", "rollout"], concepts=["red circle", "blue square"])
    >>> table["agreement"].dims, float(table["agreement"][0, 0])
    (('method', 'other_method'), 1.0)

    ``vl.plot.agreement(table)`` draws the agreement, ``vl.plot.faithfulness(table)`` the scores.
    """
    plan = _plan(methods, options or {})
    named = resolve_concepts(tree, concepts, prompt)
    numbers = list(resolve_steps(tree, steps))
    common: dict[str, Any] = {"layers": layers, "grid": grid, "prompt": prompt}

    def run(name: str, spans: Mapping[str, Sequence[int]], at: Any, extra: Mapping[str, Any]) -> xr.DataArray:
        model = {"pipe": pipe, "sampling": sampling} if METHODS[name].needs_pipe else {}
        return attribute(tree, name, spans, steps=at, **{**common, **model, **extra})

    with shared_calls():
        found = {label: run(name, named, numbers, extra) for label, (name, extra) in plan.items()}
        if pipe is not None or masks is not None:
            like = next((influence for influence in found.values() if _has_map(influence)), None)
            like = run("cross_attention", named, numbers, {}) if like is None else like
            found |= null_influences(like, list(named.values()), seed)
        table = xr.Dataset(coords={"method": list(found), "concept": list(named), "other_method": list(found)})
        table["share"] = (("method", "concept"), [_mean_share(influence) for influence in found.values()])
        table["agreement"] = (("method", "other_method"), [[_agreement(a, b) for b in found.values()] for a in found.values()])
        if pipe is not None:
            causal = run("leave_one_out", named, numbers, reference or {})
            table = table.assign(_against_causal(found, causal))
            at = numbers[len(numbers) // 2] if token_step is None else resolve_steps(tree, token_step)[0]
            kinds = text_coordinate(tree, "token_kind", prompt)
            words = {str(token): (token,) for token, kind in enumerate(kinds) if kind == "text"}
            per_token = {label: run(name, words, at, extra) for label, (name, extra) in plan.items()}
            per_token |= null_influences(run("cross_attention", words, at, {}), list(words.values()), seed)
            call, switch = token_switch(tree, pipe, at, [token for (token,) in words.values()], sampling, prompt)
            table = table.assign(_token_scores(switch, per_token, seed))
            if checks:
                asked = {
                    label: explainer(tree, pipe, name, words, sampling=sampling, **common, **extra)
                    for label, (name, extra) in plan.items()
                }
                table = table.assign(_checked(call, [asked.get(label) for label in found], seed))
    if masks is not None:
        table = table.assign(_localised(found, masks))
    table.attrs = {
        "prompt": str(tree.attrs.get("prompt", "")),
        "steps": json.dumps(numbers),
        "methods": json.dumps({label: [name, dict(extra)] for label, (name, extra) in plan.items()}, default=str),
        "nulls": ", ".join(NULLS) if len(found) > len(plan) else "",
    }
    return table


def _plan(
    methods: Sequence[str] | Mapping[str, tuple[str, Mapping[str, Any]]], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Label to method and options of everything that is compared."""
    names = [methods] if isinstance(methods, str) else list(methods)
    if not names:
        raise InputError("methods: expected at least one name; got none. vico_lens.methods() lists them.")
    stray = sorted(set(options) - set(names))
    taken = sorted(set(names) & set(NULLS))
    if stray or taken:
        said = f"options for {', '.join(stray)}" if stray else f"the name of a null, {', '.join(taken)}"
        raise InputError(f"expected options for, and names of, the methods compared ({', '.join(names)}); got {said}.")
    pairs = dict(methods) if isinstance(methods, Mapping) else {name: (name, options.get(name, {})) for name in names}
    return {label: (name, {**_OPTIONS.get(name, {}), **extra}) for label, (name, extra) in pairs.items()}


def _mean_share(influence: xr.DataArray) -> list[float]:
    share = concept_shares(influence)
    return [float(value) for value in share.mean([dim for dim in share.dims if dim != "concept"]).values]


def _has_map(influence: xr.DataArray) -> bool:
    return {"frame", "y", "x"} <= set(influence.dims)


def _agreement(first: xr.DataArray, second: xr.DataArray) -> float:
    """Rank correlation of maps if both have them, else of shares; 1 with itself, also where it ranks nothing."""
    if first is second:
        return 1.0
    if _has_map(first) and _has_map(second):
        return map_correlation(first, second)
    return _share_correlation(first, second)


def map_correlation(first: xr.DataArray, second: xr.DataArray) -> float:
    """Mean over concepts and steps of the rank correlation over places; a method without steps is held against every step."""
    first, second = xr.broadcast(first.reset_coords(drop=True), second.reset_coords(drop=True))
    maps = [abs(part).transpose(..., "frame", "y", "x").values for part in (first, second)]
    pairs = zip(*(part.reshape(-1, np.prod(part.shape[-3:])) for part in maps), strict=True)
    return float(np.mean([spearman(settled(a), settled(b)) for a, b in pairs]))


def _share_correlation(first: xr.DataArray, second: xr.DataArray) -> float:
    """Rank correlation of the concepts' shares over concepts and steps; 0 for a single concept, whose share is always 1."""
    first, second = xr.broadcast(concept_shares(first).reset_coords(drop=True), concept_shares(second).reset_coords(drop=True))
    # Shares of two methods that differ by rounding alone must not be ranked.
    return spearman(first.values.round(9), second.values.round(9)) if first.size > 1 else 0.0


def _against_causal(found: Mapping[str, xr.DataArray], causal: xr.DataArray) -> dict[str, Any]:
    """Scores of each method against leave-one-out."""
    weakest = concept_shares(causal).argmin("concept")
    hits, maps = [], []
    for influence in found.values():
        share = concept_shares(influence).round(9)
        least = (share == share.min("concept")).astype(float)
        least = least / least.sum("concept")  # ties count as a guess
        hits.append(float(least.isel(concept=weakest).mean()))
        maps.append(map_correlation(influence, causal) if _has_map(influence) and _has_map(causal) else np.nan)
    return {
        "rank_correlation": ("method", [_share_correlation(influence, causal) for influence in found.values()]),
        "weakest_found": ("method", hits),
        "map_correlation": ("method", maps),
    }


def token_switch(
    tree: xr.DataTree,
    pipe: Any,
    step: int,
    tokens: Sequence[int],
    sampling: Mapping[str, Any] | None = None,
    prompt: int | None = None,
) -> tuple[DenoiserCall, TokenSwitch]:
    """The denoiser call of a step, and its prediction as a function of which of `tokens` are there."""
    run = sampling_of(tree, None, sampling, prompt)
    call = record_calls(pipe, run, [step])[step]
    null = text_of_prompt(pipe, run, "", len(call.text))
    problem = Problem((), tuple((token,) for token in tokens), choose_grid(records(tree)), tree=tree, pipe=pipe, prompt=prompt)
    return call, TokenSwitch(PromptEffect(call, null, problem, "video"), call.text.float(), null.float(), tokens)


def _checked(call: DenoiserCall, explain: Sequence[Explain | None], seed: int) -> dict[str, Any]:
    """Dependence on the weights and sensitivity of each method; NaN for the nulls."""
    rows = [
        (np.nan, np.nan) if one is None else (match(*weight_dependence(call, one, seed=seed)), stability(call, one, seed=seed))
        for one in explain
    ]
    scores = np.array(rows, dtype=np.float64).T
    return {name: ("method", values) for name, values in zip(("shuffled_weights", "sensitivity"), scores, strict=True)}


def match(first: Tensor, second: Tensor) -> float:
    """Rank correlation of two explanations: of the maps, mean over concepts, or of the concepts where there are no maps."""
    if first.ndim == 1:
        return spearman(first.numpy(), second.numpy())
    return float(np.mean([spearman(a.numpy(), b.numpy()) for a, b in zip(first, second, strict=True)]))


def _token_scores(switch: TokenSwitch, per_token: Mapping[str, xr.DataArray], seed: int) -> dict[str, Any]:
    """Deletion, insertion and infidelity of each method's influence of single tokens."""
    rows = []
    for influence in per_token.values():
        totals = influence.sum([dim for dim in influence.dims if dim != "concept"]).values.tolist()
        curves = removal_curves(switch, totals, seed=seed)
        rows.append((curves["deletion"].mean(), curves["insertion"].mean(), infidelity(switch, totals, seed=seed)))
    scores = np.array(rows, dtype=np.float64).T
    return {name: ("method", values) for name, values in zip(("deletion", "insertion", "infidelity"), scores, strict=True)}


def _localised(found: Mapping[str, xr.DataArray], masks: Any) -> dict[str, Any]:
    rows = []
    for influence in found.values():
        if _has_map(influence):
            scores = localisation(influence, masks)
            rows.append((float(scores["iou"].mean()), float(scores["pointing"].mean())))
        else:
            rows.append((np.nan, np.nan))
    iou, pointing = np.array(rows).T
    return {"iou": ("method", iou), "pointing": ("method", pointing)}
