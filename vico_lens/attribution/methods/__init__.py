"""The attribution methods, one family a file; each registers itself under its public name.

Stages or sites of one denoising step come in, one map a concept goes out. A new method is one new file here.
"""

from vico_lens.attribution.methods import (
    captum_methods,
    cross_attention,
    leave_one_out,
    max_flow,
    rollout,
    subgraph_flow,
    widest_path,
)

__all__ = ["captum_methods", "cross_attention", "leave_one_out", "max_flow", "rollout", "subgraph_flow", "widest_path"]
