"""The observer that changes attention: it finds the words in every call that reads text, and cuts those that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from vico_lens.errors import InputError, TracingError
from vico_lens.intervention.balancing.words import Names, Words, words_of_call
from vico_lens.intervention.knockouts.cuts import Block, Cut
from vico_lens.intervention.knockouts.places import Placed, placed
from vico_lens.tracing.attention_calls import Watch
from vico_lens.tracing.branches import Label
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.families import rule_for
from vico_lens.tracing.interception import Operands
from vico_lens.tracing.raw_calls import Attended, RawCall
from vico_lens.tracing.tokens import SeenIds
from vico_lens.vocabulary.schema import AttentionSite

__all__ = ["Editor", "Selection"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which attention is changed, and how.

    Attributes
    ----------
    cut : Cut
        How.
    wanted : callable or None
        Whether a site is; None for all that read text.
    steps : int, slice, sequence of int or None
        Denoising steps, as in `vico_lens.Capture`.
    frames : tuple of int or None
        Frames of the site's grid whose tokens no longer see the words; None for all.
    concepts : tuple of int or None
        Which of the concepts, by place; None for all of them.
    """

    cut: Cut
    wanted: Callable[[AttentionSite], bool] | None = None
    steps: Any = None
    frames: tuple[int, ...] | None = None
    concepts: tuple[int, ...] | None = None


