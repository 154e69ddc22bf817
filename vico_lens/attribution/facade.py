"""`attribute`: the common opening and ending of every attribution method on a trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from vico_lens.attribution.base import MAP_DIMS, METHODS, Answer, Method, Problem, Residual, check_capacities, check_tokens
from vico_lens.attribution.plan import Plan, plan_of
from vico_lens.attribution.trace_stages import GridChoice, choose_grid, stages_from_trace
from vico_lens.errors import AttributionError, InputError
from vico_lens.kernels.stages import Heads
from vico_lens.store.selection import Layers, records
from vico_lens.vocabulary.concepts import Concept, find_concepts
from vico_lens.vocabulary.selection import Steps, step_positions

if TYPE_CHECKING:
    from vico_lens.kernels.stages import Grid

__all__ = ["DEFAULT_METHOD", "Concepts", "attribute", "resolve_concepts", "resolve_steps"]

# Of the methods that need a trace alone, it predicts leave-one-out best on the bundled model: benchmarks/results/faithfulness.md.
DEFAULT_METHOD = "rollout"
# Seconds from which a request says what it takes, and shows its progress.
_LONG = 10.0
Concepts = Sequence[str | Concept] | Mapping[str, Sequence[int]] | str | None


def attribute(
    tree: xr.DataTree,
    method: str | Method | None = None,
    concepts: Concepts = None,
    *,
    steps: Steps = None,
    layers: Layers = None,
    heads: Heads = None,
    rho: float = 0.5,
    residual: Residual = "share",
    grid: GridChoice = None,
    branch: str | None = None,
    prompt: int | None = None,
    pipe: Any = None,
    per_layer: bool = False,
    device: str | torch.device | None = None,
    **options: Any,
) -> xr.DataArray:
    """Influence of each concept on each token of the video, from a trace.

    Parameters
    ----------
    tree : DataTree
        A trace.
    method : str, optional
        One of `methods`; ``rollout`` by default: of those that need a trace alone, it predicts leave-one-out best on the bundled
        model.
    concepts : sequence of str or Concept, or mapping, optional
        Words of the prompt, concepts from `find_concepts`, or names with token indices; by default those found in the prompt.
    steps : int, sequence of int or slice, optional
        Denoising steps by their number, from the end if negative; all captured ones by default. A single int gives a
        result without a step dimension.
    layers : str, int or sequence of them, optional
        Glob patterns on module path or group (``"*up_blocks*"``, ``"*8x4x4"``), or places in the execution order; all by default.
    heads : int or sequence of int, optional
        Heads to average; all recorded ones by default.
    rho : float
        Residual share of each stage.
    residual : {"share", "add"}
        Capacities ``(1 - rho) A + rho I`` and ``(1 - rho) C``, or ``A + I`` and ``C``.
    grid : str or tuple of int, optional
        Video token grid of the result: ``"finest"`` of the sites that read text (default), ``"coarsest"``, or (frames, rows,
        columns).
    branch, prompt : optional
        Guidance branch and row of a batch, where the trace holds several.
    pipe : optional
        The pipeline, for methods that run the model again.
    per_layer : bool
        Ask the method of each site that reads text by itself, together with the sites after it up to the next such site, and
        return them along ``layer`` (after ``step``), numbered by their place in the execution order; coordinate ``module``.
    device : str or torch.device, optional
        Where a method on stages computes; by default where the trace was opened.
    **options
        The method's own, see ``methods()[name].options``.

    Returns
    -------
    DataArray
        Dimensions ``(concept, [step], [layer], frame, y, x)``, fewer where an option of the method says so. Attributes hold the
        method, all settings, and references.

    Raises
    ------
    InputError
        For an unknown method, option, concept, step, layer, head or grid.
    AttributionError
        If the trace lacks the attention that the method needs, or holds values that are not finite.

    Examples
    --------
    >>> import vico_lens as vl
    >>> from vico_lens.testing.traces import fake_trace
    >>> tree = fake_trace()
    >>> influence = vl.attribute(tree, "rollout")
    >>> influence.dims
    ('concept', 'step', 'frame', 'y', 'x')
    >>> vl.dominance(vl.attribute(tree, "rollout", per_layer=True))["share_by_layer"].sizes["layer"]
    2
    """
    chosen = METHODS[method or DEFAULT_METHOD] if not isinstance(method, Method) else method
    chosen.check_options(options)
    check_capacities(rho, residual)
    if chosen.needs_pipe and pipe is None:
        raise InputError(f"{chosen.name} runs the model again and needs it: attribute(..., {chosen.name!r}, pipe=your pipeline).")
    if chosen.needs_pipe and per_layer:
        raise InputError(f"per_layer: {chosen.name} runs the whole model again and has no layers; choose a method on stages.")
    if chosen.needs_pipe and (heads is not None or branch not in (None, "cond")):
        raise InputError(
            f"{chosen.name} runs the whole model again, all heads, and explains its conditional branch; got heads={heads!r}, "
            f"branch={branch!r}. Leave them out, or choose a method on stages."
        )
    # A missing kind of attention is the first thing to say, before anything about what would be read from it.
    records(tree, kinds=chosen.needs)
    sites = records(tree, layers=layers, kinds=chosen.reads)
    if not any(site.kind in chosen.needs for site in sites):
        raise InputError(
            f"layers={layers!r} leaves no {' or '.join(chosen.needs)} attention, which {chosen.name} needs; widen the selection."
        )
    named = resolve_concepts(tree, concepts, prompt)
    numbers = resolve_steps(tree, steps)
    target = choose_grid(sites, grid)
    asked = Problem((), tuple(named.values()), target, rho, residual, tuple(named), numbers, tree, pipe, prompt)
    if chosen.needs_pipe:
        parts = [_wrap(chosen(asked, **options), chosen, tuple(named), None)]
    else:
        parts = []
        bar = _Bar()
        for number in numbers:
            stages = stages_from_trace(
                tree,
                number,
                layers=layers,
                kinds=chosen.reads,
                heads=heads,
                grid=target,
                branch=branch,
                prompt=prompt,
                device=device,
                on_read=bar.tick,
            )
            if number == numbers[0]:
                plan = plan_of(stages, chosen, steps=len(numbers))
                plan.refuse_unless_it_fits()
                bar.start(plan)
            check_tokens(stages, list(named.values()))
            problem = replace(asked, stages=tuple(stages), steps=(number,))
            with torch.no_grad():
                ask = _each_layer if per_layer else _whole
                parts.append(ask(problem, chosen, options))
        bar.close()
    influence = parts[0] if chosen.needs_pipe else _join(parts)
    settings = {"layers": layers, "heads": heads, "rho": rho, "residual": residual, "branch": branch, "prompt": prompt}
    settings |= {"per_layer": per_layer or None, **options}
    return _finish(influence, tree, chosen, named, numbers, target, settings, single=isinstance(steps, (int, np.integer)))


class _Bar:
    """Progress of a request that takes long: a tick a site read. One that is quick shows nothing."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, plan: Plan) -> None:
        """Say what the request takes, if that is long."""
        if plan.seconds >= _LONG:
            from tqdm import tqdm

            self._bar = tqdm(desc=str(plan), total=plan.sites * plan.steps, unit="site", file=sys.stderr)

    def tick(self) -> None:
        """Count a site that was read."""
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()


