"""One kernel, two faces: what a balancer differentiates on live calls is what `attribute` reports of the stored trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vico_lens as vl
from vico_lens.attribution import influence_of_stages
from vico_lens.attribution.base import methods
from vico_lens.kernels.stages import stages_from_calls
from vico_lens.testing.traces import fake_calls, fake_sites, fake_tokens, fake_trace

ON_STAGES = [name for name, method in methods().items() if not method.needs_pipe]


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
@pytest.mark.parametrize("name", ON_STAGES)
def test_stored_trace_and_live_calls_agree(family, name):
    sizes = {"grid": (2, 2, 2), "coarse": (2, 1, 1)}
    stored = vl.attribute(fake_trace(family, steps=(0, 1), **sizes), name, ["red circle", "blue square"], steps=1)
    concepts = [concept.tokens for concept in vl.find_concepts(fake_trace(family), ["red circle", "blue square"])]
    calls = fake_calls(fake_sites(family, **sizes), fake_tokens(), step=1)
    for call in calls:
        call.query.requires_grad_()
    live = influence_of_stages(stages_from_calls(calls), concepts, name)
    np.testing.assert_allclose(live.detach(), stored.values, rtol=2e-6, atol=1e-7)
    if methods()[name].differentiable:
        assert live.requires_grad


@pytest.mark.parametrize("name", ON_STAGES)
def test_gradient_of_live_influence_reaches_the_queries(name):
    calls = fake_calls(fake_sites("unet", grid=(2, 2, 2), coarse=None, blocks=1), fake_tokens(), dtype=torch.float64)
    for call in calls:
        call.query.requires_grad_()
    options = {"sink": "frame", "scope": "subgraph"} if name == "max_flow" else {}
    live = influence_of_stages(stages_from_calls(calls), [(2,), (9,)], name, **options)
    live[0].sum().backward()
    reached = [call.site.kind for call in calls if call.query.grad is not None and bool((call.query.grad != 0).any())]
    assert "cross" in reached
