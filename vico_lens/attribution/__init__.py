"""How much each concept of the prompt influences each token of the video, by a method of your choice.

A trace (or live attention calls) and concepts come in, an influence (``concept, step, frame, y, x``) goes out: `attribute` runs a
method, `base.methods` lists them with what they declare, `register_method` adds one. The built-in methods are registered at the
first look-up; torch, captum and diffusers are imported only when something that needs them runs. It imports `store`, `tracing`
and `kernels`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vico_lens.attribution.base import Answer, Method, Problem, influence_of_stages, register_method
    from vico_lens.attribution.facade import DEFAULT_METHOD, attribute
    from vico_lens.attribution.trace_stages import stages_from_trace

__all__ = [
    "DEFAULT_METHOD",
    "Answer",
    "Method",
    "Problem",
    "attribute",
    "influence_of_stages",
    "register_method",
    "stages_from_trace",
]

_HOME = {"DEFAULT_METHOD": "facade", "attribute": "facade", "stages_from_trace": "trace_stages"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'base')}"), name)
