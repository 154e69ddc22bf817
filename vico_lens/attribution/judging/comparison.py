"""`compare`: several methods on one trace. Which agree, and which to believe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
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
from vico_lens.attribution.trace_stages import choose_grid
from vico_lens.errors import InputError
from vico_lens.store.selection import records, text_coordinate

__all__ = ["DEFAULT_METHODS", "agreement_of", "compare", "share_of"]

DEFAULT_METHODS = ("cross_attention", "rollout", "subgraph_flow", "max_flow")

# A map for each single video token takes as many flows as there are tokens; frames say as much in a comparison of concepts.
_OPTIONS: dict[str, dict[str, Any]] = {"max_flow": {"sink": "frame"}}

Options = Mapping[str, Any]
Plan = Mapping[str, tuple[str, Options]]


def compare(
    tree: xr.DataTree,
    methods: Sequence[str] | Mapping[str, tuple[str, Options]] = DEFAULT_METHODS,
    *,
    concepts: Concepts = None,
    pipe: Any = None,
    masks: Any = None,
    steps: int | Sequence[int] | slice | None = None,
    prompt: int | None = None,
    sampling: Mapping[str, Any] | None = None,
    checks: bool = False,
    seed: int = 0,
) -> xr.Dataset:
    """Compare attribution methods on one trace: how far they agree, and with the pipeline, which predicts what words really do.

    Parameters
    ----------
    tree : DataTree
        A trace.
    methods : sequence of str, or mapping
        Names of attribution methods; or labels with a method and its options (those of the method, and ``layers``, ``heads``,
        ``grid``), which also compares one method with itself:
        ``{"soft": ("subgraph_flow", {"kind": "soft"}), "hard": ("subgraph_flow", {"kind": "hard"})}``. `max_flow` runs with
        ``sink="frame"`` unless its options say otherwise.
    concepts, steps, prompt
        As in `vico_lens.attribute`. Single tokens are taken away (deletion, insertion, infidelity), and `checks` run, at the
        middle one of the steps.
    pipe : optional
        The pipeline; adds the faithfulness scores.
    masks : array, optional
        True object masks ``[concept, frame, row, column]``; adds localisation.
    sampling : mapping, optional
        Arguments of the pipeline call that the trace does not record.
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
        maps; else of the concepts' shares over steps. ``share`` (method, concept), of the whole influence, as in `dominance`.

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
        If no method is named, a method is unknown, or a label is the name of a null.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> table = compare(fake_trace(), ["cross_attention", "rollout"], concepts=["red circle", "blue square"])
    >>> table["agreement"].dims, float(table["agreement"][0, 0])
    (('method', 'other_method'), 1.0)

    ``vl.plot.agreement(table)`` draws the agreement, ``vl.plot.faithfulness(table)`` the scores.
    """
    plan = _plan(methods)
    named = resolve_concepts(tree, concepts, prompt)
    numbers = list(resolve_steps(tree, steps))
    runs = _Runs(tree, pipe, sampling, prompt)
    with shared_calls():
        influences = {label: runs.of(label, plan, named, numbers) for label in plan}
        if pipe is not None or masks is not None:
            like = next((influence for influence in influences.values() if _has_map(influence)), None)
            like = runs.attribute("cross_attention", named, numbers) if like is None else like
            influences |= null_influences(like, list(named.values()), seed)
        table = xr.Dataset(coords={"method": list(influences), "concept": list(named), "other_method": list(influences)})
        table["share"] = (("method", "concept"), [share_of(influence).values for influence in influences.values()])
        table["agreement"] = agreement_of(influences)
        if pipe is not None:
            table = table.assign(_against_causal(influences, runs.attribute("leave_one_out", named, numbers)))
            table = table.assign(_on_single_tokens(runs, plan, numbers[len(numbers) // 2], checks=checks, seed=seed))
    if masks is not None:
        table = table.assign(_localised(influences, masks))
    table.attrs = {
        "prompt": str(tree.attrs.get("prompt", "")),
        "steps": json.dumps(numbers),
        "methods": json.dumps({label: [name, dict(options)] for label, (name, options) in plan.items()}, default=str),
        "nulls": ", ".join(NULLS) if len(influences) > len(plan) else "",
    }
    return table


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs attribution methods on one trace, with the pipeline for those that need it."""

    tree: xr.DataTree
    pipe: Any
    sampling: Mapping[str, Any] | None
    prompt: int | None

    def attribute(
        self, name: str, spans: Mapping[str, Sequence[int]], steps: int | Sequence[int], options: Options = MappingProxyType({})
    ) -> xr.DataArray:
        """Influence of `spans` by the method `name`."""
        model = {"pipe": self.pipe, "sampling": self.sampling} if METHODS[name].needs_pipe else {}
        return attribute(self.tree, name, spans, steps=steps, prompt=self.prompt, **{**model, **options})

    def of(self, label: str, plan: Plan, spans: Mapping[str, Sequence[int]], steps: int | Sequence[int]) -> xr.DataArray:
        """Influence of `spans` by the method and options that a plan has under `label`."""
        name, options = plan[label]
        return self.attribute(name, spans, steps, options)


