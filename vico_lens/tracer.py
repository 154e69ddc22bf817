"""Watch a pipeline run: hand live attention calls to whoever asks, or a selection of them to a sink that stores them.

The pipeline is called by its user, untouched. A tracer lives in a ``with``; it learns prompt, seed, step and guidance from the
running call, and everything else from the denoiser's arguments. Where it cannot know, it raises: a silently empty trace, or one
with halves or axes mixed up, is worse than none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from torch import Tensor

from vico_lens.capture import Capture
from vico_lens.costs import check_budget
from vico_lens.errors import TracingError
from vico_lens.families.base import Grid
from vico_lens.interception import intercept
from vico_lens.provenance import provenance
from vico_lens.running import RunningCall, running_call
from vico_lens.schema import AttentionCall, AttentionSite, Branch, Kind, Sink
from vico_lens.tokens import SeenIds, seen_ids, token_tables, warn_of_cut
from vico_lens.watch import Label, Moment, Watch

__all__ = ["RunningCall", "Tracer", "observe", "running_call"]

_MANY = 10_000


@contextmanager
def observe(
    pipe: Any,
    *,
    branches: Sequence[Branch] = ("cond",),
    kinds: Collection[Kind] | None = None,
    layers: Callable[[AttentionSite], bool] | None = None,
    rows: Sequence[Label] | None = None,
    step: int | None = None,
    timestep: float | None = None,
    grid: Grid | None = None,
    on_call: Callable[[AttentionCall], None] | None = None,
) -> Iterator[list[AttentionCall]]:
    """Yield the attention calls of every denoiser forward inside the ``with``, live: with gradients, nothing copied.

    What happens inside is hidden from enclosing traces.

    Parameters
    ----------
    pipe : object
        The pipeline.
    branches : sequence of str
        Guidance halves to hand out.
    kinds : collection of str or None
        Kinds of attention; None for all.
    layers : callable or None
        Takes a site and says whether to hand it out.
    rows : sequence of (str, int) or None
        Guidance half and prompt of each row of the denoiser's batch. None: as the running pipeline call says, or all conditional
        if there is none.
    step, timestep : int, float or None
        Take the place of those of the running call.
    grid : tuple of int or None
        Token grid (frames, rows, columns), for packed latents without their size.
    on_call : callable or None
        Takes each call at once; the list then stays empty.

    Yields
    ------
    list of AttentionCall
        Filled in order of execution.

    Raises
    ------
    TracingError
        If a known attention site ran and was not seen, or its layout is unknown.
    """
    calls: list[AttentionCall] = []

    def wanted(site: AttentionSite) -> bool:
        return (kinds is None or site.kind in kinds) and (layers is None or layers(site))

    watch = Watch(pipe, on_call or calls.append, branches, wanted, rows=rows, step=step, timestep=timestep, grid=grid)
    with intercept(watch.roots, watch, exclusive=True) as watch.interception:
        yield calls


class Tracer:
    """Hand the calls that a capture selects of one pipeline call to a sink.

    Parameters
    ----------
    pipe : object
        The pipeline.
    capture : Capture
        What to record.
    sink : Sink
        Takes the calls.
    metadata : mapping or None
        Provenance of the caller's own; ``prompt`` here is used if the pipeline is called with embeddings.
    """

    def __init__(self, pipe: Any, capture: Capture, sink: Sink, metadata: Mapping[str, object] | None = None) -> None:
        self.capture = capture
        self.metadata = dict(metadata or {})
        self.watch = Watch(pipe, self._emit, capture.branches, capture.wants, self._begin, self._end)
        self.started = False
        self.experts: dict[str, list[int]] = {}
        self._pipe = pipe
        self._sink = sink
        self._seen: SeenIds = {}
        self._undo = ExitStack()
        self._frame: FrameType | None = None
        self._chosen: set[int] | None = None
        self._step: int | None = None
        self._offset = 0
        self._broken = False
        self._halves: set[Branch] = set()
        self._given: set[Branch] = set()

    def __enter__(self) -> Tracer:
        with ExitStack() as undo:
            self._seen = undo.enter_context(seen_ids(self._pipe))
            self.watch.interception = undo.enter_context(intercept(self.watch.roots, self.watch))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._frame = self.watch.moment = None  # both hold the latents of the call
        self._undo.close()
        if self.started:
            self._finish(failed=kind is not None and (self._broken or not self._given.issuperset(self.capture.branches)))
            self._sink.annotate(self.late())
            if kind is None:
                self._check_halves()
        elif kind is None:
            self._refuse()

    def late(self) -> dict[str, object]:
        """Return the provenance that is known only after the run."""
        forced = self.watch.interception.forced if self.watch.interception is not None else []
        attrs: dict[str, object] = {"coverage": self.coverage(), "forced": list(forced)}
        if len(self.experts) > 1:
            attrs["experts"] = self.experts
        return attrs

    def coverage(self) -> dict[str, object]:
        """Say which attention sites were recorded, and why the others were not."""
        return self.watch.book.coverage(self.watch.unrun())

    def _begin(self, moment: Moment) -> None:
        call = moment.call
        if call is not None:
            if self._frame is not None and call.frame is not self._frame:
                raise TracingError(
                    "expected one call of the pipeline in a trace, got a second one: open another vl.trace for it."
                )
            self._frame = call.frame
        step = moment.step + self._offset
        if self._step is not None and step < self._step:  # a pipeline that goes through its timesteps again, chunk by chunk
            self._offset = self._step + 1
            step = moment.step + self._offset
        moment.step = step
        if step != self._step:
            if self._step is not None:
                self._check_halves()
            self._finish()
            self._step = step
            self._given.clear()
        if not self.started:
            check_budget(self._pipe, moment, self.capture)
            self._start(moment)
        moment.record = (self._chosen is None or step in self._chosen) and (call is None or call.first_order)
        if call is not None and call.first_order:
            moment.labels = self._once(moment.labels)
        self._given.update(label[0] for label in moment.labels if label is not None)
        self._halves |= self._given
        if step not in self.experts.setdefault(moment.denoiser, []):
            self.experts[moment.denoiser].append(step)
        self._broken = True

    def _once(self, labels: tuple[Label | None, ...]) -> tuple[Label | None, ...]:
        """Give each half once a step: a further pass (skipped layers, isolated modalities) must not take its place."""
        new = {label[0] for label in labels if label is not None} - self._given
        return tuple(label if label is not None and label[0] in new else None for label in labels)

    def _end(self, moment: Moment, failed: bool) -> None:
        self._broken = failed
        if not failed and self.watch.forwards == 1:
            self._check_selection()

    def _check_selection(self) -> None:
        """Refuse a capture that selects no site, after the first forward and not after the last: its trace would be empty."""
        sites = self.watch.book.sites.values()
        if not any(self.capture.wants(site) for site in sites):
            groups = ", ".join(sorted({site.group for site in sites}))
            raise TracingError(
                f"expected Capture(kinds={self.capture.kinds!r}, layers={self.capture.layers!r}) to select some attention "
                f"site of {type(self._pipe).__name__}, got none: it has {groups}, in modules such as {next(iter(sites)).module}."
            )

    def _start(self, moment: Moment) -> None:
        call = moment.call
        timesteps = None if call is None else call.timesteps
        steps = None
        if timesteps is not None:
            steps = self.capture.chosen_steps(len(timesteps))
            self._chosen = set(steps) if self.capture.steps is not None else None
        elif self.capture.steps is not None:
            self._chosen = self._chosen_of_unknown()
        if call is None:
            warnings.warn(
                f"the denoiser of {type(self._pipe).__name__} ran outside of the pipeline's own call: every row of its batch "
                "is taken for "
                "conditional, and neither prompt nor seed is known. Call the pipeline, or use vico_lens.tracer.observe with "
                "rows=.",
                UserWarning,
                stacklevel=2,
            )
        prompts = (call.rows if call is not None else None) or len({label[1] for label in moment.labels if label is not None})
        asked = self.metadata.get("prompt")
        given = [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else None
        tables = token_tables(
            self._pipe,
            call or RunningCall({"latents": None}),
            self._texts(moment) if moment.forward.text else None,
            seen=self._seen,
            prompts=given,
        )
        texts = (call.prompts if call is not None else None) or given or []
        cut = warn_of_cut(self._pipe, texts, tables)
        told: dict[str, object] = {"prompt_cut": cut[0] if len(cut) == 1 else cut} if cut else {}
        self._sink.start(
            provenance(self._pipe, self.watch, call, self.capture) | told | self.metadata,
            tables if len(set(tables)) > 1 else tables[:1],
            prompts=prompts,
            branches=self.capture.branches,
            steps=steps,
            timesteps=None if steps is None or timesteps is None else [timesteps[step] for step in steps],
        )
        self.started = True

    def _chosen_of_unknown(self) -> set[int]:
        """Steps to record of a run that does not say how many it has: those that count from its start."""
        asked = self.capture.steps
        ends = (
            (asked.start, asked.stop, asked.step) if isinstance(asked, slice) else (asked,) if isinstance(asked, int) else asked
        )
        if any(end is not None and end < 0 for end in ends or ()):
            raise TracingError(
                f"expected steps that count from the start, for {type(self._pipe).__name__} does not say how many it will "
                f"take, got {asked!r}."
            )
        return set(self.capture.chosen_steps(_MANY))

    def _texts(self, moment: Moment) -> tuple[int, ...]:
        """Text tokens of each state; of the longer half if the unconditional one is recorded, which may be longer."""
        texts, call = moment.forward.texts, moment.call
        if "uncond" not in self.capture.branches or len(texts) > 1 or call is None:
            return texts
        states = moment.forward.inputs.get(self.watch.family.states[0])
        others = [x for name, x in call.locals.items() if "negative" in name and isinstance(x, Tensor) and x.ndim == 3]
        return (max([texts[0]] + [x.shape[1] for x in others if isinstance(states, Tensor) and x.shape[-1] == states.shape[-1]]),)

    def _emit(self, call: AttentionCall) -> None:
        heads = self.capture.chosen_heads(call.site)
        if heads is not None:
            call.site = replace(call.site, heads=len(heads))
            call.query, call.key, call.probabilities = (
                None if x is None else x[heads] for x in (call.query, call.key, call.probabilities)
            )
            if call.bias is not None and call.bias.shape[0] > 1:
                call.bias = call.bias[heads]
        self._sink.write(call)

    def _finish(self, failed: bool = False) -> None:
        if self._step is not None and not failed and (self._chosen is None or self._step in self._chosen):
            self._sink.finish_step(self._step)

    def _check_halves(self) -> None:
        """Refuse a half of guidance that the pipeline does not compute, before a trace is made with a hole in its place."""
        missing = [branch for branch in self.capture.branches if branch not in self._halves]
        if missing:
            raise TracingError(
                f"expected the guidance halves {' and '.join(self.capture.branches)} of Capture(branch={self.capture.branch!r}), "
                f"but the pipeline computes no {missing[0]} half: guidance is off, or an input of this model."
            )

    def _refuse(self) -> None:
        interception = self.watch.interception
        if interception is not None and interception.elsewhere:
            raise TracingError(
                f"expected the pipeline to be called in the thread that opened the trace, got {interception.elsewhere} "
                "denoiser forwards in "
                "another one: open the trace there."
            )
        names = ", ".join(self.watch.roots)
        raise TracingError(
            f"expected the pipeline to be called inside the trace, but its denoiser ({names}) never ran: call the same pipe "
            "object "
            "that was handed to trace."
        )
