"""One selection language: the same words select the same in captures, attribution, reading, plots and balancing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import vico_lens as vl
from vico_lens import plot
from vico_lens.errors import InputError
from vico_lens.intervention.balancing.influences import Flow
from vico_lens.store.reading import concept_maps, temporal_matrix
from vico_lens.store.selection import records, text_coordinate
from vico_lens.testing.traces import fake_trace

CONCEPTS = ["red circle", "blue square"]
READERS: dict[str, Callable[..., Any]] = {
    "attribute": lambda tree, **chosen: vl.attribute(tree, "cross_attention", CONCEPTS[:1], **chosen),
    "concept_maps": lambda tree, **chosen: concept_maps(tree, CONCEPTS[:1], **chosen),
    "temporal_matrix": temporal_matrix,
    "plot.temporal_matrix": plot.temporal_matrix_numbers,
}


@pytest.mark.parametrize("layers", ["cross/4x2x2", "*blocks.1*", 4, [4], ["*blocks.1.attn2*", 4]])
def test_layers_select_the_same_site_everywhere(layers: Any) -> None:
    tree = fake_trace()
    cross = [site for site in records(tree, layers=layers) if site.kind == "cross"]
    assert [site.group for site in cross] == ["cross/4x2x2"]
    expected = concept_maps(tree, CONCEPTS, layers=cross[0].module)
    np.testing.assert_array_equal(concept_maps(tree, CONCEPTS, layers=layers), expected)
    read = vl.attribute(tree, "cross_attention", CONCEPTS, layers=layers)
    np.testing.assert_allclose(read, vl.attribute(tree, "cross_attention", CONCEPTS, layers=cross[0].module))
    assert [site.order for site in records(tree) if vl.Capture(layers=layers).wants(site)] == [  # type: ignore[arg-type]
        site.order for site in records(tree, layers=layers)
    ]
    wanted = Flow("subgraph_flow", layers=layers).wanted
    assert wanted is not None and wanted(cross[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"heads": 5}, r"heads: expected one or more of \[0, 1\], which were recorded.*; got 5\."),
        ({"heads": [0, -1]}, r"heads: expected one or more of \[0, 1\], which were recorded.*; got \[0, -1\]\."),
        ({"prompt": 7}, r"prompt: expected one or more of \[0\], which were recorded; got 7\."),
        ({"prompt": -1}, r"prompt: expected one or more of \[0\], which were recorded; got -1\."),
        ({"layers": [99]}, r"layers=\[99\] selects none of the"),
    ],
)
def test_what_was_not_recorded_is_the_same_error_everywhere(reader: str, chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        READERS[reader](fake_trace(), **chosen)


@pytest.mark.parametrize("reader", READERS)
def test_one_head_may_be_given_without_a_list(reader: str) -> None:
    tree = fake_trace()
    one, listed = READERS[reader](tree, heads=1), READERS[reader](tree, heads=[1])
    np.testing.assert_array_equal(one, listed)
    assert not np.array_equal(one, READERS[reader](tree))


@pytest.mark.parametrize("reader", READERS)
def test_a_batch_needs_a_prompt_and_takes_only_its_rows(reader: str) -> None:
    tree = fake_trace(prompt=["a red circle and a dog", "a dog and a red circle"])
    with pytest.raises(InputError, match=r"prompt"):
        READERS[reader](tree)
    with pytest.raises(InputError, match=r"prompt: expected one or more of \[0, 1\].*got 2"):
        READERS[reader](tree, prompt=2)
    first, second = READERS[reader](tree, prompt=0), READERS[reader](tree, prompt=1)
    assert not np.array_equal(first, second)


def test_a_batch_needs_a_prompt_in_maps_and_token_texts() -> None:
    tree = fake_trace(prompt=["a red circle", "a dog"])
    for call in (lambda: plot.attention(tree, "cross/4x4x4"), lambda: text_coordinate(tree, "word")):
        with pytest.raises(InputError, match=r"prompt is needed.*one of \[0, 1\]"):
            call()
    shown = plot.attention_numbers(tree, "cross/4x4x4", step=0, token="dog", prompt=1)
    token = text_coordinate(tree, "word", 1).index("dog")
    np.testing.assert_allclose(shown, tree["cross/4x4x4"].weights.values[0, 1, 0, ..., token].mean(0), atol=1e-6)


def test_negative_steps_count_from_the_end_everywhere() -> None:
    tree = fake_trace()
    last = int(tree.coords["step"].values[-1])
    np.testing.assert_array_equal(concept_maps(tree, CONCEPTS, step=-1), concept_maps(tree, CONCEPTS, step=last))
    read = vl.attribute(tree, "rollout", CONCEPTS, steps=-1)
    np.testing.assert_array_equal(read, vl.attribute(tree, "rollout", CONCEPTS, steps=last))


@pytest.mark.parametrize("branch", ["cond", "uncond"])
def test_the_only_branch_is_read_by_name_or_without(branch: str) -> None:
    tree = fake_trace(branches=(branch,))  # type: ignore[arg-type]
    xr.testing.assert_identical(concept_maps(tree, CONCEPTS), concept_maps(tree, CONCEPTS, branch=branch))
    with pytest.raises(InputError, match=rf"branch: expected one or more of \['{branch}'\]"):
        concept_maps(tree, CONCEPTS, branch="cond" if branch == "uncond" else "uncond")


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
def test_two_functions_give_one_temporal_matrix(family: str) -> None:
    tree = fake_trace(family)  # type: ignore[arg-type]
    np.testing.assert_allclose(plot.temporal_matrix_numbers(tree), temporal_matrix(tree).mean("step"), atol=1e-6)
    np.testing.assert_allclose(plot.temporal_matrix_numbers(tree, step=1), temporal_matrix(tree, step=1), atol=1e-6)
