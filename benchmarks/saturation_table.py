"""The tables and the figure of the saturation benchmark, from its raw rows (``python -m benchmarks.saturation --table``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["by_depth", "by_step", "write"]

Rows = Sequence[Mapping[str, Any]]

SINKS = {"video": "the whole video", "frame": "one frame", "token": "one video token"}
COLOURS = {"at_source": "#1f4e79", "in_reach": "#9dbcd8", "within": "#c2410c", "at_sink": "#b8b8b8"}
SAID = {
    "at_source": "cut at the source: summed cross-attention",
    "in_reach": "the same, of the places in reach",
    "within": "cut between: says more",
    "at_sink": "cut at the sink: full",
}
HEAD = ("at the source", "in reach", "between", "at the sink", "rank with cross-attention", "spread over words")

READING = """\
`at the source`: all that the word injects arrives, so the flow is the sum of its cross-attention. `in reach`: the cut lies in
edges from the source alone, so the flow is that sum over the places from which the sink can be reached. `between`: the network
holds the flow back, and it says more. `at the sink`: the sink takes in no more. `rank with cross-attention`: rank correlation
over words of the flow with the sum of cross-attention. `spread`: standard deviation over words, over the mean."""


def _share(row: Mapping[str, Any], name: str) -> float:
    """One number of a row; what is cut in source edges alone, but not in all of them, is told apart from what is cut between."""
    if name == "in_reach":
        return float(row["source_edges"] - row["at_source"])
    return float(row["between"] - _share(row, "in_reach") if name == "within" else row[name])


def _mean(rows: Rows, name: str) -> float:
    return float(np.mean([_share(row, name) for row in rows]))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _means(rows: Rows) -> list[str]:
    # Adding zero turns what rounds to -0.00 into 0.00.
    return [f"{round(_mean(rows, name), 2) + 0.0:.2f}" for name in (*COLOURS, "rank_with_cross_attention", "spread")]


def by_depth(rows: Rows, *, residual: str = "share", scope: str = "network", depths: Sequence[int] | None = None) -> str:
    """Means over clips and steps, for each sink and depth (for single groups, each group)."""
    lines = []
    for sink, words in SINKS.items():
        chosen = [row for row in rows if (row["sink"], row["scope"], row["residual"]) == (sink, scope, residual)]
        for depth in depths or sorted({row["depth"] for row in chosen}):
            lines.append([words, str(depth), *_means([row for row in chosen if row["depth"] == depth])])
    return _markdown(("sink", "groups" if scope == "network" else "group", *HEAD), lines)


def by_step(rows: Rows) -> str:
    """Means over clips at the full depth, for each sink and step."""
    deepest = max(row["depth"] for row in rows)
    lines = []
    for sink, words in SINKS.items():
        chosen = [
            row
            for row in rows
            if row["sink"] == sink and row["scope"] == "network" and row["residual"] == "share" and row["depth"] == deepest
        ]
        for step in sorted({row["step"] for row in chosen}):
            lines.append([words, str(step), *_means([row for row in chosen if row["step"] == step])])
    return _markdown(("sink", "step", *HEAD), lines)


def draw(rows: Rows, path: Path) -> None:
    """Shares of flows cut at the source, between and at the sink: over depth above, over steps below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    whole = [row for row in rows if row["scope"] == "network" and row["residual"] == "share"]
    deepest = max(row["depth"] for row in whole)
    figure, axes = plt.subplots(2, len(SINKS), figsize=(9.6, 5.6), sharey=True, layout="constrained")
    for column, (sink, words) in enumerate(SINKS.items()):
        here = [row for row in whole if row["sink"] == sink]
        _stack(axes[0, column], here, "depth")
        _stack(axes[1, column], [row for row in here if row["depth"] == deepest], "step")
        axes[0, column].set_title(f"Sink: {words}", fontsize=10, loc="left")
        axes[0, column].set_xlabel("groups of sites, from the first", fontsize=9)
        axes[1, column].set_xlabel("denoising step, all groups", fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("share of flows", fontsize=9)
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[name]) for name in SAID]
    figure.legend(handles, SAID.values(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _stack(axis: Any, rows: Rows, by: str) -> None:
    values = sorted({row[by] for row in rows})
    base = np.zeros(len(values))
    for name, colour in COLOURS.items():
        part = np.array([_mean([row for row in rows if row[by] == value], name) for value in values])
        axis.bar(range(len(values)), part, bottom=base, color=colour, width=0.82)
        base += part
    axis.set_xticks(range(len(values)), values)
    axis.set_ylim(0, 1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(length=0, labelsize=9)


def write(rows: Rows, table: Path, figure: Path) -> None:
    """Write both."""
    clips = len({row["seed"] for row in rows})
    worst = max(row["largest_gap"] for row in rows)
    flows = sum(row["flows"] for row in rows)
    if not worst <= 1e-9:
        raise AssertionError(f"a certificate does not close: relative gap {worst:.1e}")
    sections = [
        "# Saturation of exact flow on real traces, bundled model",
        f"`python -m benchmarks.saturation`: {clips} two-object clips, {flows:,} flows; every word of the prompt and the begin "
        f"token is a source. Largest relative gap of a certificate: {worst:.1e}.",
        READING,
        "## The network up to a depth, means over steps",
        by_depth(rows),
        "## The whole network, by step",
        by_step(rows),
        "## One group by itself (a cross-attention and the temporal sites after it)",
        by_depth(rows, scope="group"),
        "## The network with the residual connection added (A + I), step 12",
        by_depth(rows, residual="add"),
    ]
    table.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    draw(rows, figure)
