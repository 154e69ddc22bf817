"""Which attribution method to believe: every method against leave-one-out on two-object prompts of the bundled model.

Four parts, each on its own number of prompts (the dear ones on fewer), each row appended to
``benchmarks/results/faithfulness.jsonl``, so that an interrupted run goes on where it stopped:

- ``clips``: sample and trace a clip; what each method and each null says of each concept at each step, how its maps agree with
  leave-one-out's (three replacements), and how well they lie on the objects of the generated clip;
- ``rendered``: maps on a rendered clip with noise added, whose object masks are known exactly;
- ``checks``: captum's sensitivity, and explanations before and after the denoiser's weights are shuffled, for single tokens;
- ``tokens``: insertion and deletion of single tokens, and captum's infidelity.

    python -m benchmarks.faithfulness
    python -m benchmarks.faithfulness_table
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import vico_lens as vl
from benchmarks.denoiser_calls import conditional_half, masks_of_frames, noised_call
from vico_lens.attribution.judging.checks import explainer, stability, weight_dependence
from vico_lens.attribution.judging.comparison import map_correlation, match, token_switch
from vico_lens.attribution.judging.faithfulness import infidelity, localisation, null_influences, removal_curves
from vico_lens.attribution.replay import DenoiserCall, record_calls, replayed, sampling_of, shared_calls
from vico_lens.tinyworld import TinyPrompt, judge, render, sample_prompts
from vico_lens.tracing.provenance import weights_hash

RAW = Path(__file__).parent / "results" / "faithfulness.jsonl"
SEED, FIRST_SEED, STEPS, MIDDLE = 778, 70_000, (4, 12), 12
# The renderer finds no room for the two large objects of the 31st prompt.
COUNTS = {"clips": 101, "rendered": 30, "tokens": 36, "checks": 11}
FLOWS_TO_TOKENS = 20  # clips on which every video token is a sink of its own
REPLACEMENTS = ("padding", "neutral", "null")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "cross_attention": ("cross_attention", {}),
    "rollout": ("rollout", {}),
    "subgraph_flow, hard": ("subgraph_flow", {"kind": "hard"}),
    "subgraph_flow, soft": ("subgraph_flow", {"kind": "soft"}),
    "subgraph_flow, sum": ("subgraph_flow", {"kind": "sum"}),
    "subgraph_flow, exact": ("subgraph_flow", {"kind": "exact"}),
    "subgraph_flow, rollout": ("subgraph_flow", {"kind": "rollout"}),
    "widest_path": ("widest_path", {}),
    "max_flow, video": ("max_flow", {"sink": "video"}),
    "max_flow, frame": ("max_flow", {"sink": "frame"}),
    "max_flow, token": ("max_flow", {"sink": "token"}),
    "input_x_gradient": ("input_x_gradient", {}),
    "integrated_gradients": ("integrated_gradients", {"n_steps": 8}),
    "feature_ablation": ("feature_ablation", {}),
    "shapley_values": ("shapley_values", {"n_samples": 8}),
}
REFERENCE = {"leave_one_out": ("leave_one_out", {})}
PLACES = ("frame", "y", "x")


class Case:
    """One prompt: its clip, trace, concepts and single words.

    Attributes
    ----------
    tree, frames
        Trace at `STEPS` and generated frames ``[frame, row, column, rgb]``.
    concepts, words : dict
        Name to tokens, of the prompt's objects and of its single tokens.
    """

    def __init__(self, pipe: Any, prompt: TinyPrompt, seed: int) -> None:
        self.pipe, self.prompt, self.seed = pipe, prompt, seed
        with vl.trace(pipe, capture=vl.Capture(steps=list(STEPS))) as run:
            self.frames = pipe(str(prompt), generator=torch.Generator().manual_seed(seed), output_type="np").frames[0]
        self.tree = run.tree
        self.concepts = {item.name: tuple(item.tokens) for item in vl.find_concepts(self.tree, list(prompt.concepts))}
        self.sampling = sampling_of(self.tree, None, None)
        kinds = self.tree.coords["token_kind"].values
        self.words = {str(token): (token,) for token, kind in enumerate(kinds) if kind == "text"}

    def attribute(self, method: str, spans: Any = None, steps: Any = None, **options: Any) -> xr.DataArray:
        """Influence by one method, with the pipeline where it is needed."""
        model = {"pipe": self.pipe} if vl.methods()[method].needs_pipe else {}
        return vl.attribute(self.tree, method, self.concepts if spans is None else spans, steps=steps, **model, **options)

    def call(self, step: int) -> DenoiserCall:
        """The denoiser call of a step."""
        return record_calls(self.pipe, self.sampling, [step])[step]


def clips(case: Case) -> dict[str, Any]:
    """Influence of both concepts by every method, agreement of maps with leave-one-out's, and place on the generated objects."""
    verdict = judge(case.frames, case.prompt)
    masks = masks_of_frames(case.frames, case.prompt) if verdict.subjects_correct else None
    causal = {how: case.attribute("leave_one_out", replacement=how) for how in REPLACEMENTS}
    found: dict[str, Any] = {}
    for label, (name, options) in METHODS.items():
        # A flow for each token of the video is expensive, and the same at every step: its cut lies at the sink.
        each = options.get("sink") == "token"
        if each and case.seed >= FIRST_SEED + FLOWS_TO_TOKENS:
            continue
        start = time.process_time()
        influence = case.attribute(name, steps=[MIDDLE] if each else None, **options)
        found[label] = influence, time.process_time() - start
    like, spans = causal["padding"], list(case.concepts.values())
    found |= {name: (influence, 0.0) for name, influence in null_influences(like, spans, case.seed).items()}
    found |= {f"leave_one_out, {how}": (influence, 0.0) for how, influence in causal.items()}
    methods = {}
    for label, (influence, seconds) in found.items():
        row = {"total": _totals(influence), "seconds": seconds}
        if set(PLACES) <= set(influence.dims):
            row["maps"] = {how: map_correlation(influence, truth.sel(step=influence["step"])) for how, truth in causal.items()}
            row |= _place(influence, masks)
        methods[label] = row
    return {
        "tokens": [len(span) for span in spans],
        "all_correct": verdict.all_correct,
        "subjects_correct": verdict.subjects_correct,
        "methods": methods,
    }


