"""Knock-out on every tiny pipeline there is: nothing cut is nothing changed, a word cut is a change, and nothing remains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vico_lens.intervention.knockouts import knockout
from vico_lens.testing.families import _state
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline, tiny_pipelines
from vico_lens.vocabulary.concepts import Concept


def words_of(tiny: TinyPipeline) -> list[Any]:
    encoded = getattr(tiny.pipe, "tokenizer", None) is not None and tiny.kwargs.get("prompt") is not None
    return ["red circle"] if encoded else [Concept("red circle", (2, 3), (0, 0))]


@pytest.mark.parametrize("name", tiny_pipelines())
def test_every_family(name: str) -> None:
    tiny = tiny_pipeline(name)
    plain = tiny.run()
    before = _state(tiny.pipe)
    with knockout(tiny.pipe, []):
        np.testing.assert_array_equal(tiny.run(), plain)
    with knockout(tiny.pipe, words_of(tiny), scale=1.0):
        np.testing.assert_array_equal(tiny.run(), plain)
    with knockout(tiny.pipe, words_of(tiny)) as cut:
        frames = tiny.run()
    assert np.isfinite(frames).all() and not np.array_equal(frames, plain)
    assert cut.edited and min(cut.edited.values()) > 0
    assert _state(tiny.pipe) == before
    np.testing.assert_array_equal(tiny.run(), plain)
