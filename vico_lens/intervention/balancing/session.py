"""A stretch of a program in which a pipeline samples under some intervention: what it generated and what that cost."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from vico_lens.errors import BalanceError
from vico_lens.intervention.balancing.log import Update, log_of
from vico_lens.tracing.model_caches import without_caches
from vico_lens.tracing.video import kept_frames, to_rgb

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["INPUTS", "Cost", "Session", "extra_forwards", "is_extra", "rows_of"]

INPUTS = ("hidden_states", "sample")
"""Names under which denoisers take their input, where it is not their first positional argument."""

_thread = threading.local()


@contextmanager
def extra_forwards(denoisers: Iterable[nn.Module]) -> Iterator[None]:
    """Mark denoiser forwards of this thread as an intervention's own: no session counts them, and no cache keeps them."""
    before = is_extra()
    _thread.extra = True
    try:
        with without_caches(denoisers):
            yield
    finally:
        _thread.extra = before


def is_extra() -> bool:
    """Whether this thread is inside `extra_forwards`."""
    return bool(getattr(_thread, "extra", False))


def rows_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Rows of the batch that a denoiser is called with."""
    value = args[0] if args else next(kwargs[name] for name in INPUTS if name in kwargs)
    return int(value.shape[0])


@dataclass(slots=True)
class Cost:
    """What was spent inside the ``with``.

    Attributes
    ----------
    forwards, rows : int
        Denoiser calls of the pipeline itself, and the rows of their batches together (guidance doubles them).
    extra_forwards, extra_rows, backwards : int
        Those that the intervention asked for; a forward may end early, after the last site that is read.
    update_seconds, seconds : float
        Wall time of the intervention, and of the whole ``with``.

    Examples
    --------
    >>> Cost(forwards=10, rows=20, extra_forwards=4, extra_rows=4, backwards=4).row_forwards
    28.0
    """

    forwards: int = 0
    rows: int = 0
    extra_forwards: int = 0
    extra_rows: int = 0
    backwards: int = 0
    update_seconds: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, entry.name) + getattr(other, entry.name) for entry in fields(self)))

    @property
    def row_forwards(self) -> float:
        """Denoiser forwards of one row, a backward pass counted as one forward."""
        return self.rows + self.extra_rows * (1 + self.backwards / max(1, self.extra_forwards))


class Session:
    """One ``with`` around stock calls of a pipeline; this one intervenes in nothing and counts the plain cost.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline; its calls are not changed by the caller.
    videos : list of ndarray
        What each call inside the ``with`` generated, uint8 (frame, row, column, channel); of a batch the first.
    cost : Cost
        Denoiser forwards and seconds.

    Examples
    --------
    >>> from vico_lens.tracing.families import denoisers
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with Session(tiny.pipe, denoisers(tiny.pipe)) as session:
    ...     _ = tiny.run(seed=0)
    >>> session.video.shape[-1], session.cost.extra_forwards
    (3, 0)
    """

    def __init__(self, pipe: Any, denoisers: Mapping[str, nn.Module]) -> None:
        self.pipe, self.denoisers = pipe, denoisers
        self.videos: list[np.ndarray] = []
        self.cost = Cost()
        self._undo = ExitStack()
        self._began, self._open = 0.0, False

    def install(self, undo: ExitStack) -> None:
        """Put the intervention in place; `undo` takes it away again."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the intervention was told, by name."""
        return {}

    @property
    def updates(self) -> list[Update]:
        """Updates of the latents so far; none for interventions that change something else."""
        return []

    @property
    def log(self) -> xr.Dataset:
        """What was done so far, see `vico_lens.intervention.balancing.log.log_of`; settings and cost are its attributes."""
        return log_of(self.updates, {name: _describe(part) for name, part in self.settings.items()} | asdict(self.cost))

    @property
    def video(self) -> np.ndarray:
        """The last video generated inside the ``with``.

        Raises
        ------
        BalanceError
            If there is none: the pipeline was not called, or returned latents.
        """
        if not self.videos:
            raise BalanceError(
                "expected a pipeline call that decodes its video inside the `with`, got none; hand the frames over instead."
            )
        return self.videos[-1]

    def __enter__(self) -> Self:
        if self._open:
            raise BalanceError("expected a session that is not entered already; make a second one to nest them.")
        with ExitStack() as undo:
            for module in self.denoisers.values():
                undo.callback(module.register_forward_pre_hook(self._count, with_kwargs=True).remove)
            undo.enter_context(kept_frames(self.pipe, lambda frames: self.videos.append(to_rgb(frames))))
            self.install(undo)
            self._undo = undo.pop_all()
        self._open, self._began = True, perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cost.seconds += perf_counter() - self._began
        self._open = False
        self._undo.__exit__(kind, error, trace)
        if kind is None and self.cost.forwards == 0:
            raise BalanceError(
                f"expected {type(self.pipe).__name__} to be called inside the `with`, but its denoiser "
                f"({', '.join(self.denoisers)}) never ran: call the same pipe object that the session was given."
            )

    def _count(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not is_extra():
            self.cost.forwards += 1
            self.cost.rows += rows_of(args, kwargs)


def _describe(part: Any) -> str:
    """Name and settings of a part, for the attributes of a log."""
    if is_dataclass(part) and not isinstance(part, type):
        named = ", ".join(f"{entry.name}={_describe(getattr(part, entry.name))}" for entry in fields(part))
        return f"{type(part).__name__}({named})"
    if isinstance(part, Mapping):
        return repr(dict(part))
    return part if isinstance(part, str) else repr(part)
