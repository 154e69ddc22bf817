"""Attribution: how much each concept of the prompt influences each token of the video, by a method of your choice.

`attribute` runs a method on a trace, `methods` lists them with what they declare, `register_method` adds one. Importing this
package registers the built-in methods; captum and diffusers are imported only when a method that needs them runs.
"""

from __future__ import annotations

from vico_lens.attribution import captum_methods, cross_attention, leave_one_out, max_flow, rollout, subgraph_flow, widest_path
from vico_lens.attribution.base import Answer, Method, Problem, influence_of_stages, methods, register_method
from vico_lens.attribution.facade import DEFAULT_METHOD, attribute
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
    "methods",
    "register_method",
    "rollout",
    "stages_from_trace",
    "subgraph_flow",
    "widest_path",
]
