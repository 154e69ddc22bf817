"""The table and the figure of the faithfulness benchmark, from its raw rows.

    python -m benchmarks.faithfulness_table

Writes ``faithfulness.json`` and ``faithfulness.md`` beside the rows, and ``docs/images/faithfulness.png``. Every number is a mean
over prompts with a 95 % interval from resampling the prompts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vico_lens as vl
from benchmarks.faithfulness import METHODS, RAW, REPLACEMENTS, STEPS, rows_of
from vico_lens.attribution import DEFAULT_METHOD
from vico_lens.attribution.judging.faithfulness import NULLS, settled, spearman

JSON, TABLE = RAW.with_suffix(".json"), RAW.with_suffix(".md")
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "faithfulness.png"
DRAWS = 500
LENGTH = "token count"  # one null more: a concept of more tokens is said to matter more
LABELS = {
    "share": "shares",
    "influence": "influence",
    "weaker": "weaker found",
    "maps": "maps",
    "deletion": "deletion",
    "insertion": "insertion",
    "infidelity": "infidelity",
    "iou": "IoU, generated",
    "pointing": "pointing, generated",
    "rendered iou": "IoU, rendered",
    "rendered pointing": "pointing, rendered",
    "shuffled_weights": "shuffled weights",
    "sensitivity": "sensitivity",
    "seconds": "CPU seconds",
}

FINE = {"sensitivity": 4}  # digits, where two would say nothing

Array = np.ndarray[Any, Any]
Score = tuple[float, float, float]


def interval(statistic: Callable[[Array], float], count: int) -> Score:
    """A statistic of prompts, and its 95 % interval over prompts drawn again with replacement."""
    generator = np.random.default_rng(0)
    drawn = [statistic(pick) for pick in generator.integers(0, count, (DRAWS, count))]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return statistic(np.arange(count)), float(low), float(high)


def mean_score(values: Sequence[float]) -> Score | None:
    """Mean of one score over the prompts that have it."""
    kept = np.array([value for value in values if value is not None and np.isfinite(value)])
    return interval(lambda pick: float(kept[pick].mean()), len(kept)) if len(kept) else None


class Totals:
    """Influence of both concepts of every clip by one method and by leave-one-out, ``[clip, concept, step]``."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], method: str, replacement: str) -> None:
        kept = [row for row in rows if method in row["methods"] or method == LENGTH]
        if method == LENGTH:
            own = [np.repeat(np.array(row["tokens"], float)[:, None], len(STEPS), 1) for row in kept]
        else:
            own = [np.array(row["methods"][method]["total"]) for row in kept]
        self.own = np.stack(own)
        steps = self.own.shape[-1]
        causal = np.stack([np.array(row["methods"][f"leave_one_out, {replacement}"]["total"]) for row in kept])
        self.causal = causal[..., -steps:]  # a method that was asked at one step was asked at the last

    def _shares(self) -> tuple[Array, Array]:
        return tuple(np.round(values[:, 0] / values.sum(1), 9) for values in (self.own, self.causal))  # type: ignore[return-value]

    def share(self, pick: Array) -> float:
        """Rank correlation over clips of the first concept's share, mean over steps."""
        own, causal = self._shares()
        return float(np.mean([spearman(own[pick, step], causal[pick, step]) for step in range(own.shape[1])]))

    def influence(self, pick: Array) -> float:
        """Rank correlation over clips of one concept's influence, mean over concepts and steps."""
        _, concepts, steps = self.own.shape
        own = settled(self.own)
        pairs = [(own[pick, c, s], self.causal[pick, c, s]) for c in range(concepts) for s in range(steps)]
        return float(np.mean([spearman(*pair) for pair in pairs]))

    def weaker(self, pick: Array) -> float:
        """How often the concept of less influence is the one whose removal changes less; a tie is half a hit."""
        own, causal = (share[pick] - 0.5 for share in self._shares())
        return float(np.mean(np.where(np.abs(own) < 1e-9, 0.5, np.sign(own) == np.sign(causal))))


