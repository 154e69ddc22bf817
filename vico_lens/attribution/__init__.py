"""How much each concept of the prompt influences each token of the video, by a method of your choice.

A trace (or live attention calls) and concepts come in, an influence (``concept, step, frame, y, x``) goes out: `attribute` runs a
method, `base.methods` lists them with what they declare, `register_method` adds one. Importing this package registers the
built-in methods; captum and diffusers are imported only when a method that needs them runs. It imports `store`, `tracing` and
`kernels`.
"""

from __future__ import annotations

from vico_lens.attribution.base import Answer, Method, Problem, influence_of_stages, register_method
from vico_lens.attribution.facade import DEFAULT_METHOD, attribute
from vico_lens.attribution.methods import (
    captum_methods,
    cross_attention,
    leave_one_out,
    max_flow,
    rollout,
    subgraph_flow,
    widest_path,
)
from vico_lens.attribution.trace_stages import stages_from_trace

__all__ = [
    "DEFAULT_METHOD",
    "Answer",
    "Method",
    "Problem",
    "attribute",
    "captum_methods",
    "cross_attention",
    "influence_of_stages",
    "leave_one_out",
    "max_flow",
    "register_method",
    "rollout",
    "stages_from_trace",
    "subgraph_flow",
    "widest_path",
]
