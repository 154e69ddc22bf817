"""The table and the figure of the study, from its raw results.

    python -m benchmarks.study_table

reads ``benchmarks/results/study.csv``, one line a clip, and writes ``benchmarks/results/study.md``, ``study.json`` and
``docs/images/study.png``. Differences are paired with the plain clip of the same prompt and seed, with 95 % bootstrap intervals
over pairs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KEPT", "SHARES", "compare_pairs", "main", "tabulate"]

RAW = Path(__file__).parent / "results" / "study.csv"
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "study.png"
SHARES = ("all_correct", "subjects_correct", "all_present")
KEPT = ("objects", "condition", "prompt", "seed", *SHARES, "failure", "row_forwards")
_FAILURES = {
    "missing": ("missing_subject",),
    "extra": ("extra_object",),
    "attributes": ("attribute_swap", "attribute_leak", "wrong_attribute", "wrong_size", "wrong_relation", "unreadable"),
    "motion": ("motion_mixing", "wrong_motion"),
}


def compare_pairs(condition: np.ndarray, plain: np.ndarray, resamples: int = 5000, seed: int = 0) -> dict[str, Any]:
    """Mean of paired differences, with a 95 % bootstrap interval over pairs; how many pairs were gained and lost.

    Examples
    --------
    >>> result = compare_pairs(np.array([1, 1, 0, 1]), np.array([0, 1, 1, 1]))
    >>> result["difference"], result["gained"], result["lost"]
    (0.0, 1, 1)
    """
    difference = condition.astype(float) - plain.astype(float)
    drawn = np.random.default_rng(seed).integers(0, len(difference), (resamples, len(difference)))
    low, high = np.quantile(difference[drawn].mean(1), [0.025, 0.975])
    return {
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "gained": int((difference > 0).sum()),
        "lost": int((difference < 0).sum()),
    }


def tabulate(clips: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a condition: shares of clips, differences, and cost in denoiser forwards relative to plain.

    Only pairs that have a plain clip count, and for every condition only its own pairs. Where the default's clip of the same
    pair is there too, ``behind_default`` is the paired difference from it.

    Parameters
    ----------
    clips : DataFrame
        One row a clip, with the columns of `KEPT`; of prompts of equally many objects.

    Returns
    -------
    list of dict
        Plain first, then by the share of clips that are right in everything.
    """
    by = {str(name): own.set_index(["prompt", "seed"]) for name, own in clips.groupby("condition")}
    plain = by["plain"]
    rows = []
    for name, every in by.items():
        own = every.loc[every.index.intersection(plain.index)]
        paired = plain.loc[own.index]
        row: dict[str, Any] = {"condition": name, "pairs": len(own)}
        row |= {share: float(own[share].mean()) for share in SHARES}
        row |= compare_pairs(own.all_correct.to_numpy(), paired.all_correct.to_numpy())
        row["cost"] = float(own.row_forwards.mean() / paired.row_forwards.mean())
        row["failures"] = {kind: int(own.failure.isin(names).sum()) for kind, names in _FAILURES.items()}
        if name != "default" and "default" in by:
            both = own.index.intersection(by["default"].index)
            if len(both):
                right = by["default"].loc[both].all_correct.to_numpy()
                row["behind_default"] = compare_pairs(right, own.loc[both].all_correct.to_numpy())
        rows.append(row)
    return sorted(rows, key=lambda row: (row["condition"] != "plain", -row["all_correct"]))


def _points(found: dict[str, Any]) -> str:
    return f"{100 * found['difference']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a table; differences in points with their intervals, failures in per cent of the clips."""
    lines = [
        "| condition | pairs | all right | against plain | mended / broken | default against it | right but for motion | missing "
        "| extra | attributes | motion | cost |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        plain = row["condition"] == "plain"
        behind = _points(row["behind_default"]) if "behind_default" in row else ""
        failures = " | ".join(f"{100 * count / row['pairs']:.0f} %" for count in row["failures"].values())
        lines.append(
            f"| {row['condition']} | {row['pairs']} | {100 * row['all_correct']:.1f} % | {'' if plain else _points(row)} | "
            f"{'' if plain else str(row['gained']) + ' / ' + str(row['lost'])} | {behind} | "
            f"{100 * row['subjects_correct']:.1f} % | {failures} | {row['cost']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def figure(rows: list[dict[str, Any]]) -> None:
    """Difference to plain against cost, one point a condition, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = sorted((row for row in rows if row["condition"] != "plain"), key=lambda row: row["difference"])
    canvas, axes = plt.subplots(figsize=(8.6, 0.42 * len(shown) + 1.3), layout="constrained")
    for place, row in enumerate(shown):
        middle, low, high = (100 * row[key] for key in ("difference", "low", "high"))
        colour = "#0b6e4f" if row["condition"] == "default" else "#59636e"
        axes.plot([low, high], [place, place], color=colour, lw=2, solid_capstyle="butt")
        axes.plot(middle, place, "o", color=colour, ms=6)
    axes.axvline(0, color="#1c2128", lw=0.8)
    axes.set_yticks(range(len(shown)), [f"{row['condition']}  ({row['pairs']} pairs, cost {row['cost']:.2f})" for row in shown])
    axes.set_xlabel("points of fully right clips, against plain (95 % interval)")
    axes.grid(axis="x", color="#e4e7eb")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(FIGURE, dpi=160)
    plt.close(canvas)


def main() -> None:
    """Write table, numbers and figure, and print the table."""
    import pandas as pd

    clips = pd.read_csv(RAW, keep_default_na=False)
    tables = {int(objects): tabulate(own) for objects, own in clips.groupby("objects")}
    RAW.with_suffix(".json").write_text(json.dumps(tables, indent=1) + "\n")
    names = {1: "One object", 2: "Two objects"}
    text = "\n".join(f"## {names[objects]}\n\n{markdown(rows)}" for objects, rows in sorted(tables.items(), reverse=True))
    RAW.with_suffix(".md").write_text(f"# The study\n\n`python -m benchmarks.study_table`\n\n{text}")
    print(text)
    figure(tables[2])


if __name__ == "__main__":
    main()
