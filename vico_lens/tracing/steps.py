"""The denoising steps of a run: which of them are recorded, what was seen in each, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vico_lens.errors import TracingError
from vico_lens.tracing.branches import Label
from vico_lens.tracing.capture import Capture
from vico_lens.vocabulary.schema import AttentionSite, Branch

__all__ = ["StepBook"]

_MANY = 10_000


class StepBook:
    """Counts the steps of one run through its segments, and keeps what was recorded in each.

    A pipeline that makes a long video segment by segment goes through its timesteps again for each. Steps are numbered on, and
    the capture's choice of steps holds for every segment.

    Parameters
    ----------
    capture : Capture
        What to record.

    Examples
    --------
    >>> book = StepBook(Capture(steps=-1))
    >>> [book.enter(step, [9.0, 5.0], "a pipeline") for step in (0, 1, 0, 1)]
    [0, 1, 2, 3]
    >>> book.starts, book.planned, book.wanted
    ([0, 2], 2, True)
    """

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.starts: list[int] = []
        """First step of each segment."""
        self.planned: int | None = 0
        """Steps to record in the segments so far, None if the pipeline does not say how many it takes."""
        self.current: int | None = None
        self.branches: set[Branch] = set()
        """Branches that the run computed so far."""
        self._chosen: set[int] | None = None
        self._labels: dict[Label, int] = {}
        self._recorded: dict[int, set[tuple[str, str, Branch, int]]] = {}

    def enter(self, step: int, timesteps: Sequence[float] | None, pipe: str) -> int:
        """Enter a step of the pipeline's loop, and return its number in the run.

        Raises
        ------
        TracingError
            If the capture counts steps from the end, and the pipeline does not say how many it takes.
        """
        if self.current is None or step < self.current - self.starts[-1]:
            self.starts.append(0 if self.current is None else self.current + 1)
            self._chosen = self._choice(timesteps, pipe)
            known = None if timesteps is None else self._chosen if self._chosen is not None else timesteps
            self.planned = None if known is None or self.planned is None else self.planned + len(known)
        number = step + self.starts[-1]
        if number != self.current:
            self.current = number
            self._labels.clear()
        return number

    @property
    def wanted(self) -> bool:
        """Whether the current step is to be recorded."""
        return self.current is not None and (self._chosen is None or self.current - self.starts[-1] in self._chosen)

    def steps_of_first_segment(self, count: int) -> list[int]:
        """Return the steps that the first segment will record of `count`."""
        return sorted(self._chosen) if self._chosen is not None else list(range(count))

    def once(self, labels: Sequence[Label | None], turn: int, reason: str) -> tuple[Label | None, ...]:
        """Let each branch and row count once a step.

        A further pass of the same text is a perturbed one (skipped layers, isolated modalities): it must not take the place of
        the first.

        Raises
        ------
        TracingError
            If its text is not known to be the same.
        """
        seen = [label for label in labels if label is not None and label in self._labels]
        if seen and reason == "assumed":
            branch, row = seen[0]
            raise TracingError(
                "expected the denoiser's forwards of one step to differ in branch or row, but forwards "
                f"{self._labels[seen[0]] + 1} and {turn + 1} of step {self.current} would both be the branch {branch!r} in row "
                f"{row}: their text is none that encode_prompt returned inside the trace. Say what they are with "
                'vl.trace(pipe, passes=("cond", "uncond")), encode the prompts inside the `with`, or mark the steps of your loop '
                "with run.step(index, timestep)."
            )
        new = tuple(None if label in self._labels else label for label in labels)
        self._labels.update({label: turn for label in new if label is not None})
        self.branches |= {label[0] for label in self._labels}
        return new

    def computed(self, branches: Iterable[Branch]) -> bool:
        """Whether the current step has computed all of these branches."""
        return {label[0] for label in self._labels}.issuperset(branches)

    def record(self, site: AttentionSite, branch: Branch, row: int) -> None:
        """Note one recorded call of the current step."""
        assert self.current is not None
        self._recorded.setdefault(self.current, set()).add((site.group, site.module, branch, row))

    def missing(self) -> dict[str, list[int]]:
        """Name what some recorded steps have and others lack: group or module and branch, to the steps without it."""
        every = set().union(*self._recorded.values())
        modules: dict[str, set[str]] = {}
        for group, module, _, _ in every:
            modules.setdefault(group, set()).add(module)
        holes: dict[str, list[int]] = {}
        for step, seen in sorted(self._recorded.items()):
            absent: dict[tuple[str, Branch], set[str]] = {}
            for group, module, branch, _ in every - seen:
                absent.setdefault((group, branch), set()).add(module)
            for (group, branch), names in sorted(absent.items()):
                for name in [group] if names == modules[group] else sorted(names):
                    holes.setdefault(f"{name}, {branch}", []).append(step)
        return holes

    def recorded(self, step: int) -> bool:
        """Whether something of a step was recorded."""
        return step in self._recorded

    @property
    def finished(self) -> int:
        """Steps of which something was recorded."""
        return len(self._recorded)

    def _choice(self, timesteps: Sequence[float] | None, pipe: str) -> set[int] | None:
        if self.capture.steps is None:
            return None
        if timesteps is not None:
            return set(self.capture.chosen_steps(len(timesteps)))
        asked: Any = self.capture.steps
        ends = (
            (asked.start, asked.stop, asked.step) if isinstance(asked, slice) else (asked,) if isinstance(asked, int) else asked
        )
        if any(end is not None and end < 0 for end in ends):
            raise TracingError(
                f"expected steps that count from the start, for {pipe} does not say how many it will take, got {asked!r}."
            )
        return set(self.capture.chosen_steps(_MANY))