def summary(weights: str | None = None) -> dict[str, Any]:
    """Every score of every method and null, and how far the default is ahead of each."""
    parts = {part: list(rows_of(part, weights)) for part in ("clips", "rendered", "checks", "tokens")}
    clips = parts["clips"]
    names = [*METHODS, "leave_one_out", *NULLS, LENGTH]
    found: dict[str, Any] = {}
    for name in names:
        scores: dict[str, Score | None] = {}
        row_name = "leave_one_out, padding" if name == "leave_one_out" else name
        for how in REPLACEMENTS:
            totals = Totals(clips, row_name, how)
            mark = "" if how == "padding" else f", {how}"
            for score in ("share", "influence", "weaker"):
                scores[score + mark] = interval(getattr(totals, score), len(totals.own))
            cells = [row["methods"].get(row_name, {}) for row in clips]
            scores["maps" + mark] = mean_score([cell.get("maps", {}).get(how) for cell in cells])
        for score in ("iou", "pointing", "seconds"):
            scores[score] = mean_score([cell.get(score) for cell in cells])
        for part, columns in (
            ("tokens", ("deletion", "insertion", "infidelity")),
            ("checks", ("shuffled_weights", "sensitivity")),
        ):
            for score in columns:
                scores[score] = mean_score([row["methods"].get(name, {}).get(score) for row in parts[part]])
        for score in ("iou", "pointing"):
            cells = [row["methods"].get(name, {}) for row in parts["rendered"]]
            scores[f"rendered {score}"] = mean_score([np.mean(cell[score]) if score in cell else None for cell in cells])
        found[name] = {score: value for score, value in scores.items() if value is not None}
        found[name]["clips"] = len(Totals(clips, row_name, "padding").own)
    return {
        "command": "python -m benchmarks.faithfulness && python -m benchmarks.faithfulness_table",
        "weights": clips[0]["weights"],
        "steps": list(STEPS),
        "prompts": {part: len(rows) for part, rows in parts.items()},
        "all_correct": sum(row["all_correct"] for row in clips),
        "with_masks": sum(row["subjects_correct"] for row in clips),
        "default": DEFAULT_METHOD,
        "ahead": _ahead(clips, names),
        "methods": found,
    }


def _ahead(clips: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """How far the default is ahead of each other method, on the same resampled prompts: of shares, and of maps."""
    best = Totals(clips, DEFAULT_METHOD, "padding")
    found = {}
    for name in names:
        if name in (DEFAULT_METHOD, "leave_one_out"):
            continue
        other = Totals(clips, name, "padding")
        if len(other.own) == len(best.own):
            found[name] = {"share": interval(lambda pick, other=other: best.share(pick) - other.share(pick), len(best.own))}
            maps = [row["methods"].get(name, {}).get("maps", {}).get("padding") for row in clips]
            if None not in maps:
                gain = np.array([row["methods"][DEFAULT_METHOD]["maps"]["padding"] for row in clips]) - np.array(maps)
                found[name]["maps"] = interval(lambda pick, gain=gain: float(gain[pick].mean()), len(gain))
    return found


def text(value: Score | None, *, spread: bool = True, digits: int = 2) -> str:
    """A score as a table shows it."""
    if value is None:
        return ""
    mean, low, high = value
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})" if spread else f"{mean:.{digits}f}"