def resolve_concepts(tree: xr.DataTree, concepts: Concepts, prompt: int | None = None) -> dict[str, tuple[int, ...]]:
    """Names and token indices of what the caller asked for."""
    found = find_concepts(tree, concepts, prompt=prompt)
    named = {concept.name: tuple(concept.tokens) for concept in found}
    if len(named) < len(found):
        raise InputError(f"concepts: expected different names; got {[concept.name for concept in found]}.")
    return named


def resolve_steps(tree: xr.DataTree, steps: Steps) -> tuple[int, ...]:
    """Steps asked for, checked against those captured."""
    have = [int(step) for step in tree.coords["step"].values]
    if not have:
        raise AttributionError(
            "expected a trace with at least one captured step; this one has none. Did the run end before its first step?"
        )
    return tuple(have[place] for place in step_positions(steps, have))


def _whole(problem: Problem, method: Method, options: Mapping[str, Any]) -> xr.DataArray:
    """Ask a method about all stages of one step."""
    return _wrap(method(problem, **options), method, problem.names, problem.steps[0])


def _each_layer(problem: Problem, method: Method, options: Mapping[str, Any]) -> xr.DataArray:
    """Ask a method about each site that reads text, with the sites after it up to the next one."""
    readers = [place for place, stage in enumerate(problem.stages) if stage.tokens]
    ends = [*readers[1:], len(problem.stages)]
    parts = [
        _whole(replace(problem, stages=problem.stages[start:end]), method, options)
        for start, end in zip(readers, ends, strict=True)
    ]
    sites = [problem.stages[place] for place in readers]
    joined = _join(parts, "layer").assign_coords(layer=[site.order for site in sites])
    return joined.assign_coords(module=("layer", [site.module for site in sites]))


