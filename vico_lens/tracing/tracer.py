"""Watch a pipeline run: hand live attention calls to whoever asks, or a selection of them to a sink that stores them.

The pipeline is called by its user, untouched. A tracer lives in a ``with``; it learns prompt, seed, step and guidance from the
running call, and everything else from the denoiser's arguments. Where it cannot know, it raises: a silently empty trace, or one
with branches or axes mixed up, is worse than none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from torch import Tensor

from vico_lens.errors import TracingError
from vico_lens.tracing.attention_calls import Pass, Watch
from vico_lens.tracing.branches import EncodedTexts, Label, Passes
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.cost.budget import check_budget
from vico_lens.tracing.families.base import Grid
from vico_lens.tracing.interception import intercept
from vico_lens.tracing.provenance import provenance
from vico_lens.tracing.running_call import Pipeline, RunningCall, running_call
from vico_lens.tracing.steps import StepBook
from vico_lens.tracing.tokens import SeenIds, seen_ids, token_tables, warn_of_cut
from vico_lens.vocabulary.schema import AttentionCall, AttentionSite, Branch, Kind, Sink

__all__ = ["RunningCall", "Tracer", "observe", "running_call"]


@contextmanager
def observe(
    pipe: Pipeline,
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
        Guidance branches to hand out.
    kinds : collection of str or None
        Kinds of attention; None for all.
    layers : callable or None
        Takes a site and says whether to hand it out.
    rows : sequence of (str, int) or None
        Guidance branch and prompt of each row of the denoiser's batch. None: as the running pipeline call says, or all
        conditional if there is none.
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
    pipe : Pipeline
        The pipeline.
    capture : Capture
        What to record.
    sink : Sink
        Takes the calls.
    metadata : mapping or None
        Provenance of the caller's own; ``prompt`` here is used if the pipeline is called with embeddings.
    passes : sequence or None
        Branches of the forwards of a step, for a loop of one's own whose text is not recognised.
    """

    def __init__(
        self,
        pipe: Pipeline,
        capture: Capture,
        sink: Sink,
        metadata: Mapping[str, object] | None = None,
        passes: Passes | None = None,
    ) -> None:
        self.capture = capture
        self.metadata = dict(metadata or {})
        self.texts = EncodedTexts()
        self.watch = Watch(
            pipe, self._emit, capture.branches, capture.wants, self._begin, self._end, passes=passes, texts=self.texts
        )
        self.started = False
        self.experts: dict[str, list[int]] = {}
        self.steps = StepBook(capture)
        self._pipe = pipe
        self._sink = sink
        self._seen: SeenIds = {}
        self._undo = ExitStack()
        self._frame: FrameType | None = None
        self._timesteps: set[float] = set()
        self._broken = False

    def __enter__(self) -> Tracer:
        with ExitStack() as undo:
            self._seen = undo.enter_context(seen_ids(self._pipe))
            undo.enter_context(self.texts.heard(self._pipe))
            self.watch.interception = undo.enter_context(intercept(self.watch.roots, self.watch))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._frame = self.watch.current = None  # both hold the latents of the call
        self._undo.close()
        if self.started:
            self._finish(failed=kind is not None and (self._broken or not self.steps.computed(self.capture.branches)))
            self._sink.annotate(self.late())
            if kind is None:
                self._check_branches()
        elif kind is None:
            self._refuse()

    @contextmanager
    def step(self, index: int, timestep: float) -> Iterator[None]:
        """Say which step the forwards inside the ``with`` are, in a loop of one's own."""
        before = self.watch.step, self.watch.timestep
        self.watch.step, self.watch.timestep = index, float(timestep)
        try:
            yield
        finally:
            self.watch.step, self.watch.timestep = before

    @property
    def complete(self) -> bool:
        """Whether every step that was asked for is there, without holes."""
        steps = self.steps
        return not steps.missing() and (steps.planned is None or steps.finished >= steps.planned)

    def late(self) -> dict[str, object]:
        """Return the provenance that is known only after the run."""
        forced = self.watch.interception.forced if self.watch.interception is not None else []
        attrs: dict[str, object] = {"coverage": self.coverage(), "forced": list(forced)}
        if len(self.experts) > 1:
            attrs["experts"] = self.experts
        if missing := self.steps.missing():
            attrs["missing"] = missing
        return attrs

    def coverage(self) -> dict[str, object]:
        """Say which attention sites were recorded, and why the others were not."""
        return self.watch.book.coverage(self.watch.unrun())

    def _begin(self, current: Pass) -> None:
        call = current.call
        self._check_caller(current)
        restart, restarts = (0, 1) if call is None else call.restart
        if restart < restarts - 1:  # its result is thrown away but for low frequencies
            current.record = False
            return
        before, segments = self.steps.current, len(self.steps.starts)
        step = self.steps.enter(current.step, None if call is None else call.timesteps, type(self._pipe).__name__)
        current.step = step
        if step != before and before is not None:
            self._check_branches()
            self._finish(before)
        if not self.started:
            check_budget(self._pipe, current, self.capture)
            self._start(current)
        elif len(self.steps.starts) > segments:
            self._sink.annotate({"segment_starts": self.steps.starts, "steps_planned": self.steps.planned})
        current.record = self.steps.wanted and (call is None or call.first_order)
        if call is None or call.first_order:
            current.labels = self.steps.once(current.labels, current.turn, current.reason)
        if step not in self.experts.setdefault(current.denoiser, []):
            self.experts[current.denoiser].append(step)
        self._broken = True

    def _check_caller(self, current: Pass) -> None:
        """Refuse a second run inside one trace: its steps would be appended to those of the first."""
        frame = None if current.call is None else current.call.frame
        again = frame is not self._frame
        if frame is None and self.watch.step is None and self.steps.current != current.step:
            again |= current.timestep in self._timesteps  # a loop that starts over
        if self.watch.forwards and again:
            raise TracingError(
                "expected one call of the pipeline, or one loop, in a trace, got a second one: open another vl.trace for it. If "
                "your own loop comes back to a timestep, mark its steps with run.step(index, timestep)."
            )
        self._frame = frame
        self._timesteps.add(current.timestep)

    def _end(self, current: Pass, failed: bool) -> None:
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

    def _start(self, current: Pass) -> None:
        call = current.call
        timesteps = None if call is None else call.timesteps
        steps = None if timesteps is None else self.steps.steps_of_first_segment(len(timesteps))
        if call is None and current.reason == "assumed":
            warnings.warn(
                f"the denoiser of {type(self._pipe).__name__} ran outside of the pipeline's own call, with text that "
                "encode_prompt did not return inside the trace: every row of its batch is taken for conditional, and neither "
                "prompt nor seed is known. Encode the prompts inside the trace, or say what the forwards of a step are with "
                "vl.trace(pipe, passes=...).",
                UserWarning,
                stacklevel=2,
            )
        prompts = (call.rows if call is not None else None) or len({label[1] for label in current.labels if label is not None})
        asked = self.metadata.get("prompt")
        given = [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else self.texts.prompts
        tables = token_tables(
            self._pipe,
            call or RunningCall({"latents": None}),
            self._text_tokens(current) if current.forward.text else None,
            seen=self._seen,
            prompts=given,
        )
        known: dict[str, object] = {} if given is None else {"prompt": given[0] if len(given) == 1 else given}
        texts = (call.prompts if call is not None else None) or given or []
        if cut := warn_of_cut(self._pipe, texts, tables):
            known["prompt_cut"] = cut[0] if len(cut) == 1 else cut
        self._sink.start(
            known | provenance(self._pipe, self.watch, call, self.capture) | self.metadata,
            tables if len(set(tables)) > 1 else tables[:1],
            prompts=prompts,
            branches=self.capture.branches,
            steps=steps,
            timesteps=None if steps is None or timesteps is None else [timesteps[step] for step in steps],
        )
        self.started = True

    def _text_tokens(self, current: Pass) -> tuple[int, ...]:
        """Text tokens of each state; of the longer branch if the unconditional one is recorded, which may be longer."""
        texts, call = current.forward.texts, current.call
        if "uncond" not in self.capture.branches or len(texts) > 1:
            return texts
        states = current.forward.inputs.get(self.watch.family.states[0])
        others = [entry.states for entry in self.texts.entries if entry.negative]
        others += [x for name, x in (call.locals if call is not None else {}).items() if "negative" in name]
        lengths = [x.shape[1] for x in others if isinstance(x, Tensor) and x.ndim == 3]
        if not isinstance(states, Tensor):
            return texts
        return (max([texts[0], *lengths]),)

    def _emit(self, call: AttentionCall) -> None:
        self._sink.write(self.capture.only_heads(call))
        self.steps.record(call.site, call.branch, call.prompt)

    def _finish(self, step: int | None = None, failed: bool = False) -> None:
        step = self.steps.current if step is None else step
        if step is not None and not failed and self.steps.recorded(step):
            self._sink.finish_step(step)

    def _check_branches(self) -> None:
        """Refuse a branch that the pipeline does not compute, before a trace is made with a hole in its place."""
        missing = [branch for branch in self.capture.branches if branch not in self.steps.branches]
        if missing:
            raise TracingError(
                f"expected the guidance branches {' and '.join(self.capture.branches)} of "
                f"Capture(branch={self.capture.branch!r}), but the pipeline computes no {missing[0]} branch: guidance is off, "
                "starts at a later step, or is an input of this model."
            )

    def _refuse(self) -> None:
        interception = self.watch.interception
        if interception is not None and interception.elsewhere:
            raise TracingError(
                f"expected the pipeline to be called in the thread that opened the trace, got {interception.elsewhere} "
                "denoiser forwards in another one: open the trace there."
            )
        raise TracingError(
            f"expected the pipeline to be called inside the trace, but its denoiser ({', '.join(self.watch.roots)}) never ran: "
            "call the same pipe object that was handed to trace."
        )
