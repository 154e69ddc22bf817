"""Repeat every conditional forward of a sampling run with one cut after the other, and measure what each one changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from vico_lens.errors import InputError
from vico_lens.intervention.balancing.session import extra_forwards, is_extra
from vico_lens.intervention.knockouts.cuts import Cut
from vico_lens.intervention.knockouts.editor import Editor, Selection
from vico_lens.intervention.knockouts.plan import CausalPlan
from vico_lens.tracing.capture import Capture
from vico_lens.vocabulary.schema import AttentionSite

__all__ = ["Cell", "Mapper", "Planned"]

Cell = tuple[int, int, int, int]
"""Concept, layer, head and frame that are cut together, by place; -1 stands for all of them."""


class Planned(Exception):
    """The cost is known and nothing more is wanted: no error, it ends a pipeline call whose rest is not needed."""


@dataclass(slots=True)
class Mapper:
    """Hooks of the denoiser for the time of one sampling run.

    Attributes
    ----------
    editor : Editor
        Of the interception that is active.
    axes : tuple of str
        What is cut one by one: ``layer``, ``step``, ``head``, ``frame``.
    cut : Cut
        How.
    wanted : callable or None
        Which sites may be cut.
    steps : slice, sequence of int, int or None
        Denoising steps.
    videos : bool
        Whether every concept, layer and step will be a sampling run too.
    on_plan : callable
        Takes the plan before the first cut; may raise.
    progress : callable or None
        Takes how many forwards are done, and of how many.
    effects : dict
        Relative change of the prediction, by cell and step.
    """

    editor: Editor
    axes: tuple[str, ...]
    cut: Cut
    wanted: Callable[[AttentionSite], bool] | None
    steps: Any
    videos: bool
    on_plan: Callable[[CausalPlan], None]
    progress: Callable[[int, int], None] | None = None
    plan: CausalPlan | None = None
    sites: list[AttentionSite] = field(default_factory=list)
    timesteps: dict[int, float] = field(default_factory=dict)
    effects: dict[tuple[Cell, int], float] = field(default_factory=dict)
    _began: float = 0.0

    def hook(self, undo: ExitStack) -> None:
        """Watch the denoisers until `undo` is closed."""
        for module in self.editor.watch.roots.values():
            undo.callback(module.register_forward_pre_hook(self._before).remove)
            undo.callback(module.register_forward_hook(self._after, with_kwargs=True).remove)

    def cells(self, concepts: int) -> Iterator[Cell]:
        """Everything that is cut on its own at one denoising step."""
        frames = range(self.sites[0].grid[0]) if "frame" in self.axes else [-1]
        fewest = min(site.heads for site in self.sites)
        for concept in range(concepts):
            for layer in range(len(self.sites)) if "layer" in self.axes else [-1]:
                count = fewest if layer < 0 else self.sites[layer].heads
                for head in range(count) if "head" in self.axes else [-1]:
                    for frame in frames:
                        yield concept, layer, head, frame

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not is_extra():
            self._began = perf_counter()

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        moment = self.editor.moment
        if is_extra() or moment is None:
            return
        rows = [row for row, label in enumerate(moment.labels) if label is not None and label[0] == "cond"]
        if not rows or (moment.call is not None and not moment.call.first_order):
            return
        if self.plan is None:
            self.plan = self._planned(moment, perf_counter() - self._began)
            self.on_plan(self.plan)
        if moment.step not in self.plan.steps or moment.step in self.timesteps:
            return
        self.timesteps[moment.step] = moment.timestep
        plain = _prediction(output)[rows].float()
        size = plain.square().mean().sqrt()
        with extra_forwards(self.editor.watch.roots.values()), torch.no_grad(), ExitStack() as undo:
            undo.callback(setattr, self.editor, "repeated", None)
            undo.callback(setattr, self.editor, "selection", None)
            self.editor.repeated = (moment.labels, moment.step, moment.timestep)
            for cell in self.cells(len(self.plan.concepts)):
                self.editor.selection = self._selection(cell)
                changed = _prediction(module(*args, **kwargs))[rows].float()
                self.effects[cell, self.editor.repeated[1]] = float((changed - plain).square().mean().sqrt() / size)
                if self.progress is not None:
                    self.progress(len(self.effects), self.plan.forwards)

    def _planned(self, moment: Any, seconds: float) -> CausalPlan:
        """Which sites, steps and concepts there are, and what the map will cost."""
        sites = self.editor.watch.book.sites.values()
        self.sites = [site for site in sites if site.kind in ("cross", "joint") and (self.wanted is None or self.wanted(site))]
        timesteps = None if moment.call is None else moment.call.timesteps
        if not self.sites or timesteps is None:
            what = "layers that read text" if not self.sites else "a pipeline that says how many denoising steps it takes"
            raise InputError(f"expected {what}, got none; `vico_lens.estimate(pipe, prompt)` lists the sites of a pipeline.")
        steps = tuple(Capture(steps=self.steps).chosen_steps(len(timesteps)))
        names = tuple(concept.name for concept in self.editor.words_of(moment)[0].concepts)
        forwards = len(steps) * sum(1 for _ in self.cells(len(names)))
        layers = tuple(site.module for site in self.sites)
        runs = len(names) * (len(layers) if "layer" in self.axes else 1) * (len(steps) if "step" in self.axes else 1)
        runs = runs if self.videos else 0
        return CausalPlan(names, layers, steps, forwards, runs, (forwards + runs * len(timesteps)) * seconds)

    def _selection(self, cell: Cell) -> Selection:
        concept, layer, head, frame = cell
        modules = {site.module for site in (self.sites if layer < 0 else [self.sites[layer]])}
        return Selection(
            replace(self.cut, heads=None if head < 0 else (head,)),
            lambda site: site.module in modules,
            frames=None if frame < 0 else (frame,),
            concepts=(concept,),
        )


def _prediction(output: Any) -> Tensor:
    value: Tensor = output[0] if isinstance(output, (tuple, list)) else getattr(output, "sample", output)
    return value
