"""Every method on real traces: the bundled model and three random-initialised families. It runs, or it says why it cannot."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import vico_lens as vl
from vico_lens.attribution.methods.max_flow import sink_dims
from vico_lens.errors import AttributionError, InputError
from vico_lens.kernels.certificate import SATURATED
from vico_lens.testing.pipelines import tiny_pipeline

FAMILIES = {"UNet": "animatediff-t2v", "full 3-D": "wan21-t2v", "joint": "cogvideox-t2v", "bundled": None}
PROMPT = "a red circle moving right and a blue square moving up"
# What keeps a test short; the method is the same.
SHORT = {"max_flow": {"sink": "frame"}, "integrated_gradients": {"n_steps": 2}, "shapley_values": {"n_samples": 2}}


@pytest.fixture(scope="module", params=list(FAMILIES))
def traced(request):
    name = FAMILIES[request.param]
    if name is None:
        pipe = vl.load_pipeline()
        pipe.set_progress_bar_config(disable=True)
        with vl.trace(pipe, capture=vl.Capture(steps=[2])) as run:
            pipe(PROMPT, num_inference_steps=3, generator=torch.Generator().manual_seed(3), output_type="np")
        return pipe, run.tree, ["red circle", "blue square"]
    tiny = tiny_pipeline(name)
    with vl.trace(tiny.pipe, capture=vl.Capture(steps=[1])) as run:
        tiny.run(seed=3)
    return tiny.pipe, run.tree, {"one": [1], "two": [3]}


@pytest.mark.parametrize("method", sorted(vl.methods()))
def test_it_runs_and_names_what_it_gives(traced, method):
    pipe, tree, concepts = traced
    declared = vl.methods()[method]
    model = {"pipe": pipe} if declared.needs_pipe else {}
    influence = vl.attribute(tree, method, concepts, grid="coarsest", **model, **SHORT.get(method, {}))
    assert influence.dims[:2] == ("concept", "step") and influence.sizes["concept"] == 2 and influence.attrs["method"] == method
    assert bool(np.isfinite(influence).all()) and float(abs(influence).sum()) > 0


@pytest.mark.parametrize("sink", ["video", "frame"])
def test_saturation_is_reported_for_each_step_and_depth(traced, sink):
    _, tree, concepts = traced
    flow = vl.attribute(tree, "max_flow", concepts, grid="coarsest", sink=sink, per_layer=True)
    assert flow.dims == ("concept", "step", "layer", *sink_dims(sink)[1:])
    assert flow["saturated"].dims == flow.dims and set(np.unique(flow["saturated"])) <= set(SATURATED)
    assert float(abs(flow["gap"]).max()) <= 1e-9
    np.testing.assert_allclose(flow["cut"], flow, rtol=1e-9)
    shares = json.loads(flow.attrs["saturated_share"])
    assert set(shares) <= set(SATURATED) and sum(shares.values()) == pytest.approx(1)
    # Cut at the source, the flow is the injected cross-attention and nothing else.
    whole = vl.AttentionGraph.from_trace(tree, int(tree["step"][0]), grid="coarsest").max_flow(concepts, sink)
    at_source = (whole["saturated"] == "source").values
    injected = whole["cut_by_place"].isel(place=0).values
    np.testing.assert_allclose(whole["value"].values[at_source], injected[at_source], rtol=1e-9)


def test_a_text_that_cannot_be_replaced_is_said_so():
    """This family moves the padding of its text about: methods on the trace run, those that edit the text say why they cannot."""
    tiny = tiny_pipeline("hunyuan15-t2v")
    with vl.trace(tiny.pipe, capture=vl.Capture(steps=[1])) as run:
        tiny.run(seed=3)
    concepts = {"one": [1], "two": [3]}
    assert bool(np.isfinite(vl.attribute(run.tree, "rollout", concepts, grid="coarsest")).all())
    for method, declared in vl.methods().items():
        if declared.needs_pipe:
            with pytest.raises(
                AttributionError, match=r"expected a denoiser with one text state.*use a method that works on the trace"
            ):
                vl.attribute(run.tree, method, concepts, pipe=tiny.pipe)


def test_a_guider_of_another_scale_than_the_traced_one_is_refused():
    """The call of this pipeline takes no guidance scale, so replay cannot set it: it compares the guider with the trace."""
    tiny = tiny_pipeline("hunyuan15-t2v")
    with vl.trace(tiny.pipe, capture=vl.Capture(steps=[1])) as run:
        tiny.run(seed=3)
    traced = run.tree.attrs["guidance_scale"]
    tiny.pipe.guider = tiny.pipe.guider.new(guidance_scale=traced + 1)
    with pytest.raises(InputError, match=rf"guidance_scale={traced}, to sample the clip again; it has {traced + 1}"):
        vl.attribute(run.tree, "leave_one_out", {"one": [1], "two": [3]}, pipe=tiny.pipe)
