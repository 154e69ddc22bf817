"""Turn what an interception sees into attention calls with a step, a guidance branch and a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vico_lens.errors import TracingError
from vico_lens.tracing.branches import BranchReader, EncodedTexts, Label, Passes, text_states
from vico_lens.tracing.families import Family, Forward, Rule, denoisers, family_of, rule_for
from vico_lens.tracing.families.base import Grid, LeftOut, Unfolded
from vico_lens.tracing.families.forwards import forward_of
from vico_lens.tracing.families.reader import read
from vico_lens.tracing.interception import Interception
from vico_lens.tracing.process_settings import WRAPPER
from vico_lens.tracing.raw_calls import Attended
from vico_lens.tracing.running_call import Pipeline, RunningCall, running_call
from vico_lens.tracing.sites import SiteBook
from vico_lens.vocabulary.schema import AttentionCall, AttentionSite, Branch

__all__ = ["Label", "Pass", "Watch"]


@dataclass(slots=True)
class Pass:
    """One forward of a denoiser within a run.

    Attributes
    ----------
    denoiser : str
        Component name.
    forward : Forward
        Its inputs, as far as they matter.
    call : RunningCall or None
        The pipeline call around it.
    step : int
        Index of the denoising step.
    timestep : float
        The timestep of that step.
    labels : tuple of Label or None
        What each row of the batch is; None for a row that is neither branch (perturbed-attention guidance).
    reason : str
        How the labels are known, see `vico_lens.tracing.branches.Labels`.
    turn : int
        Forwards of this step before it.
    per_frame : bool
        The text differs from frame to frame.
    record : bool
        Whether the listener wants its calls.
    """

    denoiser: str
    forward: Forward
    call: RunningCall | None
    step: int
    timestep: float
    labels: tuple[Label | None, ...]
    reason: str = "given"
    turn: int = 0
    per_frame: bool = False
    record: bool = True


@dataclass(slots=True)
class Watch:
    """The observer of an interception (`vico_lens.tracing.interception.Observer`) that knows the pipeline's family.

    Attributes
    ----------
    pipe : object
        The pipeline.
    emit : callable
        Takes each attention call.
    branches : sequence of str
        Guidance branches to hand on.
    wanted : callable or None
        Which sites to hand on; None for all.
    begin, end : callable or None
        Told when a denoiser forward begins (it may set ``moment.record``) and ends (with whether it failed).
    rows, step, timestep, grid, forward
        Take the place of what would be read from the running pipeline call and from the denoiser's arguments.
    passes, texts
        How the branches of a loop of one's own follow each other, and what text was encoded; see `BranchReader`.
    """

    pipe: Pipeline
    emit: Callable[[AttentionCall], None]
    branches: Sequence[Branch] = ("cond",)
    wanted: Callable[[AttentionSite], bool] | None = None
    begin: Callable[[Pass], None] | None = None
    end: Callable[[Pass, bool], None] | None = None
    rows: Sequence[Label] | None = None
    step: int | None = None
    timestep: float | None = None
    grid: Grid | None = None
    forward: Forward | None = None
    passes: Passes | None = None
    texts: EncodedTexts | None = None
    family: Family = field(init=False)
    roots: dict[str, nn.Module] = field(init=False)
    book: SiteBook = field(init=False, default_factory=SiteBook)
    interception: Interception | None = field(init=False, default=None)
    current: Pass | None = field(init=False, default=None)
    forwards: int = field(init=False, default=0)
    _known: dict[str, Rule | None] = field(init=False, default_factory=dict)
    _rules: dict[str, Rule] = field(init=False, default_factory=dict)
    _turn: int = field(init=False, default=0)
    _branches: BranchReader = field(init=False)
    _place: tuple[int, float, str] | None = field(init=False, default=None)
    _counted: int = field(init=False, default=-1)
    _text_by_frame: tuple[Tensor, bool] | None = field(init=False, default=None)
    _reported: set[str] = field(init=False, default_factory=set)
    _sites: dict[str, bool] = field(init=False, default_factory=dict)
    _first: dict[str, set[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.family = family_of(self.pipe)
        self.roots = denoisers(self.pipe, self.family)
        self._branches = BranchReader(self.family, self.rows, self.passes, self.texts)

    def enter(self, denoiser: str, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note where in the run this forward stands."""
        forward = self.forward or forward_of(self.family, root, args, kwargs, self.grid)
        call = running_call(self.pipe, root)
        if call is not None and call.pipe is not self.pipe:
            raise TracingError(
                f"expected {type(self.pipe).__name__} to be called inside the trace, got a call of another pipeline, "
                f"{type(call.pipe).__name__}, which shares its denoiser: open a vl.trace for that pipeline object."
            )
        timestep = self._timestep(forward, call)
        step = self._step(call, timestep)
        place = (step, timestep, denoiser)
        self._turn = self._turn + 1 if place == self._place else 0
        self._place = place
        self._reported = set()
        labels = self._branches.labels(forward, call, self._turn)
        self.current = Pass(
            denoiser, forward, call, step, timestep, labels.rows, labels.reason, self._turn, self._per_frame(forward)
        )
        if self.begin is not None:
            self.begin(self.current)

    def attended(self, run: Attended) -> None:
        """Hand on the calls of one attention module."""
        moment = self.current
        assert moment is not None
        path = f"{next(iter(self.roots))}.{run.module}"  # experts of one pipeline share their sites
        self._reported.add(run.module)
        if run.module not in self._known:
            self._known[run.module] = rule_for(self.family, run.module)
        known = self._known[run.module]
        if known is not None and known.kind is None:
            self.book.left_out.setdefault(path, known.reason)
            return
        run.join()
        rule = known or self._inferred(path, run, moment.forward)
        site = self.book.sites.get(path)
        if site is not None and not (moment.record and (self.wanted is None or self.wanted(site))):
            return
        rows = [row for row, label in enumerate(moment.labels) if label is not None and label[0] in self.branches]
        try:
            self._hand_on(path, rule, read(run, rule, self.family, moment.forward, rows or [0]), moment)
        except LeftOut as reason:
            self.book.left_out[path] = str(reason)

    def _hand_on(self, path: str, rule: Rule, parts: Iterator[Unfolded], moment: Pass) -> None:
        assert rule.kind is not None
        labels = moment.labels
        for part in parts:
            site = self.book.site(path, rule.kind, part)
            label = labels[part.row]
            if label is None or label[0] not in self.branches or not moment.record:
                continue
            if self.wanted is not None and not self.wanted(site):
                return
            if moment.per_frame and rule.kind == "cross":
                raise TracingError(
                    f"{path}: expected one text for all frames of a video, got texts that differ from frame to frame (a prompt "
                    "by frame number, as FreeNoise takes it), and a trace has one table of tokens. Give one prompt, or record "
                    'the other attention only, with Capture(kinds=("spatial", "temporal")).'
                )
            self.book.recorded.add(path)
            self.emit(
                AttentionCall(
                    site=site,
                    step=moment.step,
                    timestep=moment.timestep,
                    branch=label[0],
                    prompt=label[1],
                    query=part.query,
                    key=part.key,
                    scale=part.scale,
                    bias=part.bias,
                    probabilities=part.probabilities,
                )
            )

    def leave(self, denoiser: str, *, failed: bool) -> None:
        """Check that every attention site that ran was seen, and close the forward."""
        moment = self.current
        assert moment is not None
        if not failed:
            self._check(denoiser)
            self.forwards += 1
        if self.end is not None:
            self.end(moment, failed)

    def unrun(self) -> dict[str, str]:
        """Return known attention modules that never ran, with that as the reason."""
        name, root = next(iter(self.roots.items()))
        paths = (path.replace(f"{WRAPPER}.", "") for path, _ in root.named_modules())
        known = {f"{name}.{path}" for path in paths if self._is_site(path)}
        return {path: "did not run" for path in sorted(known) if path not in self.book.sites and path not in self.book.left_out}

    def _is_site(self, path: str) -> bool:
        rule = rule_for(self.family, path)
        return rule is not None and rule.kind is not None

    def _inferred(self, path: str, run: Attended, forward: Forward) -> Rule:
        if path not in self._rules:
            from vico_lens.tracing.families.unknown import inferred_rule

            self._rules[path] = inferred_rule(run, forward)
        return self._rules[path]

    def _check(self, denoiser: str) -> None:
        ran = self.interception.executed if self.interception is not None else set()
        for path in ran - self._sites.keys():
            self._sites[path] = self._is_site(path)
        silent = sorted(path for path in ran - self._reported if self._sites[path])
        if self._turn == 0:  # further passes of a step may skip layers on purpose: a guidance of its own
            first = self._first.setdefault(denoiser, set(self._reported))
            silent += sorted(path for path in first - ran if self._is_site(path))
        if silent or not self.book.sites:
            names = ", ".join(f"{denoiser}.{path}" for path in silent[:4]) or f"any module of {denoiser}"
            cached = getattr(self.roots[denoiser], "is_cache_enabled", False)
            advice = (
                f"A cache of diffusers is on, which skips layers: call pipe.{denoiser}.disable_cache() while tracing."
                if cached
                else "A processor or kernel that bypasses torch does that (xformers, flash or sage kernels set on the processor, "
                "attention inside a compiled graph, a cache that skips layers): switch it off while tracing, in diffusers with "
                "model.set_default_attn_processor() or model.disable_cache()."
            )
            raise TracingError(
                f"expected every attention site of {type(self.pipe).__name__} to call scaled_dot_product_attention or a softmax, "
                f"but none was seen in {names}{' and others' if len(silent) > 4 else ''} ({len(silent)} sites). {advice}"
            )

    def _per_frame(self, forward: Forward) -> bool:
        """Whether text states that stand once a frame differ between the frames of a row."""
        states = text_states(self.family, forward.inputs)
        if states is None or states.is_meta or len(states) <= forward.batch or len(states) % forward.batch:
            return False
        if self._text_by_frame is None or self._text_by_frame[0] is not states:
            frames = states.reshape(forward.batch, -1, *states.shape[1:])
            rounding = 8 * torch.finfo(states.dtype).eps * states.abs().amax()  # FreeNoise interpolates between equal texts
            self._text_by_frame = states, bool((frames - frames[:, :1]).abs().amax() > rounding)
        return self._text_by_frame[1]

    def _timestep(self, forward: Forward, call: RunningCall | None) -> float:
        if self.timestep is not None:
            return self.timestep
        if call is not None and call.timestep is not None:
            return call.timestep
        value = forward.inputs.get("timestep")
        if isinstance(value, Tensor) and value.numel():
            return float(value.flatten()[0])
        return float(value) if isinstance(value, (int, float)) else 0.0

    def _step(self, call: RunningCall | None, timestep: float) -> int:
        if self.step is not None:
            return self.step
        if call is not None and call.step is not None:
            return call.step
        if self._place is None or self._place[1] != timestep:  # a loop without an index: a new timestep is a new step
            self._counted += 1
        return self._counted
