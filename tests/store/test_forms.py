"""Both forms of storage against eager softmax: any kind, grid, heads, dtype and mask."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vico_lens.errors import StoreError
from vico_lens.store.writer import TraceWriter
from vico_lens.testing.assertions import assert_traces_close, assert_valid_trace
from vico_lens.testing.eager import eager_tree, eager_weights
from vico_lens.testing.strategies import calls
from vico_lens.testing.traces import fake_calls, fake_sites, fake_tokens, fake_trace, record
from vico_lens.vocabulary.schema import AttentionCall, AttentionSite, TokenTable


def tokens(count: int) -> TokenTable:
    text, place = ("a",) * count, (0,) * count
    return TokenTable(text, ("text",) * count, text, place, place, place)


def stored(call: AttentionCall, form: str, dtype: str = "float32", count: int | None = None) -> xr.DataTree:
    table = tokens(call.site.tokens if count is None else count)
    return record(TraceWriter(None, form=form, dtype=dtype), [call], [table], {"prompt": ""}, steps=[0])  # type: ignore[arg-type]


@given(calls(), st.sampled_from(["weights", "factors"]))
def test_stored_weights_equal_eager_softmax(call: AttentionCall, form: str) -> None:
    tree = stored(call, form)
    for name, expected in eager_weights(call).items():
        got = tree[call.site.group][name].values[0, 0]
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


@given(calls(), st.sampled_from(["weights", "factors", "auto"]))
def test_half_precision_on_disk_stays_close_and_finite(call: AttentionCall, form: str) -> None:
    """The model's own half precision loses nothing in factors; float32 squeezed into float16 loses what float16 loses."""
    tree = stored(call, form, dtype="model")
    exact = form == "factors" or call.query is None
    for name, expected in eager_weights(call).items():
        got = tree[call.site.group][name].values[0, 0]
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 if exact else 5e-4)


@settings(max_examples=20)
@given(calls(), st.data())
def test_any_slice_is_the_slice_of_the_whole(call: AttentionCall, data: st.DataObject) -> None:
    tree = stored(call, "factors")
    for name, variable in tree[call.site.group].to_dataset().data_vars.items():
        pick = {}
        for dim in variable.dims:
            size = variable.sizes[dim]
            parts = st.slices(size).filter(lambda part, size=size: len(range(size)[part]))  # xarray fails on [0:0:-1] itself
            picks = st.lists(st.integers(0, size - 1), max_size=3)
            pick[dim] = data.draw(st.one_of(st.integers(-size, size - 1), parts, picks))
        got = variable.isel(pick).values
        np.testing.assert_allclose(got, variable.load().isel(pick).values, rtol=0, atol=2e-6, err_msg=str(name))


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
@pytest.mark.parametrize("form", ["weights", "factors", "auto"])
def test_batches_branches_and_masks(family: str, form: str) -> None:
    arguments = {"prompt": ["a cat", "a dog and a bicycle"], "branches": ("cond", "uncond"), "mask_padding": True, "video": True}
    tree = fake_trace(family, form=form, **arguments)  # type: ignore[arg-type]
    assert_valid_trace(tree)
    assert_traces_close(tree, fake_trace(family, **arguments), atol=1e-6)  # type: ignore[arg-type]


def test_auto_takes_the_smaller_form_at_each_site() -> None:
    """Cross-attention to 4 tokens is smaller as a map; attention over 64 cells with 8 channels as factors."""
    tree = fake_trace("spacetime", form="auto", tokens=13, head_size=16)
    plain = record_plain(fake_sites("spacetime", tokens=13, head_size=16), 13)
    assert set(plain["cross/4x4x4"].data_vars) == {"weights"}
    assert set(plain["spacetime/4x4x4"].data_vars) == {"query", "key"}
    assert set(tree["spacetime/4x4x4"].data_vars) == {"weights"}


def record_plain(sites: list[AttentionSite], count: int) -> xr.DataTree:
    """Record, and open as plain Zarr does."""
    from zarr.storage import MemoryStore

    writer = TraceWriter(None)
    table = fake_tokens("a cat", count)
    record(writer, fake_calls(sites, table), [table], {"prompt": ""}, steps=[0])
    return xr.open_datatree(MemoryStore(writer._memory.data), engine="zarr")  # type: ignore[arg-type]


