"""The words of a command line before any model is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from vico_lens.cli.options import assignments, call_of
from vico_lens.cli.trace import steps_of
from vico_lens.errors import InputError
from vico_lens.runs.request import check_prompt
from vico_lens.tinyworld import sample_prompts


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_every_tiny_world_prompt_is_accepted(objects: int) -> None:
    for prompt in sample_prompts(50, objects=objects, seed=2):
        check_prompt(str(prompt), bundled=True)


def test_words_outside_the_vocabulary_are_named() -> None:
    with pytest.raises(InputError, match=r"never seen 'crab', 'DJing'; its words are a, above.*--model"):
        check_prompt("a crab DJing and a crab", bundled=True)
    check_prompt("a crab DJing", bundled=False)


@pytest.mark.parametrize("bundled", [True, False])
@pytest.mark.parametrize("prompt", ["", " \n"])
def test_empty_prompt(prompt: str, bundled: bool) -> None:
    with pytest.raises(InputError, match="empty"):
        check_prompt(prompt, bundled=bundled)


@pytest.mark.parametrize(
    ("pairs", "values"),
    [
        (None, {}),
        (
            ["n=16", "kind=hard", 'names=["a", "b"]', "flag=true", "text=a=b"],
            {"n": 16, "kind": "hard", "names": ["a", "b"], "flag": True, "text": "a=b"},
        ),
    ],
)
def test_assignments(pairs: list[str] | None, values: dict[str, Any]) -> None:
    assert assignments(pairs) == values


@pytest.mark.parametrize("pair", ["", "x", "=1", "a b=1", "--x=1"])
def test_wrong_assignments(pair: str) -> None:
    with pytest.raises(InputError, match="NAME=VALUE"):
        assignments([pair])


def test_unnamed_arguments_keep_the_pipelines_own_defaults() -> None:
    assert call_of(None, None, None) == {}
    assert call_of(4, None, ["guidance_scale=2.5"]) == {"num_inference_steps": 4, "guidance_scale": 2.5}


@pytest.mark.parametrize(
    ("text", "steps"), [(None, None), ("3", [3]), ("0,-1", [0, -1]), ("1:9:2", slice(1, 9, 2)), (":", slice(None, None))]
)
def test_steps(text: str | None, steps: slice | list[int] | None) -> None:
    assert steps_of(text) == steps


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "1,,2", "1.5"])
def test_wrong_steps(text: str) -> None:
    with pytest.raises(InputError, match=r"start:stop:every"):
        steps_of(text)
