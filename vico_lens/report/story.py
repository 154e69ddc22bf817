"""The sentences of a report, made from its numbers: who dominates, by how much, how sure, what balancing changed.

Sentences are lists of text and marked concepts; they are written so that they stay true when nothing dominates, when
balancing does not help, and when there is no judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from vico_lens.attribution.dominance import dominance
from vico_lens.errors import InputError
from vico_lens.plot.colours import concept_colours
from vico_lens.plot.reading import concept_names
from vico_lens.plot.shares import shares_numbers
from vico_lens.plot.sweeps import sweep_numbers
from vico_lens.plot.wording import level, percent, percent_range
from vico_lens.report.markup import Markup, el, foreign, join
from vico_lens.report.outcome import Outcome, Ruling, ruling

__all__ = ["Run", "Story", "cut_line", "mark_prompt"]


@dataclass(frozen=True, slots=True)
class Run:
    """An outcome with its numbers worked out."""

    outcome: Outcome
    dominance: xr.Dataset
    shares: xr.Dataset  # share, low, high (concept)
    ruling: Ruling | None

    @classmethod
    def of(cls, outcome: Outcome) -> Run:
        """Work out the numbers of an outcome."""
        found = outcome.dominance if outcome.dominance is not None else dominance(outcome.influence)
        within = shares_numbers(outcome.influence)
        shares = shares_numbers(found) if "share_low" in found else within.assign(share=("concept", found["share"].values))
        if concept_names(shares) != concept_names(within):
            raise InputError(f"dominance speaks of {concept_names(shares)}, the influence of {concept_names(within)}.")
        return cls(outcome, found, shares, ruling(outcome.verdict))

    def share(self, name: str) -> float:
        """Return one concept's share."""
        return float(self.shares["share"].sel(concept=name))


class Story:
    """Everything the report says in words."""

    def __init__(self, prompt: str, before: Run, after: Run | None, reliability: Sequence[Mapping[str, Any]] | None) -> None:
        self.prompt, self.before, self.after = prompt, before, after
        self.names = concept_names(before.shares)
        self.colours = concept_colours(self.names)
        self.rates = sweep_numbers(reliability) if reliability else []
        share = before.shares["share"].values
        self.run_name = "The plain run" if after is not None else "This run"
        self.top, self.weak = self.names[int(np.argmax(share))], self.names[int(np.argmin(share))]

    @property
    def level(self) -> list[str]:
        """Concepts whose share reads as large as the largest."""
        return [name for name in self.names if level(self.before.share(name), self.before.share(self.top))]

    @property
    def dominated(self) -> bool:
        """Whether the leading concept's interval lies above the even share."""
        low = float(self.before.shares["low"].sel(concept=self.top))
        leads = low if np.isfinite(low) else self.before.share(self.top)
        return len(self.level) == 1 < len(self.names) and leads > 1 / len(self.names) + 1e-9

    def concept(self, name: str) -> Markup:
        """Mark a concept with its colour."""
        return foreign(name, class_="concept", style=f"--tint:{self.colours[name]}")

    def headline(self) -> Markup:
        """Write the finding of the whole report, in one sentence."""
        if len(self.names) == 1:
            parts: list[Any] = ["Where ", self.concept(self.top), " acts in this video"]
        elif self.dominated:
            parts = [self.concept(self.top), f" takes {percent(self.before.share(self.top))} of the influence"]
        elif len(self.level) > 1:
            marked = _listed([self.concept(name) for name in self.level])
            parts = ["No concept dominates: ", marked, f" have {percent(self.before.share(self.top))} each"]
        else:
            parts = [
                "No concept clearly dominates: ",
                self.concept(self.top),
                f" leads with {percent(self.before.share(self.top))}",
            ]
        if self.after is not None and len(self.names) > 1:
            gain = self.after.share(self.weak) - self.before.share(self.weak)
            verb = "lifts" if gain > 0.005 else "takes" if gain < -0.005 else "leaves"
            end = f" from {percent(self.before.share(self.weak))} to {percent(self.after.share(self.weak))}"
            parts += [
                "; balancing ",
                verb,
                " ",
                self.concept(self.weak),
                f" at {percent(self.before.share(self.weak))}" if verb == "leaves" else end,
            ]
        return join(parts)

    def title(self) -> str:
        """Write the page's title, plain text."""
        return f"{self.top} {percent(self.before.share(self.top))}: {self.prompt}"

    def brief(self) -> list[Markup]:
        """Write the report in a few sentences: what came, who dominates and how sure, what changed, how often."""
        return [join(sentence) for sentence in (self._came(), self._dominates(), self._changed(), self._often()) if sentence]

    def _came(self) -> list[Any]:
        if self.before.ruling is None:
            return []
        if self.before.ruling.correct:
            return [f"{self.run_name} shows everything that the prompt asks for."]
        absent = [name for name, there in zip(self.names, self.before.ruling.present, strict=False) if not there]
        where = ["; not found: ", _listed([self.concept(name) for name in absent])] if absent else []
        return [f"{self.run_name} fails: {self.before.ruling.failure}", *where, "."]

    def _dominates(self) -> list[Any]:
        if len(self.names) == 1:
            return ["With one concept there is nothing to compare: its share is 100 % by definition."]
        low, high = (float(self.before.shares[key].sel(concept=self.top)) for key in ("low", "high"))
        spread = (
            f" ({percent_range(low, high)}, {self.before.shares.attrs['interval']})" if np.isfinite([low, high]).all() else ""
        )
        first = [self.concept(self.top), f" holds {percent(self.before.share(self.top))} of the influence{spread}, "]
        second = [
            self.concept(self.weak),
            f" {percent(self.before.share(self.weak))}; even would be {percent(1 / len(self.names))} each.",
        ]
        frames = self.before.dominance.get("dominant_by_frame")
        if frames is not None:
            leads = int((frames.values.astype(str) == self.top).sum())
            second += [f" It leads in {leads} of {frames.size} frames."]
        return first + second

    def _changed(self) -> list[Any]:
        if self.after is None:
            return []
        parts: list[Any] = []
        if len(self.names) > 1:
            even = [float(run.dominance["evenness"]) for run in (self.before, self.after)]
            word = "more even" if even[1] > even[0] + 5e-4 else "less even" if even[1] < even[0] - 5e-4 else "as even as before"
            parts += [f"With balancing the shares are {word} (evenness {even[0]:.3f} before, {even[1]:.3f} after; 1 is even)."]
        old, new = self.before.ruling, self.after.ruling
        if old is not None and new is not None:
            told = {
                (False, True): "By the judge, balancing repairs this clip.",
                (False, False): f"By the judge, balancing does not repair this clip ({new.failure}).",
                (True, True): "By the judge, both clips are right.",
                (True, False): f"By the judge, balancing spoils this clip ({new.failure}).",
            }[old.correct, new.correct]
            parts += [" " if parts else "", told]
        return parts

    def _often(self) -> list[Any]:
        if not self.rates:
            return []
        counted = [row for row in self.rates if row["rate"] and row["trials"]]
        counted = [row for row in counted if row["label"] == counted[0]["label"]]  # one kind of prompts; the table has the others
        parts: list[Any] = ["This is one clip. Over many, the judge finds all correct in "]
        for i, row in enumerate(counted):
            group = f", {row['group']}" if row["group"] else ""
            spread = percent_range(row["low"], row["high"])
            parts += ["; " if i else "", f"{percent(row['value'])} ({spread}) of ", foreign(row["label"]), group]
        return [*parts, "."] if counted else []