def tokens(case: Case) -> dict[str, Any]:
    """Areas under the deletion and insertion curves, and infidelity, of the influence of single tokens."""
    per_token = {
        label: case.attribute(name, case.words, MIDDLE, **options)
        for label, (name, options) in (METHODS | REFERENCE).items()
        if label != "max_flow, token"
    }
    per_token |= null_influences(per_token["cross_attention"], list(case.words.values()), case.seed)
    _, switch = token_switch(case.tree, case.pipe, MIDDLE, [token for (token,) in case.words.values()])
    rows = {}
    for label, influence in per_token.items():
        totals = influence.sum([dim for dim in influence.dims if dim != "concept"]).values.tolist()
        curves = removal_curves(switch, totals, seed=case.seed)
        rows[label] = {name: float(curve.mean()) for name, curve in curves.items()}
        rows[label]["infidelity"] = infidelity(switch, totals, seed=case.seed)
    return {"methods": rows}


def rendered(case: Case) -> dict[str, Any]:
    """How well maps lie on the objects of a rendered clip, given to the denoiser with the noise of each step."""
    clip = render(case.prompt, seed=case.seed)
    rows: dict[str, list[dict[str, float]]] = {}
    for step in STEPS:
        call = noised_call(case.pipe, case.call(step), clip.frames, case.seed)
        maps = {label: explain(call) for label, explain in _explainers(case, with_maps=True).items()}
        arrays = {label: xr.DataArray(values.numpy(), dims=("concept", *PLACES)) for label, values in maps.items()}
        arrays |= null_influences(arrays["cross_attention"].assign_coords(concept=[0, 1]), [(1,), (2,)], case.seed)
        for label, influence in arrays.items():
            rows.setdefault(label, []).append(_place(influence.assign_coords(concept=list(case.concepts)), clip.masks))
    return {"methods": {label: {name: [row[name] for row in found] for name in found[0]} for label, found in rows.items()}}


