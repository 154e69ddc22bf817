"""How a caller names layers, heads, steps, a branch or a prompt: read here, so that a selection means the same in every room.

Layers are shell patterns on the module path or on the group (``"*up_blocks*"``, ``"cross/8x8x8"``), or places in the execution
order. Everything else is named by its label: the number of a step or head, the name of a branch, the row of a prompt. One value
and a sequence of values are both accepted. What is not there is an `InputError` that lists what is.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol

from vico_lens.errors import InputError
from vico_lens.vocabulary.schema import Kind, group_name

__all__ = ["Heads", "Layers", "Steps", "choose_prompt", "listed", "matches", "positions", "step_positions", "whole_number"]

Layers = str | int | Sequence[str | int] | None
Heads = int | Sequence[int] | None
Steps = int | Sequence[int] | slice | None


class Site(Protocol):
    """What a layer selection looks at: an `AttentionSite`, a site of a trace, or a stage."""

    @property
    def module(self) -> str:
        """Module path."""

    @property
    def kind(self) -> Kind:
        """Kind of attention."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""

    @property
    def order(self) -> int:
        """Place in the execution order."""


def listed(value: Any) -> tuple[Any, ...]:
    """Return one value, or several, as a tuple.

    >>> listed("cond"), listed([0, 3])
    (('cond',), (0, 3))
    """
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


def whole_number(value: Any) -> int | None:
    """Return a whole number as Python's own int, whichever library made it; None if `value` is none."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def matches(site: Site, layers: Layers) -> bool:
    """Whether `layers` selects a site: by a pattern on its module path or group, or by its place in the execution order."""
    if layers is None:
        return True
    names = (site.module, group_name(site.kind, site.grid))
    return any(
        any(fnmatchcase(name, layer) for name in names) if isinstance(layer, str) else site.order == layer
        for layer in listed(layers)
    )


def positions(name: str, chosen: Any, recorded: Sequence[Any], of: str = "") -> list[int]:
    """Return where the chosen labels stand among those recorded.

    Parameters
    ----------
    name : str
        The parameter's name, for the message.
    chosen : label or sequence of labels
    recorded : sequence of labels
    of : str
        What the labels belong to, for the message.

    Raises
    ------
    InputError
        If a label was not recorded, stands there twice, or none is given.

    Examples
    --------
    >>> positions("heads", 3, [1, 3])
    [1]
    >>> positions("heads", [0, 3], [1, 3])
    Traceback (most recent call last):
    ...
    vico_lens.errors.InputError: heads: expected one or more of [1, 3], which were recorded; got [0, 3]. ...
    """
    labels, given = list(recorded), listed(chosen)
    if not given or any(isinstance(label, bool) or label not in labels for label in given) or len(set(given)) < len(given):
        shown = list(given) if len(given) != 1 else given[0]
        twice = ", one of them twice" if len(set(map(str, given))) < len(given) else ""
        raise InputError(
            f"{name}: expected one or more of {labels}, which were recorded{of}; got {shown!r}{twice}. "
            "Trace again to record others."
        )
    return [labels.index(label) for label in given]


def step_positions(steps: Steps, recorded: Sequence[int]) -> list[int]:
    """Return where the chosen steps stand among those recorded: by number, by a slice of numbers, or from the end if negative.

    Raises
    ------
    InputError
        If a step was not recorded, stands there twice, or none is selected.

    Examples
    --------
    >>> step_positions(slice(0, 6), [0, 5, 10]), step_positions(-1, [0, 5, 10])
    ([0, 1], [2])
    """
    labels = list(recorded)
    if steps is None:
        return list(range(len(labels)))
    if isinstance(steps, slice):
        within = range(*steps.indices(max(labels, default=-1) + 1))
        chosen: tuple[Any, ...] = tuple(label for label in labels if label in within)
        if not chosen:
            raise InputError(f"steps: expected a slice with one or more of {labels}, which were recorded; got {steps!r}.")
    else:
        numbers = [(step, whole_number(step)) for step in listed(steps)]
        chosen = tuple(labels[number] if number is not None and -len(labels) <= number < 0 else step for step, number in numbers)
    return positions("steps", chosen, labels)


def choose_prompt(prompt: int | None, count: int) -> int:
    """Return the row of a batch of `count` prompts that is meant; it must be given where there are several.

    Raises
    ------
    InputError
        If there is no such row, or it is needed.

    Examples
    --------
    >>> choose_prompt(None, 1)
    0
    """
    rows = list(range(count))
    if prompt is None and count > 1:
        raise InputError(f"prompt is needed, because the trace holds several; choose prompt= one of {rows}.")
    return positions("prompt", 0 if prompt is None else prompt, rows)[0]