def test_sites_with_fewer_tokens_are_filled_up_with_hidden_ones() -> None:
    for kind in ("cross", "joint"):
        for form in ("weights", "factors"):
            site = AttentionSite("a", kind, (2, 2, 2), 2, 4, 3, 0)  # type: ignore[arg-type]
            (call,) = fake_calls([site], fake_tokens("a", 3))
            tree = stored(call, form, count=5)
            block = tree[site.group]["weights" if kind == "cross" else "video_text"].values[0, 0]
            expected = eager_weights(call)["weights" if kind == "cross" else "video_text"]
            np.testing.assert_allclose(block[..., :3], expected, atol=1e-6)
            assert (block[..., 3:] == 0).all()
            tree.attrs["coverage"] = "{}"
            assert_valid_trace(tree)


def test_layers_of_other_heads_and_head_sizes_share_a_group() -> None:
    sites = [
        AttentionSite("a", "spatial", (2, 3, 2), 2, 8, 0, 0),
        AttentionSite("b", "spatial", (2, 3, 2), 3, 4, 0, 1),
    ]
    calls_ = fake_calls(sites, fake_tokens())
    for form in ("weights", "factors"):
        tree = record(TraceWriter(None, form=form), calls_, [fake_tokens()], {}, steps=[0])  # type: ignore[arg-type]
        weights = tree["spatial/2x3x2"].weights
        np.testing.assert_allclose(weights.values[0, 0, :2], eager_weights(calls_[0])["weights"], atol=1e-6)
        np.testing.assert_allclose(weights.values[0, 1], eager_weights(calls_[1])["weights"], atol=1e-6)
        assert np.isnan(weights.values[0, 0, 2]).all()


def test_probabilities_alone_are_stored_as_weights() -> None:
    (call,) = fake_calls([AttentionSite("a", "temporal", (3, 2, 2), 2, 4, 0, 0)])
    maps = torch.from_numpy(eager_weights(call)["weights"])
    eager = replace(call, query=None, key=None, probabilities=maps)
    np.testing.assert_allclose(stored(eager, "auto")["temporal/3x2x2"].weights.values[0, 0], maps.numpy(), atol=1e-7)
    with pytest.raises(StoreError, match="probabilities only"):
        stored(eager, "factors")


def test_a_call_that_does_not_fit_its_site_is_refused() -> None:
    (call,) = fake_calls([AttentionSite("unet.attn1", "temporal", (3, 2, 2), 2, 4, 0, 0)])
    assert call.query is not None
    with pytest.raises(StoreError, match=r"unet\.attn1.*expected query as \(head 2, y 2, x 2, frame 3, channel 4\); got"):
        stored(replace(call, query=call.query.transpose(1, 3)), "auto")


def test_steps_may_skip_sites() -> None:
    """A second expert takes over half way: what was not called reads as NaN, what was is exact."""
    first, second = fake_sites("spacetime", blocks=2)[::2]
    calls_ = [*fake_calls([first], step=0), *fake_calls([second], step=1)]
    reference = eager_tree(calls_, [fake_tokens()], {})["spacetime/4x4x4"].weights
    tree = record(TraceWriter(None, form="factors"), calls_, [fake_tokens()], {}, steps=[0, 1])
    np.testing.assert_allclose(tree["spacetime/4x4x4"].weights.values, reference.values, atol=1e-6)
    assert np.isnan(reference.values[0, 1]).all()