def _wrap(result: torch.Tensor | Answer, method: Method, names: tuple[str, ...], step: int | None) -> xr.DataArray:
    """Label what a method returned, refusing what is not an influence."""
    answer = result if isinstance(result, Answer) else Answer(result)
    values = answer.values.detach().cpu().numpy()
    if values.ndim != len(answer.dims) or answer.dims[0] != "concept" or values.shape[0] != len(names):
        raise AttributionError(
            f"{method.name} returned shape {values.shape} for dimensions {answer.dims}; expected {', '.join(MAP_DIMS)} with "
            f"{len(names)} concepts, or an Answer that names its dimensions."
        )
    if not np.isfinite(values).all():
        where = "" if step is None else f" at step {step}"
        raise AttributionError(
            f"{method.name} gave values that are not finite{where}. Check the trace for NaN, or trace in float32."
        )
    array = xr.DataArray(values, dims=answer.dims, coords=dict(answer.coords), name="influence", attrs=dict(answer.attrs))
    return array if step is None else array.assign_coords(step=step)


def _join(parts: Sequence[xr.DataArray], dim: str = "step") -> xr.DataArray:
    """Put steps (layers) side by side, with every coordinate that the method gave: a certificate differs from step to step."""
    given = [str(name) for name in parts[0].coords if name not in ("step", "layer", "module")]
    joined = xr.concat(parts, dim=dim, coords=given, compat="override", join="override", combine_attrs="override")
    return joined.transpose("concept", dim, ...)


def _summary(influence: xr.DataArray) -> dict[str, object]:
    """What a certificate says over all values, for the attributes: how often flows are saturated, and the largest gap."""
    found: dict[str, object] = {}
    if "saturated" in influence.coords:
        names, counts = np.unique(influence.coords["saturated"].values, return_counts=True)
        found["saturated_share"] = json.dumps(
            {str(name): float(count / counts.sum()) for name, count in zip(names, counts, strict=True)}
        )
    if "gap" in influence.coords:
        found["largest_gap"] = float(np.abs(influence.coords["gap"].values).max())
    return found


def _finish(
    influence: xr.DataArray,
    tree: xr.DataTree,
    method: Method,
    named: Mapping[str, tuple[int, ...]],
    steps: tuple[int, ...],
    grid: Grid,
    settings: Mapping[str, object],
    *,
    single: bool,
) -> xr.DataArray:
    """Add coordinates and the record of how the numbers came about."""
    if "step" in influence.dims and "step" not in influence.coords:
        influence = influence.assign_coords(step=list(steps))
    influence = influence.assign_coords(concept=list(named))
    for dim in ("frame", "y", "x"):
        if dim in influence.dims:
            influence = influence.assign_coords({dim: np.arange(influence.sizes[dim])})
    if "timestep" in tree.coords and "step" in influence.dims:
        captured = dict(zip(tree.coords["step"].values.tolist(), tree.coords["timestep"].values.tolist(), strict=True))
        influence = influence.assign_coords(timestep=("step", [captured[step] for step in steps]))
    if single and "step" in influence.dims:
        influence = influence.squeeze("step")
    used = {
        name: value
        for name, value in settings.items()
        if value is not None and not hasattr(value, "shape") and not callable(value)
    }
    influence.attrs = {
        "long_name": f"influence of a concept ({method.name})",
        "units": "1",
        "method": method.name,
        "references": method.references,
        "settings": json.dumps(used, default=str, sort_keys=True),
        "grid": "x".join(map(str, grid)),
        "tokens": json.dumps({name: list(tokens) for name, tokens in named.items()}),
        "cell_methods": "head: mean" if not method.needs_pipe else "",
        "prompt": str(tree.attrs.get("prompt", "")),
        **influence.attrs,
        **_summary(influence),
    }
    return influence
