"""Which guidance branch each row of the denoiser's batch is: told by the text that reached it.

What ``encode_prompt`` returned for the prompt and for the negative prompt is kept for the time of a trace, and the text states
that the denoiser is given are compared with it, number by number. So the order of passes, the order in a batch and the names of
variables do not matter, and a class or a loop of one's own is read like a stock pipeline.

Text that is changed on its way (LTX-2 sends it through a connector) is not recognised. Then the code of diffusers is known to
keep to the conventions of its family; everything else is taken for conditional until a second pass contradicts.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vico_lens.errors import InputError, TracingError
from vico_lens.tracing.families import Family, Forward, follows_conventions
from vico_lens.tracing.listening import listening
from vico_lens.tracing.running_call import RunningCall, strings
from vico_lens.vocabulary.schema import Branch

__all__ = ["BranchReader", "EncodedTexts", "Label", "Labels", "Passes", "checked_passes", "text_states"]

Label = tuple[Branch, int]
"""Guidance branch and prompt row."""

Passes = Sequence[Branch | Sequence[Branch]]
"""Branches of the denoiser's forwards within one step, in order; several in one batch as a sequence of their own."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What the rows of one forward are.

    Attributes
    ----------
    rows : tuple of Label or None
        One a batch row; None for a row that is neither branch (perturbed-attention guidance).
    reason : str
        How they are known: ``given``, ``text``, ``stock`` (the conventions of diffusers), or ``assumed``.
    """

    rows: tuple[Label | None, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Text states as they were encoded: of the negative prompt if the call said so, and of which texts if it was given any."""

    states: Tensor
    negative: bool
    texts: list[str] | None


