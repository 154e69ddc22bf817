"""The test kit: tiny pipelines, synthetic traces, and checks of a trace and of a model family.

The project tests itself with it, and so can whoever adds a family or a method. A name or a pipeline comes in, a tiny pipeline, a
trace or an `AssertionError` goes out; no model is downloaded. It may import every room but `cli`;
no room imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vico_lens.testing.assertions import assert_traces_close, assert_valid_trace
    from vico_lens.testing.families import FamilyReport, check_family
    from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline, tiny_pipelines
    from vico_lens.testing.traces import fake_calls, fake_trace

__all__ = [
    "FamilyReport",
    "TinyPipeline",
    "assert_traces_close",
    "assert_valid_trace",
    "check_family",
    "fake_calls",
    "fake_trace",
    "tiny_pipeline",
    "tiny_pipelines",
]

_HOME = {
    "FamilyReport": "families",
    "TinyPipeline": "pipelines",
    "assert_traces_close": "assertions",
    "assert_valid_trace": "assertions",
    "check_family": "families",
    "fake_calls": "traces",
    "fake_trace": "traces",
    "tiny_pipeline": "pipelines",
    "tiny_pipelines": "pipelines",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