def checks(case: Case) -> dict[str, Any]:
    """Dependence on the weights and sensitivity to small changes of the text, at the middle step."""
    call, rows = case.call(MIDDLE), {}
    for label, explain in _explainers(case, with_maps=False).items():
        before, after = weight_dependence(call, explain, seed=case.seed)
        rows[label] = {
            "shuffled_weights": match(before, after),
            "sensitivity": stability(call, explain, samples=2, seed=case.seed),
        }
    return {"methods": rows}


def _explainers(case: Case, *, with_maps: bool) -> dict[str, Callable[[DenoiserCall], Tensor]]:
    """Every method as a function of a denoiser call: maps of concepts, or influence of single tokens."""
    chosen = {}
    for label, (name, options) in (METHODS | REFERENCE).items():
        if label in (("max_flow, video", "max_flow, frame") if with_maps else ("max_flow, token",)):
            continue
        if with_maps and vl.methods()[name].needs_pipe and name != "leave_one_out":
            continue
        chosen[label] = explainer(case.tree, case.pipe, name, case.concepts if with_maps else case.words, **options)
    return chosen


def _totals(influence: xr.DataArray) -> list[list[float]]:
    """Size of the influence of each concept at each step, ``[concept][step]``."""
    found: list[list[float]] = (
        abs(influence).sum([dim for dim in influence.dims if dim not in ("concept", "step")]).values.tolist()
    )
    return found


def _place(influence: xr.DataArray, masks: Any) -> dict[str, float]:
    if masks is None:
        return {}
    scores = localisation(influence, masks)
    return {"iou": float(scores["iou"].mean()), "pointing": float(scores["pointing"].mean())}


PARTS: dict[str, Callable[[Case], dict[str, Any]]] = {"clips": clips, "rendered": rendered, "tokens": tokens, "checks": checks}


def rows_of(part: str, weights: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one part that were measured so far, of these weights of the denoiser."""
    for line in RAW.read_text().splitlines() if RAW.exists() else []:
        row = json.loads(line)
        if row["part"] == part and weights in (None, row["weights"]):
            yield row


def run(part: str, count: int) -> None:
    """Measure the prompts of one part that are missing."""
    pipe = vl.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    weights = weights_hash({"unet": pipe.unet})
    done = {row["seed"] for row in rows_of(part, weights)}
    RAW.parent.mkdir(exist_ok=True)
    for number, prompt in enumerate(sample_prompts(count, objects=2, seed=SEED)):
        seed = FIRST_SEED + number
        if seed in done:
            continue
        start = time.perf_counter()
        with shared_calls():
            case = Case(pipe, prompt, seed)
            # Where time is not measured, the branch that no score reads is left out of every call.
            halves = [] if part == "clips" else [conditional_half(case.call(step)) for step in STEPS]
            with replayed(pipe, case.sampling, halves):
                found = PARTS[part](case)
        row = {"part": part, "prompt": str(prompt), "seed": seed, "weights": weights, **_rounded(found)}
        with RAW.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{part} {number + 1}/{count}: {time.perf_counter() - start:.1f} s", flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(np.format_float_positional(value, 6, fractional=False)) if isinstance(value, float) else value


def main() -> None:
    """Measure all parts, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--count", type=int, help="prompts of each part, instead of its own number")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for part in arguments.parts or PARTS:
        run(part, arguments.count or COUNTS[part])


if __name__ == "__main__":
    main()