def test_small_layers_share_a_chunk_and_large_ones_do_not(tmp_path: Path) -> None:
    """Six layers a step in one file."""
    sites = fake_sites("spacetime", grid=(2, 2, 2), blocks=6, head_size=4)
    calls_ = [call for step in range(2) for call in fake_calls(sites, step=step)]
    tree = record(TraceWriter(tmp_path / "run.zarr", form="factors"), calls_, [fake_tokens()], {}, steps=range(2))
    assert_traces_close(tree, eager_tree(calls_, [fake_tokens()], {}), atol=1e-6)
    queries = [path.name for path in (tmp_path / "run.zarr/spacetime/2x2x2/query").glob("c.*")]
    assert sorted(queries) == ["c.0.0.0.0.0.0.0", "c.1.0.0.0.0.0.0"]
    large = fake_sites("spacetime", grid=(4, 8, 8), blocks=2, heads=3, head_size=64)
    calls_ = fake_calls(large)
    tree = record(TraceWriter(tmp_path / "large.zarr", form="factors"), calls_, [fake_tokens()], {}, steps=[0])
    assert len(list((tmp_path / "large.zarr/spacetime/4x8x8/query").glob("c.*"))) == len(large) // 2
    assert_traces_close(tree, eager_tree(calls_, [fake_tokens()], {}), atol=1e-6)


def test_a_large_layer_after_small_ones_of_its_group(tmp_path: Path) -> None:
    sites = [AttentionSite(name, "spacetime", (4, 8, 8), heads, 64, 0, i) for i, (name, heads) in enumerate([("a", 1), ("b", 3)])]
    calls_ = [call for step in range(2) for call in fake_calls(sites, step=step)]
    tree = record(TraceWriter(tmp_path / "run.zarr", form="factors"), calls_, [fake_tokens()], {}, steps=range(2))
    for index, call in enumerate(calls_):
        got = tree["spacetime/4x8x8"].weights.isel(step=index // 2, layer=index % 2, head=slice(0, call.site.heads)).values
        np.testing.assert_allclose(got, eager_weights(call)["weights"], atol=1e-6)


@pytest.mark.parametrize("masked", ["cond", "uncond"])
@pytest.mark.parametrize("kind", ["joint", "cross"])
def test_a_mask_in_one_half_of_guidance_only(masked: str, kind: str) -> None:
    """A negative prompt of another length: one half needs a bias, the other has none."""
    site = AttentionSite("a", kind, (2, 2, 3), 2, 4, 5, 0)  # type: ignore[arg-type]
    keys = 5 + (site.cells if kind == "joint" else 0)
    bias = torch.zeros(1, 1, keys) if kind == "joint" else torch.zeros(1, 1, 1, 1, keys)
    bias[..., 3:5] = -3e38
    calls_ = []
    for branch in ("cond", "uncond"):
        (call,) = fake_calls([site], fake_tokens("a cat", 5))
        calls_.append(replace(call, branch=branch, bias=bias if branch == masked else None))  # type: ignore[arg-type]
    for form in ("factors", "weights"):
        writer = TraceWriter(None, form=form)  # type: ignore[arg-type]
        tree = record(writer, calls_, [fake_tokens("a cat", 5)], {}, steps=[0], branches=("cond", "uncond"))
        assert_traces_close(tree, eager_tree(calls_, [fake_tokens("a cat", 5)], {}), atol=1e-6)


@pytest.mark.parametrize("form", ["weights", "factors"])
def test_sites_of_several_dtypes_in_one_group(form: str) -> None:
    """The first site decides; a wider one after it is told of, and what is stored stays close."""
    sites = [AttentionSite(name, "spacetime", (2, 2, 3), 2, 8, 0, i) for i, name in enumerate("ab")]
    half, full = (
        replace(call, query=call.query.to(dtype), key=call.key.to(dtype))  # type: ignore[union-attr]
        for call, dtype in zip(fake_calls(sites), (torch.bfloat16, torch.float32), strict=True)
    )
    for calls_, options, atol in (([full, half], {}, 2e-6), ([half, full], {"dtype": "float32"}, 2e-6), ([half, full], {}, 2e-3)):
        writer = TraceWriter(None, form=form, **options)  # type: ignore[arg-type]
        with pytest.warns(UserWarning, match="b computes in torch.float32") if atol > 1e-3 else nullcontext():
            tree = record(writer, calls_, [fake_tokens()], {}, steps=[0])
        for layer, call in enumerate(calls_):
            got = tree["spacetime/2x2x3"].weights.isel(step=0, layer=layer).values
            np.testing.assert_allclose(got, eager_weights(call)["weights"], atol=atol if form == "factors" else max(atol, 5e-4))
