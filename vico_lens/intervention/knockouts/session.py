"""`knockout`: a ``with`` around the stock call of a pipeline in which some words no longer reach the video."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from vico_lens.errors import InputError, TracingError
from vico_lens.intervention.balancing.influences import site_filter
from vico_lens.intervention.balancing.words import Names
from vico_lens.intervention.knockouts.cuts import Cut, Replacement
from vico_lens.intervention.knockouts.editor import Editor, Selection
from vico_lens.tracing.interception import Interception, intercept
from vico_lens.tracing.tokens import seen_ids
from vico_lens.vocabulary.concepts import Concept

__all__ = ["Knockout", "knockout"]


class Knockout:
    """A stretch of a program in which attention is cut; made by `knockout`.

    Attributes
    ----------
    edited : dict
        How many attention calls were changed, by the path of their site.
    forced : list of str
        What was switched off for the time of the ``with``, in words: fused attention backends and compilation.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with knockout(tiny.pipe, ["red circle"], steps=0) as cut:
    ...     _ = tiny.run(seed=0)
    >>> set(cut.edited.values())
    {1}
    """

    def __init__(self, pipe: Any, concepts: Names | None, selection: Selection) -> None:
        self._editor = Editor(pipe, concepts, {}, selection)
        self._pipe = pipe
        self._interception: Interception | None = None
        self._undo = ExitStack()

    @property
    def edited(self) -> dict[str, int]:
        """How many attention calls were changed, by the path of their site."""
        return dict(self._editor.edited)

    @property
    def forced(self) -> list[str]:
        """What was switched off for the time of the ``with``, in words."""
        return [] if self._interception is None else list(self._interception.forced)

    def __enter__(self) -> Self:
        if self._interception is not None:
            raise InputError("expected a knock-out to be entered once, got a second `with`: make another one.")
        with ExitStack() as undo:
            self._editor.seen = undo.enter_context(seen_ids(self._pipe))
            self._interception = undo.enter_context(intercept(self._editor.watch.roots, self._editor))
            self._editor.watch.interception = self._interception
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._editor.moment = self._editor._call = None  # both keep the latents of the call
        self._undo.__exit__(kind, error, traceback)
        if kind is None and not self._editor.watch.forwards:
            raise TracingError(
                f"expected {type(self._pipe).__name__} to be called inside the `with`, in the thread that opened it, but its "
                f"denoiser ({', '.join(self._editor.watch.roots)}) never ran: call the same pipe object."
            )
        selection = self._editor.selection
        if kind is None and selection is not None and not self._editor.edited and not selection.cut.changes_nothing:
            sites = ", ".join(sorted({site.group for site in self._editor.watch.book.sites.values()}))
            raise InputError(
                f"expected layers and steps that read text, got none: nothing was cut. {type(self._pipe).__name__} has the sites "
                f"{sites}; see `vico_lens.estimate(pipe, prompt)` for their paths."
            )


def knockout(
    pipe: Any,
    concepts: Names | str | Concept | None = None,
    layers: str | int | Sequence[str | int] | None = None,
    heads: int | Sequence[int] | None = None,
    steps: slice | Sequence[int] | int | None = None,
    frames: int | Sequence[int] | None = None,
    to: Replacement = "mask",
    scale: float | None = None,
) -> Knockout:
    """Cut words out of the attention of the pipeline call made inside the ``with``, and of nothing else.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Any video pipeline that `vico_lens.trace` knows. Its call is not changed, and it is left as it was.
    concepts : sequence of str or Concept, optional
        Names are looked up in the prompt of the running call; by default all its noun phrases. An empty list cuts nothing.
    layers : str, int or sequence of them, optional
        Which attention sites: patterns on the module path or on the group (``"*up_blocks*"``, ``"cross/8x8x8"``), or places in
        the execution order. All that read text by default.
    heads : int or sequence of int, optional
        Heads; all by default.
    steps : slice, sequence of int or int, optional
        Denoising steps, negative ones from the end; all by default.
    frames : int or sequence of int, optional
        Latent frames that no longer see the words; all by default.
    to : {"mask", "padding", "uncond"}
        ``mask`` takes the words' columns out of the softmax, so that the other tokens share their weight. ``padding`` gives them
        key and value of the prompt's own padding. ``uncond`` gives them key and value that the unconditional branch has at
        their place; the pipeline must compute both branches in one batch.
    scale : float, optional
        With ``mask``: multiply the words' weights with this before the rows are normalised. 0 is the mask, 1 changes nothing,
        more than 1 makes the words stronger.

    Returns
    -------
    Knockout
        A context manager; `Knockout.edited` says what was cut. Knock-outs nest, and a trace around or inside one records the
        attention as it was changed.

    Raises
    ------
    InputError
        For a `to`, `scale`, head or frame that is not possible, or if nothing was cut at the end.
    ConceptError
        While the pipeline runs: a concept is not in the prompt.
    TracingError
        While the pipeline runs: an attention site bypasses torch's kernels, so that it cannot be changed.

    Notes
    -----
    In a joint softmax the columns are cut for all queries, video and text, so that the words do not reach the video through
    other words of the same layer. Only the conditional branch is changed. Masking all sites is leave-one-out without a
    replacement; single layers and heads are cut as in Knocking-out attention (arXiv:2304.14767).

    Examples
    --------
    >>> import numpy as np
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> plain = tiny.run(seed=0)
    >>> with knockout(tiny.pipe, ["red circle"], layers="*up_blocks*", steps=slice(0, 2)):
    ...     cut = tiny.run(seed=0)
    >>> np.array_equal(cut, plain), np.array_equal(tiny.run(seed=0), plain)
    (False, True)
    """
    names = [concepts] if isinstance(concepts, (str, Concept)) else concepts
    cut = Cut(to, scale, () if names is not None and len(names) == 0 else _several(heads))
    return Knockout(pipe, names or None, Selection(cut, site_filter(layers), steps, _several(frames)))


def _several(value: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    return (int(value),) if isinstance(value, int) else tuple(int(entry) for entry in value)
