"""What every layer, step and head does for a word: the change of the prediction when the word is cut out there alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from vico_lens.errors import InputError
from vico_lens.intervention.balancing.quality import distance
from vico_lens.intervention.balancing.session import Session
from vico_lens.intervention.balancing.words import Names
from vico_lens.intervention.knockouts.cuts import Cut, Replacement
from vico_lens.intervention.knockouts.editor import Editor
from vico_lens.intervention.knockouts.mapper import Mapper, Planned
from vico_lens.intervention.knockouts.plan import CausalPlan
from vico_lens.intervention.knockouts.session import knockout
from vico_lens.tracing.interception import intercept
from vico_lens.tracing.tokens import seen_ids
from vico_lens.vocabulary.concepts import Concept
from vico_lens.vocabulary.selection import Layers, matches

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["causal_map"]

Axis = Literal["layer", "step", "head", "frame"]
_AXES = ("layer", "step", "head", "frame")


def causal_map(
    pipe: Any,
    prompt: str,
    concepts: Names | str | Concept | None = None,
    over: Sequence[Axis] = ("layer", "step"),
    *,
    layers: Layers = None,
    steps: slice | Sequence[int] | int | None = None,
    to: Replacement = "mask",
    seed: int = 0,
    video: bool = False,
    judge: Callable[[np.ndarray], str] | None = None,
    plan: Callable[[CausalPlan], None] | Literal["only"] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **call: Any,
) -> xr.Dataset:
    """Cut each concept out of one layer at one step after another, and measure how much the prediction changes.

    The pipeline samples once, as it always does. After each of its conditional denoiser forwards the same forward is repeated
    with a cut in place, once for every entry of the map, so every effect is that of one cut on the plain latents.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Any video pipeline that `vico_lens.trace` knows.
    prompt : str
        Its prompt.
    concepts : sequence of str or Concept, optional
        By default the prompt's noun phrases.
    over : sequence of str
        What is cut one by one, of ``"layer"``, ``"step"``, ``"head"``, ``"frame"``. Without ``"layer"`` all layers are cut at
        once, and likewise heads and frames; without ``"step"`` the map is the mean over the steps.
    layers, steps, to
        As in `knockout`: which layers and steps are on the map, and what becomes of the words there.
    seed : int
        Of the generator.
    video : bool
        Measure the effect on the final video too. Every concept, layer (if in `over`) and step (likewise) is then one more
        sampling run.
    judge : callable, optional
        Uint8 frames to a word, which is kept of every video; the plain one's is an attribute.
    plan : callable or "only", optional
        Takes the `CausalPlan` before the first cut, and may raise an error to refuse it. ``"only"`` stops there and returns the
        plan as the attributes of an empty dataset. By default the plan is shown beside a progress bar, where a person watches.
    progress : callable, optional
        Takes finished and all forwards, in the place of the progress bar.
    **call
        Further arguments of the pipeline's call.

    Returns
    -------
    Dataset
        ``effect (concept, *over)``: root mean square change of the conditional prediction as a share of the prediction's own
        root mean square. NaN where a layer has fewer heads than another. Coordinates ``module (layer)``, ``group (layer)``,
        ``timestep (step)``. With `video` also ``video_effect``: root mean square difference of the videos in units of full range,
        and ``verdict`` with a judge.

    Raises
    ------
    InputError
        For an axis that does not exist, or if no layer or step is left.
    ConceptError
        If a concept is not in the prompt.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("wan21-t2v")
    >>> call = {name: value for name, value in tiny.kwargs.items() if name != "prompt"}
    >>> effects = causal_map(tiny.pipe, tiny.prompt, ["red circle"], **call)
    >>> effects.effect.dims, bool((effects.effect > 0).all())
    (('concept', 'layer', 'step'), True)
    """
    axes = (over,) if isinstance(over, str) else tuple(over)
    if not set(axes) <= set(_AXES) or len(set(axes)) < len(axes):
        raise InputError(f"expected over= to name each of {', '.join(_AXES)} at most once, got {axes}.")
    names = [concepts] if isinstance(concepts, (str, Concept)) else concepts
    settings = {"prompt": prompt, **call}
    with ExitStack() as undo:
        seen = undo.enter_context(seen_ids(pipe))
        bar = undo.enter_context(tqdm(total=0, desc="causal map", file=sys.stderr, leave=False, disable=None))

        def planned(cost: CausalPlan) -> None:
            bar.reset(cost.forwards + cost.runs)
            bar.set_postfix_str(str(cost))
            if callable(plan):
                plan(cost)
            elif plan == "only":
                raise Planned

        def advance(done: int, total: int) -> None:
            bar.update()
            if progress is not None:
                progress(done, total)

        editor, wanted = Editor(pipe, names, seen, None), partial(matches, layers=layers)
        mapper = Mapper(editor, axes, Cut(to), wanted, steps, video, planned, advance)
        with intercept(mapper.editor.watch.roots, mapper.editor) as mapper.editor.watch.interception, ExitStack() as hooks:
            mapper.hook(hooks)
            session = hooks.enter_context(Session(pipe, mapper.editor.watch.roots))
            try:
                pipe(**settings, generator=torch.Generator().manual_seed(seed))
            except Planned:
                assert mapper.plan is not None  # it was raised by its receiver
                return _dataset(mapper).assign_attrs(asdict(mapper.plan))
        effects = _dataset(mapper)
        if not video:
            return effects
        return _with_videos(pipe, effects, mapper, names, to, settings, seed, session.video, judge, bar.update)


def _dataset(mapper: Mapper) -> xr.Dataset:
    """The effects over concept and the axes of the map, averaged over the steps where they are no axis."""
    import xarray as xr

    assert mapper.plan is not None  # made at the first forward
    cost, sites, steps = mapper.plan, mapper.sites, sorted(mapper.timesteps)
    sizes = {
        "concept": len(cost.concepts),
        "layer": len(sites) if "layer" in mapper.axes else 1,
        "head": max(site.heads for site in sites) if "head" in mapper.axes else 1,
        "frame": sites[0].grid[0] if "frame" in mapper.axes else 1,
        "step": len(steps),
    }
    values = np.full(tuple(sizes.values()), np.nan)
    for (cell, step), change in mapper.effects.items():
        values[(*(max(0, place) for place in cell), steps.index(step))] = change
    coords: dict[str, Any] = {
        "concept": list(cost.concepts),
        "layer": range(sizes["layer"]),
        "head": range(sizes["head"]),
        "frame": range(sizes["frame"]),
        "step": steps,
        "module": ("layer", [site.module for site in sites[: sizes["layer"]]]),
        "group": ("layer", [site.group for site in sites[: sizes["layer"]]]),
        "timestep": ("step", [mapper.timesteps[step] for step in steps]),
    }
    effect: xr.DataArray = xr.DataArray(values, coords, tuple(sizes), name="effect")
    effect = effect.isel({axis: 0 for axis in ("layer", "head", "frame") if axis not in mapper.axes}, drop=True)
    if "step" not in mapper.axes:
        effect = effect.mean("step")
    effect = effect.transpose("concept", *mapper.axes)
    long_name = "change of the prediction, as a share of its root mean square"
    return effect.assign_attrs(long_name=long_name, units="1").to_dataset()


def _with_videos(
    pipe: Any,
    effects: xr.Dataset,
    mapper: Mapper,
    names: Names | None,
    to: Replacement,
    settings: Mapping[str, Any],
    seed: int,
    plain: np.ndarray,
    judge: Callable[[np.ndarray], str] | None,
    advance: Callable[[], object],
) -> xr.Dataset:
    """Sample once more for every concept, layer and step of the map, cut there, and compare with the plain video."""
    import xarray as xr

    assert mapper.plan is not None  # made at the first forward
    axes = [axis for axis in ("layer", "step") if axis in mapper.axes]
    changes = xr.full_like(effects.effect.isel({axis: 0 for axis in mapper.axes if axis not in axes}, drop=True), np.nan)
    verdicts = xr.full_like(changes, "", dtype=object)
    found = mapper.editor.words[0].concepts
    for place in np.ndindex(changes.shape):
        index = dict(zip(changes.dims, place, strict=True))
        layers = [mapper.plan.layers[index["layer"]]] if "layer" in index else list(mapper.plan.layers)
        steps = [mapper.plan.steps[index["step"]]] if "step" in index else list(mapper.plan.steps)
        concept = found[index["concept"]]
        with Session(pipe, mapper.editor.watch.roots) as session, knockout(pipe, [concept], layers, steps=steps, to=to):
            pipe(**settings, generator=torch.Generator().manual_seed(seed))
        changes[place] = distance(plain, session.video)
        if judge is not None:
            verdicts[place] = judge(session.video)
        advance()
    changes.attrs = {"long_name": "root mean square difference from the plain video", "units": "1"}
    effects = effects.assign(video_effect=changes)
    if judge is None:
        return effects
    return effects.assign(verdict=verdicts.astype(str)).assign_attrs(plain_verdict=judge(plain))
