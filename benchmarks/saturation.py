"""Where exact flow says more than summed cross-attention: flows of every word of real traces, over steps, depth and sinks.

    python -m benchmarks.saturation            # appends to benchmarks/results/saturation.jsonl, clip by clip
    python -m benchmarks.saturation --table    # writes saturation.md beside it, and docs/images/saturation.png

Every begin and word token of the prompt is a source. The network is cut after its first, second, .. group of sites that has a
cross-attention (`network`), or one such group stands alone (`group`: the cross-attention and the temporal sites after it).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vico_lens as vl
from vico_lens.attribution import stages_from_trace
from vico_lens.attribution.judging.faithfulness import settled, spearman
from vico_lens.kernels.certificate import SATURATED, trivial_cuts
from vico_lens.kernels.layered import LayeredGraph
from vico_lens.kernels.maxflow import max_flow
from vico_lens.kernels.stages import Stage
from vico_lens.tinyworld import sample_prompts

RAW = Path(__file__).parent / "results" / "saturation.jsonl"
TABLE = RAW.with_suffix(".md")
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "saturation.png"
SEED, FIRST_SEED, CLIPS, STEPS, MIDDLE = 779, 71_000, 2, (0, 6, 12, 18, 24), 12
EVERY = 16  # one video token of so many is a sink of its own
CUT = {"at_source": "source", "between": "no", "at_sink": "sink"}
SINKS = ("video", "frame", "token")


def groups(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages in groups of one cross-attention each: the spatial site before it, it, and the temporal sites after it."""
    found: list[list[Stage]] = [[]]
    for stage in stages:
        started = any(kept.kind == "cross" for kept in found[-1])
        if started and stage.kind == "spatial":
            found.append([])
        found[-1].append(stage)
    return found


def graphs(stages: Sequence[Stage], residual: str) -> Iterator[tuple[str, int, LayeredGraph]]:
    """Scope, depth (or number of the group) and graph of everything that is measured at a step."""
    parts = groups(stages)
    for depth in range(1, len(parts) + 1):
        whole = [stage for part in parts[:depth] for stage in part]
        yield "network", depth, LayeredGraph.from_stages(whole, residual=residual)  # type: ignore[arg-type]
    for number, part in enumerate(parts, start=1):
        first = next(place for place, stage in enumerate(part) if stage.kind == "cross")
        yield "group", number, LayeredGraph.from_stages(part[first:], residual=residual)  # type: ignore[arg-type]


def measured(graph: LayeredGraph, sources: list[list[int]], sink: str) -> dict[str, Any]:
    """How flows to one kind of sink are cut, and what they say beside the sum of cross-attention."""
    chosen: str | Tensor = torch.eye(graph.video, dtype=torch.float64)[EVERY // 2 :: EVERY] if sink == "token" else sink
    flow = max_flow(graph, sources, chosen, keep_sides=False)
    exact = graph.to(torch.float64)
    injected = trivial_cuts(exact, exact.supply(sources), exact.sink(chosen)).source.numpy()
    value = flow.value.numpy()
    ranks = [spearman(settled(column), injected) for column in value.T]
    words = value[1:]  # the begin token takes most of every softmax
    places = flow.cut_by_kind()
    return {
        "flows": value.size,
        **{name: float((flow.saturated == SATURATED.index(code)).double().mean()) for name, code in CUT.items()},
        # Cut in edges from the source alone: the flow is what the source injects where it can reach the sink from.
        "source_edges": float((flow.location[..., 0] >= (1 - 1e-9) * flow.cut_value).double().mean()),
        "rank_with_cross_attention": float(np.mean(ranks)),
        "spread": float((words.std(0) / words.mean(0)).mean()),
        "cut": {kind: float((part / flow.cut_value).mean()) for kind, part in places.items()},
        "largest_gap": float(flow.gap.abs().max()),
    }


def run(clips: int) -> None:
    """Append the rows of the clips that are missing."""
    pipe = vl.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    done = {row["seed"] for row in rows_of()}
    for number, prompt in enumerate(sample_prompts(clips, objects=2, seed=SEED)):
        seed = FIRST_SEED + number
        if seed in done:
            continue
        with vl.trace(pipe, capture=vl.Capture(steps=list(STEPS))) as recording:
            pipe(str(prompt), generator=torch.Generator().manual_seed(seed), output_type="np")
        kinds = recording.tree.coords["token_kind"].values.tolist()
        sources = [[0]] + [[token] for token, kind in enumerate(kinds) if kind == "text"]
        rows = []
        for step in STEPS:
            stages = stages_from_trace(recording.tree, step)
            for residual in ("share", "add") if step == MIDDLE else ("share",):
                for scope, depth, graph in graphs(stages, residual):
                    for sink in SINKS:
                        place = {"seed": seed, "prompt": str(prompt), "step": step, "residual": residual}
                        rows.append({**place, "scope": scope, "depth": depth, "sink": sink, **measured(graph, sources, sink)})
            print(f"clip {number + 1}/{clips}, step {step}", flush=True)
        with RAW.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def rows_of() -> list[dict[str, Any]]:
    """What was measured so far."""
    return [json.loads(line) for line in RAW.read_text().splitlines()] if RAW.exists() else []


def main() -> None:
    """Measure, or write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.table:
        from benchmarks.saturation_table import write

        write(rows_of(), TABLE, FIGURE)
    else:
        run(arguments.clips)


if __name__ == "__main__":
    main()