def _plan(methods: Sequence[str] | Mapping[str, tuple[str, Options]]) -> Plan:
    """Label to method and options of everything that is compared."""
    names = [methods] if isinstance(methods, str) else list(methods)
    if not names:
        raise InputError("methods: expected at least one name; got none. vico_lens.methods() lists them.")
    if nulls := sorted(set(names) & set(NULLS)):
        raise InputError(
            f"methods: expected labels other than {', '.join(NULLS)}, which name the nulls; got {', '.join(nulls)}. Rename them."
        )
    pairs = methods if isinstance(methods, Mapping) else {name: (name, {}) for name in names}
    return {label: (name, {**_OPTIONS.get(name, {}), **options}) for label, (name, options) in pairs.items()}


def share_of(influence: xr.DataArray) -> xr.DataArray:
    """Share of each concept in the whole influence, over all steps and places, as in `dominance`; even where nothing has any."""
    return concept_shares(abs(influence).sum([dim for dim in influence.dims if dim != "concept"]))


def agreement_of(influences: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Agreement of each two methods on the steps that all of them have, as `compare` reports it.

    Parameters
    ----------
    influences : mapping of str to DataArray
        By method, over the same concepts.

    Returns
    -------
    DataArray
        ``(method, other_method)``; see `compare`.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> influences = {name: attribute(fake_trace(), name, ["red circle"]) for name in ("rollout", "cross_attention")}
    >>> agreement_of(influences).dims
    ('method', 'other_method')
    """
    stepped = {name: values for name, values in influences.items() if "step" in values.dims}
    aligned = dict(influences) | dict(zip(stepped, xr.align(*stepped.values(), join="inner"), strict=True))
    rows = [[_agreement(first, second) for second in aligned.values()] for first in aligned.values()]
    names = list(influences)
    return xr.DataArray(rows, dims=("method", "other_method"), coords={"method": names, "other_method": names}, name="agreement")


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


def _against_causal(influences: Mapping[str, xr.DataArray], causal: xr.DataArray) -> dict[str, Any]:
    """Scores of each method against leave-one-out."""
    weakest = concept_shares(causal).argmin("concept")
    hits, maps = [], []
    for influence in influences.values():
        share = concept_shares(influence).round(9)
        least = (share == share.min("concept")).astype(float)
        least = least / least.sum("concept")  # ties count as a guess
        hits.append(float(least.isel(concept=weakest).mean()))
        maps.append(map_correlation(influence, causal) if _has_map(influence) and _has_map(causal) else np.nan)
    return {
        "rank_correlation": ("method", [_share_correlation(influence, causal) for influence in influences.values()]),
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
    return _columns(("shuffled_weights", "sensitivity"), rows)


def match(first: Tensor, second: Tensor) -> float:
    """Rank correlation of two explanations: of the maps, mean over concepts, or of the concepts where there are no maps."""
    if first.ndim == 1:
        return spearman(first.numpy(), second.numpy())
    return float(np.mean([spearman(a.numpy(), b.numpy()) for a, b in zip(first, second, strict=True)]))


def _on_single_tokens(runs: _Runs, plan: Plan, step: int, *, checks: bool, seed: int) -> dict[str, Any]:
    """Deletion, insertion and infidelity of each method's influence of single tokens at one step, and the checks if wanted."""
    kinds = text_coordinate(runs.tree, "token_kind", runs.prompt)
    tokens = {str(token): (token,) for token, kind in enumerate(kinds) if kind == "text"}
    influences = {label: runs.of(label, plan, tokens, step) for label in plan}
    influences |= null_influences(runs.attribute("cross_attention", tokens, step), list(tokens.values()), seed)
    numbers = [token for (token,) in tokens.values()]
    call, switch = token_switch(runs.tree, runs.pipe, step, numbers, runs.sampling, runs.prompt)
    rows = []
    for influence in influences.values():
        totals = influence.sum([dim for dim in influence.dims if dim != "concept"]).values.tolist()
        curves = removal_curves(switch, totals, seed=seed)
        rows.append((curves["deletion"].mean(), curves["insertion"].mean(), infidelity(switch, totals, seed=seed)))
    scores = _columns(("deletion", "insertion", "infidelity"), rows)
    if checks:
        explainers = {
            label: explainer(runs.tree, runs.pipe, name, tokens, sampling=runs.sampling, **{"prompt": runs.prompt, **options})
            for label, (name, options) in plan.items()
        }
        scores |= _checked(call, [explainers.get(label) for label in influences], seed)
    return scores


def _columns(names: Sequence[str], rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Scores, a row a method, as variables with the dimension ``method``."""
    return {name: ("method", values) for name, values in zip(names, np.array(rows, dtype=np.float64).T, strict=True)}


def _localised(influences: Mapping[str, xr.DataArray], masks: Any) -> dict[str, Any]:
    rows = []
    for influence in influences.values():
        if _has_map(influence):
            scores = localisation(influence, masks)
            rows.append((float(scores["iou"].mean()), float(scores["pointing"].mean())))
        else:
            rows.append((np.nan, np.nan))
    return _columns(("iou", "pointing"), rows)