def grid(found: Mapping[str, Any], columns: Sequence[str], names: Sequence[str] | None = None, *, spread: bool = True) -> str:
    """A Markdown table of some scores."""
    rows = [["method", *(LABELS.get(column, column) for column in columns)], ["---"] * (len(columns) + 1)]
    for name in names or found["methods"]:
        scores = found["methods"][name]
        if any(column in scores for column in columns):
            rows.append([name, *(text(scores.get(column), spread=spread, digits=FINE.get(column, 2)) for column in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


INTRO = """\
# Faithfulness of the attribution methods, bundled model

`{command}`, weights {weights}. Two-object prompts; steps {steps} of 25. Means over prompts, with 95 % intervals by
resampling prompts.

## Against leave-one-out, {clips} prompts

Leave-one-out: a concept's text states become those of padding; root mean square change of the prediction. `shares`: rank
correlation over prompts of the first concept's share of influence with its share of the change. `influence`: the same for
one concept's influence by itself, mean over both. `weaker found`: how often the concept of less influence is the one whose
removal changes less (chance: 0.5). `maps`: rank correlation over video tokens, mean over concepts. All are means over steps.
`max_flow, token` was asked on {each} prompts at step {last}."""

OTHERS = """\
The same with the state of the word "thing" (neutral) or of the empty prompt (null) in the place of padding:"""

TOKENS = """\
## Taking away single tokens, {tokens} prompts

Area under the curve of the prompt's effect while tokens are taken away from the most influential one on (low is good) and
put in (high is good); captum's infidelity, with influence scaled to fit best (low is good). At step {last}."""

PLACES = """\
## On the objects

Generated: the {with_masks} of {clips} clips that show both objects, masks by colour. Rendered: {rendered} rendered clips,
noised to each step, masks exact. IoU at the object's own area; the pointing game asks whether the largest value of a frame
lies on the object."""

CHECKS = """\
## Checks, {checks} prompts

`shuffled weights`: rank correlation of the explanations of single tokens before and after the denoiser's weights are
shuffled (of maps; of tokens for a method without maps); near 0 is good. `sensitivity`: largest relative change for a change of
the text by 2 % of its standard deviation (captum; low is good). At step {last}."""

COST = """\
## Cost

CPU seconds for two concepts at {count} steps, on a trace of 512 video tokens and 28 sites. Methods that run the model share its
calls, so sampling up to the last step (about half a second) is not in their time."""


def page(found: Mapping[str, Any]) -> str:
    """The whole result as Markdown."""
    known = {**found, **found["prompts"], "weights": found["weights"][:19], "last": STEPS[-1], "count": len(STEPS)}
    known["each"] = found["methods"]["max_flow, token"]["clips"]
    behind = ["| method | shares | maps |", "|---|---|---|"]
    behind += [f"| {name} | {text(gain['share'])} | {text(gain.get('maps'))} |" for name, gain in found["ahead"].items()]
    parts = [
        (INTRO, grid(found, ("share", "influence", "weaker", "maps"))),
        (OTHERS, grid(found, [f"{score}, {how}" for score in ("share", "maps") for how in ("neutral", "null")])),
        ("How far the default, `{default}`, is ahead of the others on the same prompts:", "\n".join(behind)),
        (TOKENS, grid(found, ("deletion", "insertion", "infidelity"))),
        (PLACES, grid(found, ("iou", "pointing", "rendered iou", "rendered pointing"))),
        (CHECKS, grid(found, ("shuffled_weights", "sensitivity"))),
        (COST, grid(found, ("seconds",), list(METHODS), spread=False)),
    ]
    return "\n\n".join(f"{words.format(**known)}\n\n{rows}" for words, rows in parts)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Dots with intervals: shares, maps and places, methods above nulls."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names, declared = list(found["methods"])[::-1], vl.methods()
    panels = {
        "share": "Shares against\nleave-one-out",
        "maps": "Maps against\nleave-one-out",
        "rendered iou": "Overlap with\nrendered objects",
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(9.6, 5.4), sharey=True, layout="constrained")
    for axis, (score, title) in zip(axes, panels.items(), strict=True):
        axis.axvline(0, color="#999999", linewidth=0.8)
        for place, name in enumerate(names):
            value = found["methods"][name].get(score)
            if value is None or (name == "leave_one_out" and score != "rendered iou"):
                continue
            kind = "null" if name in (*NULLS, LENGTH) else "default" if name == found["default"] else "method"
            colour = {"null": "#9a9a9a", "default": "#c2410c", "method": "#1f4e79"}[kind]
            axis.plot(value[1:], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
            runs = name not in (*NULLS, LENGTH) and declared[METHODS.get(name, (name,))[0]].needs_pipe
            axis.plot(value[0], place, "o", color=colour, markerfacecolor="white" if runs else colour, markersize=5)
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(axis="x", color="#e5e5e5", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(length=0, labelsize=9)
    axes[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    figure.supxlabel(
        "Mean over prompts and 95 % interval. Open: runs the model again. Orange: the default. Grey: nulls.",
        fontsize=9,
        color="#555555",
    )
    figure.savefig(path, dpi=130)


def main() -> None:
    """Write the tables and the figure."""
    from vico_lens.tracing.provenance import weights_hash

    found = summary(weights_hash({"unet": vl.load_pipeline().unet}))
    JSON.write_text(json.dumps(_rounded(found), indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(page(found) + "\n", encoding="utf-8")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    draw(found, FIGURE)
    print(page(found))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