class EncodedTexts:
    """What a pipeline's ``encode_prompt`` returned during a run."""

    def __init__(self) -> None:
        self.entries: list[_Encoded] = []
        self._recognised: dict[int, tuple[Tensor, int, list[Branch | None]]] = {}

    @contextmanager
    def heard(self, pipe: object) -> Iterator[EncodedTexts]:
        """Keep what is encoded in this thread, for the time of a ``with``.

        Examples
        --------
        >>> from vico_lens.testing import tiny_pipeline
        >>> tiny = tiny_pipeline("wan21-t2v")
        >>> with EncodedTexts().heard(tiny.pipe) as texts:
        ...     _ = tiny.run(seed=0)
        >>> [(entry.texts, entry.negative) for entry in texts.entries][1]
        (['still'], True)
        """
        with listening(pipe, "encode_prompt", partial(self._keep, pipe)):
            yield self
        self._recognised.clear()

    def _keep(self, pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        signature = inspect.signature(pipe.encode_prompt)
        given = signature.bind(*args, **kwargs).arguments
        states = [x for x in _tensors(result) if x.ndim >= 3 and x.is_floating_point()]
        if not states:
            return
        self._recognised.clear()
        self.entries.append(_Encoded(states[0], False, strings(given.get("prompt"))))
        if "negative_prompt" not in signature.parameters:
            return  # the two prompts are encoded one by one
        other = next((x for x in states[1:] if x.shape[-1] == states[0].shape[-1]), None)
        if other is not None:
            self.entries.append(_Encoded(other, True, strings(given.get("negative_prompt"))))

    @property
    def prompts(self) -> list[str] | None:
        """The prompts, if one text or list of texts was encoded as such."""
        known = [entry.texts for entry in self.entries if not entry.negative and entry.texts]
        return known[0] if known and all(texts == known[0] for texts in known) else None

    def branches(self, states: Tensor, batch: int, call: RunningCall | None) -> list[Branch | None]:
        """Recognise the text of each row of a batch.

        Parameters
        ----------
        states : Tensor
            Text states ``[row, token, channel]`` as the denoiser gets them; each row may stand there once a frame.
        batch : int
            Rows of the denoiser's batch.
        call : RunningCall or None
            The call around it; its prompts tell apart texts that were encoded one by one.

        Returns
        -------
        list of str or None
            One a row: None if its text is unknown, or the same in both branches.
        """
        rows = states.reshape(-1, *states.shape[-2:])
        if not self.entries or not batch or len(rows) % batch:
            return [None] * batch
        key = (id(states), states._version if not states.is_inference() else 0)
        cached = self._recognised.get(key[0])
        if cached is not None and cached[0] is states and cached[1] == key[1] and len(cached[2]) == batch:
            return cached[2]
        roles = self._roles(call)
        found: list[Branch | None] = []
        for row in rows[:: len(rows) // batch]:
            fits = {role for role, known in roles if any(_same(row, text) for text in known)}
            found.append(next(iter(fits)) if len(fits) == 1 else None)
        if len(self._recognised) > 4:  # a pipeline that makes new states at every step must not fill the memory
            self._recognised.clear()
        self._recognised[key[0]] = states, key[1], found
        return found

    def _roles(self, call: RunningCall | None) -> list[tuple[Branch | None, Tensor]]:
        """Branch of each text that was encoded, with its states one row at a time; None where two texts could be the prompt."""
        prompts, negatives = (None, None) if call is None else (call.prompts, call.negative_prompts)
        several = len({tuple(entry.texts) for entry in self.entries if not entry.negative and entry.texts}) > 1
        roles: list[tuple[Branch | None, Tensor]] = []
        for entry in self.entries:
            role: Branch | None = "uncond" if entry.negative else "cond"
            if not entry.negative and entry.texts and several:  # texts that were encoded one by one, each as a prompt
                texts = set(entry.texts)
                negative = texts <= {"", *(negatives or ())}
                role = "cond" if texts <= set(prompts or ()) else "uncond" if negative else None
            roles.append((role, entry.states.reshape(-1, *entry.states.shape[-2:])))
        return roles


class BranchReader:
    """Labels the rows of denoiser forwards.

    Parameters
    ----------
    family : Family
        Row of the table: its conventions hold where the code of diffusers runs and the text is not recognised.
    rows : sequence of Label or None
        Labels of every forward, if the caller knows them.
    passes : sequence or None
        Branches of the forwards of a step, in order, for a loop of one's own.
    texts : EncodedTexts or None
        What was encoded.
    """

    def __init__(
        self,
        family: Family,
        rows: Sequence[Label] | None = None,
        passes: Passes | None = None,
        texts: EncodedTexts | None = None,
    ) -> None:
        self.family, self.rows, self.passes = family, rows, checked_passes(passes)
        self.texts = texts

    def labels(self, forward: Forward, call: RunningCall | None, turn: int) -> Labels:
        """Label the rows of one forward.

        Parameters
        ----------
        forward : Forward
            The denoiser's inputs.
        call : RunningCall or None
            The pipeline call around it.
        turn : int
            Forwards of this step before it.

        Raises
        ------
        TracingError
            If the number of rows fits no known kind of guidance, or contradicts what was said.
        """
        if self.rows is not None:
            if len(self.rows) != forward.batch:
                raise TracingError(f"expected rows= to label {forward.batch} rows of the denoiser's batch, got {len(self.rows)}.")
            return Labels(tuple(self.rows), "given")
        states = text_states(self.family, forward.inputs)
        known: list[Branch | None] = [None] * forward.batch
        if states is not None and not states.is_meta and self.texts is not None:
            known = self.texts.branches(states, forward.batch, call)
        if self.passes is not None:
            return Labels(_by_turn(self.passes, known, forward.batch, turn), "given")
        base = (call.rows if call is not None else None) or forward.batch
        if None not in known:
            return Labels(_numbered(known, base), "text")
        stock = call is not None and follows_conventions(call.pipe, self.family, call.stock)
        branches: Sequence[Branch | None]
        if forward.batch == base and stock and call is not None:
            branches = [_of_pass(states, call, turn)]
        elif forward.batch == base:
            return Labels(tuple(("cond", row) for row in range(base)), "assumed")
        elif stock and forward.batch == 2 * base:
            branches = ("uncond", "cond")
        elif stock and forward.batch == 3 * base:
            branches = self.family.thirds
        else:
            raise TracingError(
                f"expected the batch of the denoiser to be 1, 2 or 3 times the {base} videos of a call of diffusers, or text "
                f"that encode_prompt returned inside the trace, got {forward.batch} rows that cannot be told apart. Say what "
                'they are with vl.trace(pipe, passes=...), such as passes=[("uncond", "cond")] for both branches in one batch.'
            )
        return Labels(tuple(None if name is None else (name, row) for name in branches for row in range(base)), "stock")


def checked_passes(passes: Passes | None) -> tuple[tuple[Branch, ...], ...] | None:
    """Bring passes to one form, branches of each forward in a tuple.

    Raises
    ------
    InputError
        If they are not made of ``cond`` and ``uncond``.

    Examples
    --------
    >>> checked_passes(["cond", "uncond"])
    (('cond',), ('uncond',))
    """
    if passes is None:
        return None
    listed = [passes] if isinstance(passes, str) else list(passes)
    forwards = tuple((entry,) if isinstance(entry, str) else tuple(entry) for entry in listed)
    names = [name for entry in forwards for name in entry]
    if not names or not set(names) <= {"cond", "uncond"} or len(set(names)) != len(names):
        raise InputError(
            'expected passes= to name each branch of a step once, such as ("cond", "uncond") for two forwards or '
            f'[("uncond", "cond")] for one forward of both, got {passes!r}.'
        )
    return forwards  # type: ignore[return-value]


def _by_turn(
    passes: tuple[tuple[Branch, ...], ...], known: Sequence[Branch | None], batch: int, turn: int
) -> tuple[Label | None, ...]:
    if turn >= len(passes) or batch % len(passes[turn]):
        raise TracingError(
            f"expected {len(passes)} forwards a step, of the branches passes={passes!r}, got forward {turn + 1} of a step with "
            f"{batch} rows. Mark the steps of your loop with run.step(index, timestep)."
        )
    base = batch // len(passes[turn])
    labels = tuple((name, row) for name in passes[turn] for row in range(base))
    for (name, row), text in zip(labels, known, strict=True):
        if text is not None and text != name:
            raise TracingError(
                f"expected forward {turn + 1} of a step to be {name} in row {row}, as passes={passes!r} says, got the text of "
                f"the {text} branch: put passes= in the order of your loop."
            )
    return labels


def _numbered(branches: Sequence[Branch | None], rows: int) -> tuple[Label | None, ...]:
    """Number the rows of each branch; more than there are videos are those of a perturbed branch, which no trace holds."""
    counts: dict[Branch | None, int] = {}
    labels: list[Label | None] = []
    for name in branches:
        row = counts.get(name, 0)
        counts[name] = row + 1
        labels.append((name, row) if name is not None and row < rows else None)
    return tuple(labels)


def _of_pass(states: Tensor | None, call: RunningCall, turn: int) -> Branch:
    """Branch of a pass of its own in the code of diffusers: by the variable that holds its text, or by its turn."""
    for name, value in call.locals.items():
        if "prompt_embeds" not in name or not isinstance(value, Tensor) or states is None or value.shape != states.shape:
            continue
        if value is states or torch.equal(value.to(states.device, states.dtype), states):
            return "uncond" if "negative" in name or "uncond" in name else "cond"
    return "cond" if turn == 0 else "uncond"


def text_states(family: Family, inputs: Mapping[str, Any]) -> Tensor | None:
    """Text states among the arguments of a denoiser, of the first encoder that reads text."""
    name = next((state for state, tokenizer in zip(family.states, family.tokenizers, strict=True) if tokenizer), "")
    states = inputs.get(name)
    if isinstance(states, (list, tuple)) and states:
        states = states[0]
    return states if isinstance(states, Tensor) and states.ndim >= 3 else None


def _same(row: Tensor, known: Tensor) -> bool:
    """Whether a row is a text that is known, as far as both go: a pipeline may cut padding off, or cast."""
    tokens = min(len(row), len(known))
    if row.shape[-1] != known.shape[-1] or not tokens:
        return False
    return torch.equal(row[:tokens], known[:tokens].to(row.device, row.dtype))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
