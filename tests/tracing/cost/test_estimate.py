"""The plan against what is then stored, and the pipeline untouched by planning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vico_lens.errors import TracingError
from vico_lens.store.tracefile import TraceFile
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline
from vico_lens.tracing.capture import Capture
from vico_lens.tracing.cost import timing
from vico_lens.tracing.cost.estimate import estimate
from vico_lens.tracing.cost.published_models import native_sizes
from vico_lens.tracing.recording import trace
from vico_lens.tracing.tracer import Tracer
from vico_lens.vocabulary.schema import AttentionCall


class Counter:
    """A sink that adds up what it is handed."""

    def __init__(self) -> None:
        self.weights = self.factors = 0

    def start(self, *_: Any, **__: Any) -> None: ...

    def write(self, call: AttentionCall) -> None:
        assert call.query is not None and call.key is not None
        keys = call.key.shape[2:-1] if call.site.kind in ("spatial",) else call.key.shape[3:-1]
        keys = keys if call.site.kind in ("spatial", "temporal") else call.key.shape[1:-1]
        self.weights += call.query[..., 0].numel() * int(np.prod(keys)) * 4
        self.factors += (call.query.numel() + call.key.numel()) * 4

    def finish_step(self, step: int) -> None: ...

    def annotate(self, attrs: Any) -> None: ...


def arguments(tiny: TinyPipeline) -> dict[str, Any]:
    return {name: value for name, value in tiny.kwargs.items() if name != "prompt"}


@pytest.mark.parametrize("name", ["latte-t2v", "cogvideox-t2v", "wan21-t2v", "mochi-t2v"])
@pytest.mark.parametrize("capture", [Capture(), Capture(steps=slice(0, 2), branch="both", heads=[1])], ids=["all", "some"])
def test_bytes_are_those_of_what_is_handed_on(name: str, capture: Capture) -> None:
    tiny, counter = tiny_pipeline(name), Counter()
    with tiny.context():
        table = estimate(tiny.pipe, tiny.prompt, capture=capture, **arguments(tiny))
    with Tracer(tiny.pipe, capture, counter):  # type: ignore[arg-type]
        tiny.run(seed=0)
    if name == "mochi-t2v" and capture.branch == "both":  # the halves keep different numbers of text tokens
        assert int(table.factors_bytes.sum()) == pytest.approx(counter.factors, rel=0.3)
        return
    assert int(table.weights_bytes.sum()) == counter.weights
    assert int(table.factors_bytes.sum()) == counter.factors
    assert (
        int(table.total_bytes) == int(np.minimum(table.weights_bytes, table.factors_bytes).sum()) == int(table.stored_bytes.sum())
    )
    assert table.attrs["forward"] == ("real" if name == "mochi-t2v" else "fake")


def test_planning_changes_neither_weights_nor_random_numbers_nor_the_next_video() -> None:
    tiny = tiny_pipeline("latte-t2v")
    plain = tiny.run(seed=0)
    weights = {name: value.clone() for name, value in tiny.pipe.transformer.state_dict().items()}
    state = torch.get_rng_state()
    estimate(tiny.pipe, tiny.prompt, **arguments(tiny))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weights[name], value) for name, value in tiny.pipe.transformer.state_dict().items())
    assert np.array_equal(plain, tiny.run(seed=0))


def test_the_plan_names_the_sites_of_the_trace() -> None:
    tiny = tiny_pipeline("latte-t2v")
    table = estimate(tiny.pipe, tiny.prompt, capture=Capture(kinds="temporal"), **arguments(tiny))
    with trace(tiny.pipe, capture=Capture(kinds="temporal", steps=0)) as run:
        tiny.run(seed=0)
    assert run.tree["temporal/4x4x6"].module.values.tolist() == table.site.values.tolist()
    assert table.kind.values.tolist() == ["temporal", "temporal"] and int(table.steps) == 3


def test_published_sizes_agree_with_what_is_known_of_them() -> None:
    sizes = native_sizes(Capture(branch="cond"))
    cog = sizes.sel(model="CogVideoX-2b")
    # 30 layers, 30 heads, 17,776 keys of 64 channels, 50 steps, two bytes: 28 TB as maps (the whole softmax), 0.2 TB as factors
    assert int(cog.weights_bytes) == 50 * 30 * 30 * 17_776**2 * 2
    assert int(cog.factors_bytes) == 50 * 30 * 30 * 2 * 17_776 * 64 * 2
    assert sizes.ratio.sel(model="HunyuanVideo") > 200
    assert (sizes.stored_bytes <= sizes.factors_bytes).all() and (sizes.stored_bytes <= sizes.weights_bytes).all()
    few = native_sizes(Capture(steps=slice(0, None, 10), kinds="cross", heads=[0]))
    assert few.sites.sel(model="CogVideoX-5b") == 0 and few.sites.sel(model="Wan 2.1 14B") == 40
    assert (few.stored_bytes < sizes.stored_bytes / 100).all()


def test_a_model_without_weights_is_estimated_from_its_configuration() -> None:
    """Built on the device "meta": the same numbers as with weights; a model that must look into its inputs says so."""
    from diffusers import WanTransformer3DModel

    tiny = tiny_pipeline("wan21-t2v")
    call = {name: value for name, value in tiny.kwargs.items() if name != "prompt"}
    known = estimate(tiny.pipe, tiny.prompt, **call)
    config = {name: value for name, value in tiny.pipe.transformer.config.items() if not name.startswith("_")}
    with torch.device("meta"):
        tiny.pipe.transformer = WanTransformer3DModel(**config).eval()
    absent = estimate(tiny.pipe, tiny.prompt, **call)
    assert absent.attrs["forward"] == "fake"
    np.testing.assert_array_equal(absent.stored_bytes, known.stored_bytes)
    mochi = tiny_pipeline("mochi-t2v")
    mochi.pipe.transformer.to("meta")
    with mochi.context(), pytest.raises(TracingError, match="random ones will do"):
        estimate(mochi.pipe, mochi.prompt, **{name: value for name, value in mochi.kwargs.items() if name != "prompt"})


@pytest.mark.parametrize(
    ("name", "capture", "forwards", "recorded"),
    [
        ("wan21-t2v", Capture(branch="both"), 6, 6),  # branches in passes of their own
        ("animatediff-t2v", Capture(store="weights", heads=[1], steps=[0, 2]), 3, 2),
    ],
)
def test_a_measured_step_is_multiplied_by_the_forwards_of_the_run(
    monkeypatch: pytest.MonkeyPatch, name: str, capture: Capture, forwards: int, recorded: int
) -> None:
    """A clock that counts the calls of the denoiser and the bytes handed to the writer, in place of seconds."""
    tiny, clock = tiny_pipeline(name), {"forwards": 0, "bytes": 0}
    put = TraceFile.put

    def counting(file: TraceFile, stored: Any, branch: int, prompt: int) -> None:
        arrays = stored.arrays()
        clock["bytes"] += sum(values.nbytes for _, values in arrays.values())
        put(file, replace(stored, arrays=lambda: arrays), branch, prompt)

    def count(*_: Any) -> None:
        clock["forwards"] += 1

    denoiser = getattr(tiny.pipe, "transformer", None) or tiny.pipe.unet
    monkeypatch.setattr(TraceFile, "put", counting)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock["forwards"] * 1e9 + clock["bytes"])
    with tiny.context():
        clock["forwards"] = 0
        handle = denoiser.register_forward_pre_hook(count)
        table = estimate(tiny.pipe, tiny.prompt, capture=capture, measure=True, **arguments(tiny))
        handle.remove()
    assert float(table.seconds_untraced) == forwards * 1e9
    assert float(table.seconds) - forwards * 1e9 == pytest.approx(int(table.total_bytes), rel=1e-6)
    assert recorded * 1e9 <= float(table.seconds)


def test_seconds_are_only_measured_when_asked_for_and_need_weights() -> None:
    tiny = tiny_pipeline("wan21-t2v")
    assert "seconds" not in estimate(tiny.pipe, tiny.prompt, **arguments(tiny))
    tiny.pipe.transformer.to("meta")
    with pytest.raises(TracingError, match="to have weights for measure=True"):
        estimate(tiny.pipe, tiny.prompt, measure=True, **arguments(tiny))


def test_a_call_that_the_model_refuses_is_refused_by_the_plan_in_one_line() -> None:
    tiny = tiny_pipeline("wan21-t2v")
    with pytest.raises(TracingError, match="The pipeline call itself would fail in the same way: check its height"):
        estimate(tiny.pipe, "a red circle")