def mark_prompt(prompt: str, names: Sequence[str], colours: Mapping[str, str]) -> Markup:
    """Write the prompt with its concepts marked where their words stand in it.

    Examples
    --------
    >>> mark_prompt("a <b>cat", ["cat"], {"cat": "#0072B2"})
    'a &lt;b&gt;<bdi class="concept" style="--tint:#0072B2">cat</bdi>'
    """
    folded = prompt.casefold()
    spans: list[tuple[int, int, str]] = []
    if len(folded) == len(prompt):  # otherwise places do not carry over (ß, ligatures) and nothing is marked
        for name in sorted(names, key=len, reverse=True):
            at = folded.find(name.casefold()) if name.strip() else -1
            while at >= 0 and any(at < stop and start < at + len(name) for start, stop, _ in spans):
                at = folded.find(name.casefold(), at + 1)
            if at >= 0:
                spans.append((at, at + len(name), name))
    parts: list[Any] = []
    place = 0
    for start, stop, name in sorted(spans):
        parts += [prompt[place:start], foreign(prompt[start:stop], class_="concept", style=f"--tint:{colours[name]}")]
        place = stop
    return join([*parts, prompt[place:]])


def cut_line(cut: object) -> Markup | None:
    """Say which text of a prompt has no token (attribute ``prompt_cut`` of its trace); None if all has.

    >>> print(cut_line("and a cat"))
    <p class="prompt-note">The model read no token of this part of the prompt: <bdi>and a cat</bdi></p>
    >>> cut_line("") is None
    True
    """
    texts = [text for text in ([cut] if isinstance(cut, str) else list(cut) if isinstance(cut, Sequence) else []) if text]
    if not texts:
        return None
    return el("p", "The model read no token of this part of the prompt: ", [foreign(str(t)) for t in texts], class_="prompt-note")


def _listed(items: Sequence[Markup]) -> Markup:
    parts: list[Any] = []
    for i, item in enumerate(items):
        parts += [", " if 0 < i < len(items) - 1 else " and " if i else "", item]
    return el("span", parts)
