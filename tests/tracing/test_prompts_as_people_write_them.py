"""Prompts that pipelines clean, cut, expand or quote: what a trace says of their tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from vico_lens.cli.app import build_app
from vico_lens.errors import ConceptError
from vico_lens.intervention.balancing import balance
from vico_lens.report.story import cut_line
from vico_lens.store.opening import open_trace
from vico_lens.testing import tiny_pipeline
from vico_lens.tracing.recording import trace
from vico_lens.vocabulary.concepts import Concept, find_concepts

CLEANING = ["wan21-t2v", "skyreels-v2-t2v", "helios-t2v", "anyflow-t2v", "kandinsky5-t2v"]


def traced(name: str, prompt: Any, pipe: Any = None, **changes: Any) -> xr.DataTree:
    torch.set_num_threads(1)
    tiny = tiny_pipeline(name)
    if pipe is not None:
        tiny = pipe
    with tiny.context(), trace(tiny.pipe) as run:
        tiny.run(prompt=prompt, **changes)
    return run.tree


def spelled(tree: xr.DataTree, concept: Concept) -> str:
    prompt = tree.attrs["prompt"]
    spans = zip(tree.token_start.values, tree.token_stop.values, strict=True)
    return "".join(prompt[a:b] for token, (a, b) in enumerate(spans) if token in concept.tokens)


@pytest.mark.parametrize("name", CLEANING)
@pytest.mark.parametrize("prompt", ["“red” star’s circle &amp; a blue square", "a ﬁ red，circle and a blue square"])
def test_a_pipeline_that_cleans_its_prompt_loses_no_word(name: str, prompt: str) -> None:
    tree = traced(name, prompt)
    circle, square = find_concepts(tree, ["circle", "blue square"])
    assert (spelled(tree, circle), spelled(tree, square)) == ("circle", "bluesquare")
    assert tree.attrs["prompt_cut"] == ""
    text = tree.token_text.values[tree.token_kind.values == "text"]
    assert "square" in text[-1]


def test_a_cut_prompt_is_a_warning_an_attribute_and_a_line(tmp_path: Path) -> None:
    prompt = "a red circle and a blue square and a green star, a red triangle and a yellow star"
    tiny = tiny_pipeline("wan21-t2v")
    store = tmp_path / "cut.zarr"
    with (
        pytest.warns(UserWarning, match="no token in what WanPipeline gives.*'star, a red triangle and a yellow star'"),
        trace(tiny.pipe, to=store),
    ):
        tiny.run(prompt=prompt, max_sequence_length=12)
    tree = open_trace(store)
    assert tree.attrs["prompt_cut"] == "star, a red triangle and a yellow star"
    assert find_concepts(tree, ["blue square"])[0].name == "blue square"
    with pytest.raises(ConceptError, match="'yellow star' lies beyond the 12 tokens"):
        find_concepts(tree, ["yellow star"])
    shown = CliRunner().invoke(build_app(), ["inspect", str(store)]).stdout
    assert "no token for this part of the prompt: star, a red triangle and a yellow star" in shown
    told = json.loads(CliRunner().invoke(build_app(), ["inspect", str(store), "--json"]).stdout)
    assert told["attributes"]["prompt_cut"] == tree.attrs["prompt_cut"]
    line = cut_line(tree.attrs["prompt_cut"])
    assert line is not None and "a red triangle and a yellow star" in str(line)


def test_each_prompt_of_a_batch_has_its_own_cut() -> None:
    prompts = ["a red circle", "a red circle and a blue square and a green star and a red triangle"]
    tiny = tiny_pipeline("wan21-t2v")
    with pytest.warns(UserWarning, match="'a red triangle'"), trace(tiny.pipe) as run:
        tiny.run(prompt=prompts, negative_prompt=["still"] * 2, max_sequence_length=14)
    assert run.tree.attrs["prompt_cut"] == ["", "a red triangle"]


def test_a_balanced_run_warns_of_a_cut_too() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    prompt = " and ".join(["a red circle", "a blue square", "a green star", "a yellow triangle", "a red square", "a blue star"])
    with (
        pytest.warns(UserWarning, match="no token in what AnimateDiffPipeline"),
        balance(tiny.pipe, ["circle", "square"]),
    ):
        tiny.run(prompt=prompt)


def test_a_word_with_several_vectors_has_the_tokens_of_all() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    pipe = tiny.pipe
    pipe.load_textual_inversion(torch.ones(3, pipe.text_encoder.config.hidden_size), token="<toy>")
    prompt = "a red <toy> and a blue square"
    tree = traced("animatediff-t2v", prompt, tiny)
    pieces = list(tree.token_text.values)
    first = pieces.index("<toy>")
    assert pieces[first : first + 3] == ["<toy>", "<toy>_1", "<toy>_2"]
    toy, red_toy, square = find_concepts(tree, ["<toy>", "red <toy>", "blue square"])
    assert toy.tokens == (first, first + 1, first + 2) and red_toy.tokens == (first - 1, *toy.tokens)
    assert spelled(tree, square) == "bluesquare" and tree.attrs["prompt_cut"] == ""
    assert find_concepts(prompt, ["<toy>", "blue square"], pipe.tokenizer) == [toy, square]


def slots(tree: xr.DataTree) -> tuple[np.ndarray, list[str]]:
    """Kinds and pieces of the second encoder's tokens of the tiny HunyuanVideo 1.5, of which there are 12."""
    return tree.token_kind.values[-12:], [str(piece) for piece in tree.token_text.values[-12:]]


def test_quoted_text_has_tokens_of_the_second_encoder_and_none_without_quotes() -> None:
    tree = traced("hunyuan15-t2v", 'a red circle and a sign "up"')
    kinds, pieces = slots(tree)
    assert "".join(pieces[:10]) == 'Text "up".'
    assert list(kinds) == ["special"] * 6 + ["text"] * 2 + ["special"] * 4  # quote, dot, blank, end
    (sign,) = find_concepts(tree, ["up"])
    first = len(tree.token) - 12
    assert {first + 6, first + 7} < set(sign.tokens) and min(sign.tokens) < first
    assert tree.attrs["prompt_cut"] == ""
    kinds, pieces = slots(traced("hunyuan15-t2v", "a red circle"))
    assert set(kinds) == {"padding"} and set(pieces) == {""}
