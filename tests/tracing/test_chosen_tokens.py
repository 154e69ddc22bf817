"""Capture(tokens=...): columns of chosen words only, equal to those of the whole trace."""

from __future__ import annotations

import numpy as np
import pytest

import vico_lens as vl
from vico_lens.errors import InputError
from vico_lens.store.layout import attention_groups
from vico_lens.store.reading import concept_maps
from vico_lens.store.validation import validate_trace
from vico_lens.testing.pipelines import tiny_pipeline


def test_only_the_columns_of_chosen_words_are_recorded() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    with vl.trace(tiny.pipe, capture=vl.Capture(kinds=("cross", "temporal"), steps=[0, -1])) as whole:
        plain = tiny.run(seed=0)
    capture = vl.Capture(kinds=("cross", "temporal"), steps=[0, -1], tokens=["red circle", 0], budget="2MB")
    with vl.trace(tiny.pipe, capture=capture) as part:
        assert np.array_equal(plain, tiny.run(seed=0))
    validate_trace(part.tree)
    tokens = sorted({0, *vl.find_concepts(whole.tree, ["red circle"])[0].tokens})
    assert part.tree.coords["token_text"].values.tolist() == whole.tree.coords["token_text"].values[tokens].tolist()
    for name, kind, _, node in attention_groups(whole.tree):
        expected = node["weights"].isel(token=tokens) if kind == "cross" else node["weights"]
        np.testing.assert_allclose(part.tree[name]["weights"], expected, atol=2e-7)
    maps = concept_maps(part.tree, ["red circle"])
    np.testing.assert_allclose(maps, concept_maps(whole.tree, ["red circle"]), atol=1e-6)
    table = vl.estimate(tiny.pipe, tiny.prompt, capture=capture, **{k: v for k, v in tiny.kwargs.items() if k != "prompt"})
    stored = sum(node["weights"].nbytes for _, kind, _, node in attention_groups(part.tree) if kind == "cross")
    planned = int(table.stored_bytes.values[table.kind.values == "cross"].sum())
    assert stored <= planned


def test_tokens_of_a_joint_softmax_are_refused() -> None:
    tiny = tiny_pipeline("cogvideox-t2v")
    with (
        pytest.raises(InputError, match="text and video share one softmax"),
        vl.trace(tiny.pipe, capture=vl.Capture(tokens="red")),
    ):
        tiny.run(seed=0)
    for wrong in ([], [-1], [1.5]):
        with pytest.raises(InputError, match="words or positions of tokens"):
            vl.Capture(tokens=wrong)  # type: ignore[arg-type]
