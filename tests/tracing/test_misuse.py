"""What goes wrong around a trace, and must be said at once: a run used twice, a capture of nothing, kernels that vanish."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import vico_lens as vl
from vico_lens.errors import InputError, StoreError, TracingError
from vico_lens.store.background import Background
from vico_lens.store.reading import concept_maps, temporal_matrix
from vico_lens.testing import TinyPipeline, fake_trace, tiny_pipeline


@pytest.fixture(scope="module")
def latte() -> TinyPipeline:
    return tiny_pipeline("latte-t2v")


def test_a_run_is_entered_once(latte: TinyPipeline) -> None:
    run = vl.trace(latte.pipe, capture=vl.Capture(steps=0, kinds="cross"))
    with run:
        latte.run(seed=0)
    steps = run.tree.sizes["step"]
    with pytest.raises(TracingError, match="second `with`"), run:
        latte.run(seed=0)
    assert run.tree.sizes["step"] == steps


@pytest.mark.parametrize("wrong", ["wan", None, Path("models/wan"), TinyPipeline])
def test_what_is_no_pipeline_yet_is_to_be_loaded_first(wrong: Any, tmp_path: Path) -> None:
    calls = (
        lambda: vl.trace(wrong),
        lambda: vl.trace(wrong, to=tmp_path / "run.zarr"),
        lambda: vl.estimate(wrong, "a red circle"),
    )
    for call in calls:
        with pytest.raises(InputError, match=r"expected a loaded pipeline, got .*vl\.load_pipeline\(") as told:
            call()
        assert repr(wrong) in str(told.value) and "Register" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_a_stopped_thread_takes_no_work() -> None:
    work = Background(10)
    work.stop()
    with pytest.raises(RuntimeError, match="before stop"):
        work.submit(lambda: None)


@pytest.mark.parametrize("nothing", [{"layers": "nope*"}, {"kinds": "joint"}])
def test_a_capture_of_nothing_is_refused_at_the_first_forward(latte: TinyPipeline, nothing: dict[str, Any]) -> None:
    forwards = []
    handle = latte.pipe.transformer.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        with (
            pytest.raises(TracingError, match=r"select some attention site.*cross/4x4x6"),
            vl.trace(latte.pipe, capture=vl.Capture(**nothing)),
        ):
            latte.run(seed=0)
    finally:
        handle.remove()
    assert len(forwards) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 1.5},
        {"steps": True},
        {"steps": slice(0, None, "a")},
        {"steps": slice(0, None, 0)},
        {"heads": 1.5},
        {"heads": slice(2)},
        {"kinds": []},
        {"layers": []},
        {"layers": [3.5]},
        {"layers": True},
    ],
)
def test_a_policy_of_the_wrong_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        vl.Capture(**wrong)


def test_numbers_of_numpy_are_numbers() -> None:
    capture = vl.Capture(steps=np.arange(0, 9, 4), heads=np.int64(1))
    assert capture == vl.Capture(steps=(0, 4, 8), heads=1)
    assert '"steps": [0, 4, 8]' in capture.to_json()


@pytest.mark.parametrize(
    ("to", "error"), [("s3://bucket/run.zarr", StoreError), ("", StoreError), (".", StoreError), (b"run.zarr", InputError)]
)
def test_a_place_that_is_no_local_path_is_refused(
    latte: TinyPipeline, to: Any, error: type[Exception], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        vl.trace(latte.pipe, to=to)
    assert not list(tmp_path.iterdir())


def test_home_is_found(latte: TinyPipeline, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with vl.trace(latte.pipe, to="~/run.zarr", capture=vl.Capture(steps=0, kinds="cross")):
        latte.run(seed=0)
    assert (tmp_path / "run.zarr").is_dir()
    assert "cross" in vl.open_trace("~/run.zarr")


@pytest.mark.parametrize("form", ["weights", "factors"])
@pytest.mark.parametrize("chunks", [None, {}])
def test_a_tree_can_be_sent_to_another_process(form: Any, chunks: Any, tmp_path: Any) -> None:
    fake_trace(to=tmp_path / "run.zarr", form=form)
    tree = vl.open_trace(tmp_path / "run.zarr", chunks=chunks)
    xr.testing.assert_identical(pickle.loads(pickle.dumps(tree)).load(), tree.load())


def test_reading_refuses_a_half_or_a_row_that_is_not_there() -> None:
    tree = fake_trace()
    with pytest.raises(InputError, match=r"branch: expected one or more of \['cond'\]"):
        concept_maps(tree, ["red circle"], branch="uncond")
    with pytest.raises(InputError, match=r"prompt: expected one or more of \[0\]"):
        temporal_matrix(tree, prompt=1)


def test_attention_that_vanishes_after_the_first_step_is_named(latte: TinyPipeline) -> None:
    """Caches of attention outputs (pyramid attention broadcast) compute the first steps and repeat them later."""
    module = latte.pipe.transformer.transformer_blocks[1].attn1
    computed: list[Any] = []
    stock = module.forward

    def cached(*args: Any, **kwargs: Any) -> Any:
        computed.append(computed[0] if computed else stock(*args, **kwargs))
        return computed[0]

    module.forward = cached
    try:
        with pytest.raises(TracingError, match=r"transformer_blocks\.1\.attn1"), vl.trace(latte.pipe):
            latte.run(seed=0)
    finally:
        del module.forward


def test_a_block_that_is_skipped_after_the_first_step_is_named(latte: TinyPipeline) -> None:
    """Caches of blocks do not even call the module."""
    block = latte.pipe.transformer.transformer_blocks[1]
    computed: list[Any] = []
    stock = block.forward

    def cached(*args: Any, **kwargs: Any) -> Any:
        computed.append(computed[0] if computed else stock(*args, **kwargs))
        return computed[0]

    block.forward = cached
    try:
        with pytest.raises(TracingError, match=r"transformer_blocks\.1\.attn1"), vl.trace(latte.pipe):
            latte.run(seed=0)
    finally:
        del block.forward


@pytest.mark.parametrize("name", ["hunyuan15-t2v"])  # a parameter, so that an older diffusers skips it by name
def test_a_further_pass_of_a_step_does_not_replace_the_conditional_one(name: str) -> None:
    """Skip-layer guidance runs the denoiser a third time, with the very same text states."""
    from diffusers.guiders import SkipLayerGuidance
    from diffusers.hooks import LayerSkipConfig

    tiny = tiny_pipeline(name)
    capture = vl.Capture(
        steps=1, dtype="float32", store="factors"
    )  # the guider leaves step 0 alone: both runs reach step 1 alike
    with vl.trace(tiny.pipe, capture=capture) as plain:
        tiny.run(seed=0)
    tiny.pipe.guider = SkipLayerGuidance(
        guidance_scale=tiny.pipe.guider.guidance_scale,
        skip_layer_guidance_scale=2.0,
        skip_layer_guidance_start=0.0,
        skip_layer_guidance_stop=1.0,
        skip_layer_config=LayerSkipConfig(indices=[0], fqn="transformer_blocks", skip_attention=False),
    )
    counted = []
    handle = tiny.pipe.transformer.register_forward_pre_hook(lambda *_: counted.append(1))
    try:
        with vl.trace(tiny.pipe, capture=capture) as guided:
            tiny.run(seed=0)
    finally:
        handle.remove()
    assert len(counted) > 2 * tiny.kwargs["num_inference_steps"], "the guider made no third pass"
    group = next(node.path for node in plain.tree.subtree if node.path.startswith("/joint/"))
    for block in ("video_text", "video_video"):
        torch.testing.assert_close(
            torch.from_numpy(guided.tree[group][block].values), torch.from_numpy(plain.tree[group][block].values)
        )


def test_chosen_heads_keep_their_numbers(latte: TinyPipeline) -> None:
    with vl.trace(latte.pipe, capture=vl.Capture(steps=0, kinds="cross")) as whole:
        latte.run(seed=0)
    with vl.trace(latte.pipe, capture=vl.Capture(steps=0, kinds="cross", heads=[1, 1])) as part:
        latte.run(seed=0)
    group = next(node.path for node in part.tree.subtree if node.path.startswith("/cross/"))
    chosen = part.tree[group].to_dataset().weights
    assert chosen.coords["head"].values.tolist() == [1]
    np.testing.assert_array_equal(chosen.sel(head=1).values, whole.tree[group].to_dataset().weights.isel(head=1).values)
    one = concept_maps(whole.tree, ["circle"], heads=[1])
    np.testing.assert_allclose(concept_maps(part.tree, ["circle"], heads=[1]).values, one.values, atol=1e-7)
    with pytest.raises(InputError, match=r"heads: expected one or more of \[1\], .*got 0"):
        concept_maps(part.tree, ["circle"], heads=[0])
