"""`trace`: the model side and the data side joined. A tracer watches the pipeline, a writer stores what it sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from vico_lens.errors import InputError, TracingError
from vico_lens.store.writer import TraceWriter
from vico_lens.tracing.branches import Passes
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.running_call import Pipeline
from vico_lens.tracing.tracer import Tracer
from vico_lens.tracing.video import kept_frames, to_rgb

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Recording", "trace"]


class Recording:
    """One traced pipeline call; made by `trace`, used as a context manager.

    Attributes
    ----------
    tree : xarray.DataTree
        The trace, once the ``with`` has ended.
    video : numpy.ndarray or None
        The generated video, uint8 ``(frame, row, column, channel)``: taken from the pipeline if it decodes one, or set by hand
        (frames as a list of images, or as an array in [0, 1] or of uint8).
    coverage : dict
        How many attention sites were seen and recorded, and why the rest were not.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with trace(tiny.pipe) as run:
    ...     _ = tiny.run(seed=0)
    >>> run.coverage["seen"] == run.coverage["recorded"], run.video.shape[-1]
    (True, 3)
    """

    def __init__(self, tracer: Tracer, writer: TraceWriter, pipe: object) -> None:
        self._tracer = tracer
        self._writer = writer
        self._pipe = pipe
        self._tree: xr.DataTree | None = None
        self._video: np.ndarray | None = None
        self._undo = ExitStack()
        self._entered = False

    def __enter__(self) -> Recording:
        if self._entered:
            raise TracingError(
                "expected a trace to be entered once, got a second `with`: call vico_lens.trace again for another run."
            )
        self._entered = True
        with ExitStack() as undo:
            undo.enter_context(kept_frames(self._pipe, self._take))
            undo.enter_context(self._tracer)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        complete = False
        try:
            self._undo.__exit__(kind, error, traceback)  # a trace that saw nothing raises here
            if kind is None and self._video is not None:
                self._writer.keep_video(self._video)
            complete = kind is None and self._tracer.complete
        finally:
            if self._tracer.started:
                self._tree = self._writer.close(complete=complete)
            else:
                self._writer.discard()

    @contextmanager
    def step(self, index: int, timestep: float) -> Iterator[None]:
        """Say which denoising step the denoiser's forwards inside the ``with`` belong to, in a loop of one's own.

        Only needed where timesteps do not tell: a loop that comes back to one, or evaluates the denoiser more than once.

        Examples
        --------
        >>> import torch
        >>> from vico_lens.testing import tiny_pipeline
        >>> pipe = tiny_pipeline("wan21-t2v").pipe
        >>> latents = torch.zeros(1, 16, 3, 4, 6)
        >>> with trace(pipe, passes=("cond", "uncond"), capture=Capture(kinds="cross")) as run, torch.no_grad():
        ...     prompt, negative = pipe.encode_prompt("a red circle", "still", max_sequence_length=24, device="cpu")
        ...     for index, timestep in enumerate((900.0, 500.0)):
        ...         with run.step(index, timestep):
        ...             for text in (prompt, negative):
        ...                 _ = pipe.transformer(latents, torch.tensor([timestep]), text)
        >>> run.tree.step.values.tolist(), run.tree.attrs["prompt"]
        ([0, 1], 'a red circle')
        """
        with self._tracer.step(index, timestep):
            yield

    def __repr__(self) -> str:
        steps = self._tracer.steps
        state = "ended" if self._tree is not None else "open" if self._entered else "not entered"
        recorded = f"{steps.finished} steps and {len(self._tracer.watch.book.recorded)} sites recorded"
        return f"Recording({type(self._pipe).__name__}, {state}, {recorded}, to={str(self._writer.path or 'memory')!r})"

    @property
    def tree(self) -> xr.DataTree:
        """The trace.

        Raises
        ------
        TracingError
            If nothing was recorded yet.
        """
        if self._tree is None:
            raise TracingError(
                "expected the `with` of the trace to have ended, and the pipeline to have been called in it; read .tree after it."
            )
        return self._tree

    @property
    def video(self) -> np.ndarray | None:
        """The generated video, or None."""
        return self._video

    @video.setter
    def video(self, frames: object) -> None:
        if self._tree is not None:
            raise InputError("expected the video inside the `with` of the trace, got it after its end.")
        self._take(frames)

    @property
    def coverage(self) -> dict[str, object]:
        """How many attention sites were seen and recorded, and why the rest were not."""
        return self._tracer.coverage()

    def _take(self, frames: object) -> None:
        self._video = to_rgb(frames)


def trace(
    pipe: Pipeline,
    to: str | PathLike[str] | None = None,
    capture: Capture | None = None,
    *,
    passes: Passes | None = None,
    metadata: Mapping[str, object] | None = None,
    overwrite: bool = False,
) -> Recording:
    """Record the attention of the pipeline call made inside the ``with``; the video does not change by a bit.

    Parameters
    ----------
    pipe : Pipeline
        The diffusers pipeline that will be called.
    to : path or None
        Zarr store to write while sampling (a folder, or a ``.zip``). None keeps the trace in memory.
    capture : Capture or None
        What to record; None for everything, conditional branch.
    passes : sequence or None
        For a loop of one's own: the branch of each denoiser forward of a step, in order, ``("cond", "uncond")``; both in one
        batch are ``[("uncond", "cond")]``. Not needed for a call of the pipeline, nor where ``pipe.encode_prompt`` is called
        inside the ``with``: the text that reaches the denoiser is recognised.
    metadata : mapping or None
        More provenance. ``prompt`` here names the tokens when the pipeline is called with embeddings.
    overwrite : bool
        Replace an existing trace at `to`.

    Returns
    -------
    Recording
        A context manager; its ``tree`` is the trace.

    Raises
    ------
    StoreError
        If `to` cannot be written: at once, before the model runs.
    TracingError
        If the pipeline is not known and its attention cannot be classified, or a known attention site recorded nothing.
    BudgetError
        If the capture would not fit its budget, at the first denoiser call.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with trace(tiny.pipe, capture=Capture(kinds="cross", steps=-1)) as run:
    ...     _ = tiny.run(seed=0)
    >>> run.tree["cross/4x8x12"].weights.sizes["token"]
    24
    """
    capture = capture or Capture()
    writer = TraceWriter(to, form=capture.store, dtype=capture.dtype, tokens=capture.tokens, overwrite=overwrite)
    try:
        tracer = Tracer(pipe, capture, writer, metadata, passes)
    except BaseException:
        writer.discard()
        raise
    return Recording(tracer, writer, pipe)
