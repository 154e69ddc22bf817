"""Branches are told by the text that reached the denoiser: in classes and loops of our own, and where a step says two things."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from own_loops import STEPS, own_wan

import vico_lens as vl
from vico_lens.errors import InputError, TracingError
from vico_lens.testing import TinyPipeline, tiny_pipeline
from vico_lens.testing.witness import Witnessed, witness

GROUP = "cross/3x2x3"
TEXTS = ("a red circle", "blurred, a green triangle")


@pytest.fixture(scope="module")
def wan() -> TinyPipeline:
    return tiny_pipeline("wan21-t2v")


def witnessed(forwards: list[Witnessed], text: torch.Tensor, step: int, layer: int) -> np.ndarray:
    """Map of one layer at one step, of the row that was given this text."""
    found = []
    for forward in forwards:
        noisy, time, states = (*forward.args, *forward.kwargs.values())[:3]
        for row in range(len(noisy)):
            if float(time.flatten()[0]) == STEPS[step] and torch.equal(states[row], text):
                found.append(forward.of(f"blocks.{layer}.attn2")[-1][row].numpy())
    assert len(found) == 1
    return np.asarray(found[0])


def check(tree: xr.DataTree, forwards: list[Witnessed], texts: dict[str, torch.Tensor]) -> None:
    weights = tree[GROUP].weights
    for branch, text in texts.items():
        one = weights.sel(branch=branch) if "branch" in weights.dims else weights
        for step in range(one.sizes["step"]):
            for layer in range(one.sizes["layer"]):
                recorded = one.isel(step=step, layer=layer).values.reshape(one.sizes["head"], -1, one.sizes["token"])
                np.testing.assert_allclose(recorded, witnessed(forwards, text, step, layer), atol=1e-6)


def encoded(wan: TinyPipeline) -> dict[str, torch.Tensor]:
    prompt, negative = wan.pipe.encode_prompt(*TEXTS, max_sequence_length=24, device="cpu")
    return {"cond": prompt[0], "uncond": negative[0]}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", [("uncond", "cond"), ("cond", "uncond")])
def test_a_class_with_a_loop_of_its_own_is_read_by_its_text(wan: TinyPipeline, order: Any, together: bool) -> None:
    pipe = own_wan(wan, order=order, together=together)
    plain = pipe(*TEXTS)
    with vl.trace(pipe, capture=vl.Capture(kinds="cross", branch="both")) as run:
        assert torch.equal(pipe(*TEXTS), plain)
    with witness({"transformer": pipe.transformer}) as forwards:
        pipe(*TEXTS)
    check(run.tree, forwards, encoded(wan))
    assert run.tree.timestep.values.tolist() == list(STEPS)
    assert run.tree.attrs["prompt"] == TEXTS[0]
    assert "circle" in run.tree.word.values


@torch.no_grad()
def loop(wan: TinyPipeline, texts: list[torch.Tensor], run: Any = None) -> None:
    noisy = torch.zeros(1, 16, 3, 4, 6)
    for index, time in enumerate(STEPS):
        for text in texts:
            noisy = noisy + 0.1 * wan.pipe.transformer(noisy, torch.tensor([time]), text[None]).sample
        if run is not None and index == 0:
            assert "open" in repr(run)


@pytest.mark.parametrize("order", [("uncond", "cond"), ("cond", "uncond")])
def test_a_loop_is_read_by_the_text_that_was_encoded_inside_the_trace(wan: TinyPipeline, order: Any) -> None:
    with vl.trace(wan.pipe, capture=vl.Capture(kinds="cross", branch="both")) as run:
        texts = encoded(wan)
        loop(wan, [texts[name] for name in order], run)
    with witness({"transformer": wan.pipe.transformer}) as forwards:
        loop(wan, [texts[name] for name in order])
    check(run.tree, forwards, texts)
    assert run.tree.attrs["prompt"] == TEXTS[0]


@pytest.mark.filterwarnings("ignore:.*outside of the pipeline's own call:UserWarning")
@pytest.mark.parametrize("branch", ["cond", "both"])
def test_two_passes_of_unknown_text_are_refused_and_both_are_named(wan: TinyPipeline, branch: Any) -> None:
    texts = encoded(wan)
    words = r"forwards 1 and 2 of step 0 would both be the branch 'cond' in row 0.*passes=\(\"cond\", \"uncond\"\)"
    with pytest.raises(TracingError, match=words), vl.trace(wan.pipe, capture=vl.Capture(kinds="cross", branch=branch)):
        loop(wan, list(texts.values()))


@pytest.mark.parametrize("order", [("uncond", "cond"), ("cond", "uncond")])
def test_passes_name_the_branches_of_a_loop(wan: TinyPipeline, order: Any) -> None:
    texts = encoded(wan)
    with vl.trace(wan.pipe, passes=order, capture=vl.Capture(kinds="cross", branch="both")) as run:
        loop(wan, [texts[name] for name in order])
    with witness({"transformer": wan.pipe.transformer}) as forwards:
        loop(wan, [texts[name] for name in order])
    check(run.tree, forwards, texts)


def test_passes_that_contradict_the_text_are_refused(wan: TinyPipeline) -> None:
    with pytest.raises(TracingError, match="forward 1 of a step to be uncond"), vl.trace(wan.pipe, passes=("uncond", "cond")):
        loop(wan, list(encoded(wan).values()))
    for wrong in (("cond", "cond"), ("left",), ()):
        with pytest.raises(InputError, match="name each branch of a step once"):
            vl.trace(wan.pipe, passes=wrong)  # type: ignore[arg-type]


def test_a_step_is_marked_where_timesteps_do_not_tell(wan: TinyPipeline) -> None:
    """Two steps at one timestep: without a mark the second is refused, with it each is a step."""
    text = encoded(wan)["cond"]
    noisy, time = torch.zeros(1, 16, 3, 4, 6), torch.tensor([500.0])
    with torch.no_grad(), vl.trace(wan.pipe, passes=("cond",), capture=vl.Capture(kinds="cross")) as run:
        for index in range(2):
            with run.step(index, 500.0):
                wan.pipe.transformer(noisy + index, time, text[None])
    assert run.tree.step.values.tolist() == [0, 1] and run.tree.attrs["complete"]
    with (
        torch.no_grad(),
        pytest.raises(TracingError, match=r"got forward 2 of a step.*run\.step"),
        vl.trace(wan.pipe, passes=("cond",)),
    ):
        for index in range(2):
            wan.pipe.transformer(noisy + index, time, text[None])


def test_a_second_pipeline_that_shares_the_denoiser_is_refused(wan: TinyPipeline) -> None:
    from diffusers import WanVideoToVideoPipeline

    other = WanVideoToVideoPipeline.from_pipe(wan.pipe)
    other.set_progress_bar_config(disable=True)
    clip = tiny_pipeline("wan21-v2v").kwargs["video"]
    call = {name: value for name, value in wan.kwargs.items() if name != "num_frames"} | {"video": clip, "strength": 0.8}
    for first in (True, False):
        with pytest.raises(TracingError, match="another pipeline, WanVideoToVideoPipeline"), vl.trace(wan.pipe):
            if first:
                wan.run(seed=0)
            other(**call)
    with vl.trace(other, capture=vl.Capture(kinds="cross")) as run:
        other(**call)
    assert run.tree.attrs["pipeline"] == "WanVideoToVideoPipeline" and run.tree.attrs["prompt"] == wan.prompt


@pytest.mark.parametrize("first", ["loop", "call"])
def test_a_loop_beside_a_call_is_a_second_run(wan: TinyPipeline, first: str) -> None:
    text = encoded(wan)["cond"]
    runs = [lambda: loop(wan, [text]), lambda: wan.run(seed=0)]
    with pytest.raises(TracingError, match="got a second one"), vl.trace(wan.pipe, passes=None):
        wan.pipe.encode_prompt(*TEXTS, max_sequence_length=24, device="cpu")
        for turn in runs if first == "loop" else runs[::-1]:
            turn()
    with pytest.raises(TracingError, match="got a second one"), vl.trace(wan.pipe, passes=("cond",)):
        loop(wan, [text])
        loop(wan, [text])


def test_guidance_that_ends_early_leaves_a_hole_that_is_named(wan: TinyPipeline) -> None:
    pipe = own_wan(wan, guided_steps=1)
    with vl.trace(pipe, capture=vl.Capture(kinds="cross", branch="both")) as run:
        pipe(*TEXTS)
    assert run.tree.attrs["complete"] in (False, 0)
    assert json.loads(run.tree.attrs["missing"]) == {"cross/3x2x3, uncond": [1, 2]}
    with vl.trace(pipe, capture=vl.Capture(kinds="cross")) as run:
        pipe(*TEXTS)
    assert run.tree.attrs["complete"] and "missing" not in run.tree.attrs