@dataclass(slots=True)
class Editor:
    """Reports to nobody and changes the calls that a selection names; see `vico_lens.tracing.interception.Editor`.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline.
    concepts : sequence of str or Concept, or None
        Looked up in the prompt of the running call.
    seen : dict
        Ids that the text encoders were given.
    selection : Selection or None
        What is changed; None changes nothing.
    edited : dict
        How many calls were changed, by site.
    repeated : tuple or None
        Rows of the batch, denoising step and timestep of the forward that is being repeated; None while the pipeline itself calls
        the denoiser.
    """

    pipe: Any
    concepts: Names | None
    seen: SeenIds
    selection: Selection | None
    edited: dict[str, int] = field(default_factory=dict)
    repeated: tuple[tuple[Label | None, ...], int, float] | None = None
    watch: Watch = field(init=False)
    moment: Any = field(init=False, default=None)
    words: list[Words] = field(init=False, default_factory=list)
    _call: object = field(init=False, default=None)
    _steps: set[int] | None = field(init=False, default=None)
    _selected: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.watch = Watch(self.pipe, lambda call: None, wanted=lambda site: False, begin=self._begin)

    def enter(self, denoiser: str, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note where in the run this forward stands."""
        self.watch.enter(denoiser, root, args, kwargs)

    def attended(self, run: Attended) -> None:
        """Note the site."""
        self.watch.attended(run)

    def leave(self, denoiser: str, *, failed: bool) -> None:
        """Check that every site that ran was seen, and that each one that was to be changed was."""
        self.watch.leave(denoiser, failed=failed)
        missed = sorted(self._selected - set(self.edited))
        if missed and not failed:
            raise TracingError(
                f"expected the words to stand in the attention of {', '.join(missed[:4])}, but no call there reads the text as "
                "the family's row says; leave these layers out, or register a Family whose Rule has a `read` function for them."
            )

    def edit(self, run: Attended, operands: Operands) -> Operands | None:
        """Change a call if the selection names it."""
        selection, moment = self.selection, self.moment
        if selection is None or selection.cut.changes_nothing or moment is None or not self._in_step(selection, moment):
            return None
        family = self.watch.family
        rule = rule_for(family, run.module)
        if rule is None:
            from vico_lens.tracing.families.unknown import inferred_rule

            rule = inferred_rule(_about(run, operands), moment.forward)
        if rule.kind not in ("cross", "joint"):
            return None
        sizes = _sizes(run, operands)
        tensor = operands["logits" if "logits" in operands else "query"]
        assert tensor is not None  # a call has its logits or its query
        device = tensor.device
        rows = {row: label for row, label in enumerate(moment.labels) if label is not None and label[0] == "cond"}
        found = {row: part for row in rows if (part := placed(run, rule, family, moment.forward, row, sizes, device)) is not None}
        if not found:
            return None
        site = self._site(run, rule.kind, next(iter(found.values())))
        if selection.wanted is not None and not selection.wanted(site):
            return None
        self._selected.add(site.module)
        words = self.words_of(moment)
        blocks = []
        for row, part in found.items():
            other = None
            if selection.cut.to == "uncond":
                twin = next((index for index, label in enumerate(moment.labels) if label == ("uncond", rows[row][1])), None)
                if twin is None:
                    raise InputError(
                        f"expected both guidance branches in one batch for to='uncond'; {type(self.pipe).__name__} computes them "
                        "one after the other, or without guidance. Use to='mask' or to='padding'."
                    )
                other = placed(run, rule, family, moment.forward, twin, sizes, device)
            blocks += _blocks(selection, words[rows[row][1]], part, other)
        self.edited[site.module] = self.edited.get(site.module, 0) + bool(blocks)
        if not blocks:
            return None
        if "logits" not in operands:
            changed = selection.cut.fused(operands, blocks)
            if self.edited[site.module] == 1:  # once a site: the answer is a number from the device
                _refuse_empty_rows(operands, changed, site.module)
            return changed
        logits: Tensor = operands["logits"]
        offset = sum(len(piece) for piece in run.pieces)
        heads = logits.shape[1] if logits.ndim == 4 else int(getattr(run.owner, "heads", len(logits) // run.batch))
        return {"logits": selection.cut.logits(logits, blocks, sizes[0], heads, offset)}

    def _begin(self, moment: Any) -> None:
        self.moment = moment
        if self.repeated is not None:
            moment.labels, moment.step, moment.timestep = self.repeated
        frame = None if moment.call is None else moment.call.frame
        if frame is not self._call:
            self._call, self.words, self._steps = frame, [], None

    def _in_step(self, selection: Selection, moment: Any) -> bool:
        if selection.steps is None:
            return True
        if self._steps is None:
            timesteps = None if moment.call is None else moment.call.timesteps
            if timesteps is None:
                raise InputError(f"expected all steps: {type(self.pipe).__name__} does not say how many it will take.")
            self._steps = set(Capture(steps=selection.steps).chosen_steps(len(timesteps)))
        return moment.step in self._steps

    def _site(self, run: Attended, kind: Any, part: Placed) -> AttentionSite:
        path, book = f"{next(iter(self.watch.roots))}.{run.module}", self.watch.book
        known = book.sites.get(path)
        order = len(book.sites) if known is None else known.order
        return AttentionSite(path, kind, part.grid, 1, 1, len(part.columns), order)

    def words_of(self, moment: Any) -> list[Words]:
        """Words of every video of the running call."""
        if not self.words:
            texts = moment.forward.texts
            tokens: int | Sequence[int] = texts if len(texts) > 1 else moment.forward.text
            videos = len({label[1] for label in moment.labels if label is not None})
            self.words = words_of_call(self.pipe, self.concepts, tokens, videos, dict(self.seen))
            self.seen.clear()
        return self.words


def _blocks(selection: Selection, words: Words, part: Placed, other: Placed | None) -> list[Block]:
    """What is changed of one row: its frames, and the columns of the concepts' words."""
    chosen = range(len(words.concepts)) if selection.concepts is None else selection.concepts
    tokens = sorted({token for place in chosen for token in words.concepts[place].tokens if token < len(part.columns)})
    columns = part.columns[tokens]
    columns = columns[columns >= 0]
    frames = list(range(part.grid[0]))
    if selection.frames is not None:
        frames = sorted({frame % part.grid[0] for frame in selection.frames if -part.grid[0] <= frame < part.grid[0]})
        if not frames:
            raise InputError(f"expected frames of a grid of {part.grid[0]} frames, got {list(selection.frames)}.")
    if not len(columns):
        return []
    everywhere = len(frames) == part.grid[0]
    entries = torch.unique(part.batch[frames])
    folded = len(torch.unique(part.batch)) == part.grid[0] and part.grid[0] > 1
    queries = None if everywhere or folded else part.queries[frames].flatten()
    source = None
    if selection.cut.to == "padding":
        if words.padding is None or words.padding >= len(part.columns) or int(part.columns[words.padding]) < 0:
            raise InputError("expected a padding or end token behind the prompt for to='padding'; there is none. Use to='mask'.")
        source = entries, part.columns[words.padding].expand(len(columns))
    elif other is not None:
        source = torch.unique(other.batch[frames]), other.columns[tokens]
    return [Block(entries, queries, columns, source)]


def _refuse_empty_rows(before: Operands, after: Operands, module: str) -> None:
    """Refuse a cut that leaves a query without any key: its softmax would be a row of NaN."""
    had, has = (_keys_left(operands.get("attn_mask")) for operands in (before, after))
    if has is not None and bool((~has if had is None else had & ~has).any()):
        raise InputError(
            f"expected some token that is left to attend to at {module}, but the cut takes all of them: leave a word of the "
            "prompt, or use to='padding'."
        )


def _keys_left(mask: Tensor | None) -> Tensor | None:
    """Whether each query has a key that it may attend to."""
    if mask is None:
        return None
    return (mask if mask.dtype == torch.bool else mask > -torch.inf).any(-1)


def _sizes(run: Attended, operands: Operands) -> tuple[int, int, int]:
    """Batch, queries and keys of a call."""
    if "logits" not in operands:
        query = operands["query"]
        return int(query.shape[0]), int(query.shape[2]), int(operands["key"].shape[2])
    logits = operands["logits"]
    return int(logits.shape[0] if logits.ndim == 4 else run.batch), int(logits.shape[-2]), int(logits.shape[-1])


def _about(run: Attended, operands: Operands) -> Attended:
    """A module with the call that it is about to make, for those who classify it by its sizes."""
    if "logits" not in operands:
        return replace(run, calls=[RawCall(operands["query"], operands["key"], None, False, 1.0)])
    logits = operands["logits"]
    whole = logits.reshape(run.batch, -1, *logits.shape[-2:])
    return replace(run, calls=[RawCall(None, None, None, False, 1.0, whole)])
