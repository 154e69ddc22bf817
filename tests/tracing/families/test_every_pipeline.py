"""Every video pipeline of the installed diffusers is traced, or refused by name with a reason."""

from __future__ import annotations

import pytest

from tools.video_pipelines import treatment, video_pipelines
from vico_lens.errors import TracingError
from vico_lens.tracing.families import FAMILIES, family_of
from vico_lens.tracing.families.refused import REFUSED


def test_every_video_pipeline_of_diffusers_was_looked_at() -> None:
    listed = video_pipelines()
    assert {"WanPipeline", "StableVideoDiffusionPipeline", "WanModularPipeline", "AnimateDiffPipeline"} <= set(listed)
    assert [name for name in listed if not treatment(name)] == []


def test_no_class_is_both_traced_and_refused() -> None:
    assert not REFUSED.keys() & {name for key in FAMILIES for name in FAMILIES[key].pipelines}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refusal_names_the_class_and_the_reason(name: str) -> None:
    pipe = type(name, (), {})()
    with pytest.raises(TracingError, match=rf"got {name}: {REFUSED[name][:20]}.*vico_lens\.families"):
        family_of(pipe)
