"""Stored traces as operators: read when their turn comes, equal to the maps they stand for, on any selection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vico_lens as vl
from vico_lens.attribution import stages_from_trace
from vico_lens.attribution.methods import subgraph_flow as subgraph
from vico_lens.errors import InputError
from vico_lens.kernels import factored, operators
from vico_lens.kernels.deferred import DeferredOperator
from vico_lens.kernels.factored import FactorOperator
from vico_lens.store.selection import records
from vico_lens.store.stored_factors import StoredFactors, factors_of
from vico_lens.testing.traces import fake_trace

METHODS = [("cross_attention", {}), ("rollout", {}), ("widest_path", {}), ("subgraph_flow", {}),
           ("subgraph_flow", {"kind": "sum"}),
           ("max_flow", {"sink": "frame"}), ("max_flow", {"sink": "frame", "scope": "subgraph"})]  # fmt: skip


@pytest.fixture(params=["unet", "spacetime", "joint"])
def pair(request: pytest.FixtureRequest, tmp_path: Path):  # type: ignore[no-untyped-def]
    """The same run as stored factors and as weights in memory."""
    settings = {"mask_padding": request.param != "unet", "steps": (0, 1)}
    fake_trace(request.param, to=tmp_path / "factors.zarr", form="factors", **settings)
    return vl.open_trace(tmp_path / "factors.zarr"), fake_trace(request.param, **settings)


@pytest.mark.parametrize(("method", "options"), METHODS)
@pytest.mark.parametrize("streaming", [False, True])
def test_methods_give_what_the_maps_give(pair, method, options, streaming, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    factors, weights = pair
    expected = vl.attribute(weights, method, steps=1, **options)
    if streaming:
        monkeypatch.setattr(factored, "_SMALL", 0)
        monkeypatch.setattr(factored, "STRIP", 64)
        monkeypatch.setattr(subgraph, "_DENSE", 0)
    got = vl.attribute(factors, method, steps=1, **options)
    assert got.dims == expected.dims
    np.testing.assert_allclose(got.values, expected.values, rtol=0, atol=1e-5)


def test_a_chosen_head_and_layer_are_read_alone(pair, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    factors, weights = pair
    seen = []
    read = StoredFactors.read

    def watched(self: StoredFactors, device: object = None) -> object:
        seen.append((self.leading, self.heads.tolist()))
        return read(self, device)  # type: ignore[arg-type]

    monkeypatch.setattr(StoredFactors, "read", watched)
    layers = [stage.order for stage in stages_from_trace(factors, 1) if stage.tokens][:1]
    assert not seen  # stages read nothing until they are asked
    got = vl.attribute(factors, "cross_attention", steps=1, heads=1, layers=layers)
    assert [heads for _, heads in seen] == [[1]]  # one site, one head, once: a joint site's text columns need no other block
    np.testing.assert_allclose(got, vl.attribute(weights, "cross_attention", steps=1, heads=1, layers=layers), rtol=0, atol=1e-5)


def test_every_site_of_a_rollout_is_read_once(pair, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    factors, _ = pair
    seen = []
    read = StoredFactors.read
    monkeypatch.setattr(StoredFactors, "read", lambda self, device=None: (seen.append(self.weights), read(self, device))[1])
    vl.attribute(factors, "rollout", steps=[0, 1])
    assert len(seen) == 2 * len(stages_from_trace(factors, 0))


def test_factors_are_found_behind_any_selection_of_calls_and_heads_only(pair) -> None:  # type: ignore[no-untyped-def]
    factors, weights = pair
    group = records(factors, kinds=("cross", "joint"))[0].group
    data = factors[group].to_dataset()
    name = "video_video" if "video_video" in data else "weights"
    one = data[name].isel(step=1, layer=0)
    found = factors_of(one)
    assert found is not None and found.heads.tolist() == [0, 1]
    assert factors_of(data[name].isel(layer=0)) is None  # several steps
    assert factors_of(one.isel({one.dims[-1]: slice(1, None)})) is None  # part of the keys
    assert factors_of(weights[group].to_dataset()[name].isel(step=1, layer=0)) is None  # weights in memory
    query, key, scale, bias = found.read()
    operator = FactorOperator(query, key, scale, bias)
    assert operator.shape == found.shape
    stage = next(stage for stage in stages_from_trace(weights, 1, grid=None) if stage.tokens)
    torch.testing.assert_close(operator.dense().reshape(stage.weights.shape), stage.weights, rtol=0, atol=1e-5)


def test_a_map_too_large_is_refused_before_anything_is_read(pair, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    factors, _ = pair
    monkeypatch.setattr(operators, "LARGEST_MAP", 10)
    monkeypatch.setattr(StoredFactors, "read", lambda *_: pytest.fail("read"))
    stage = stages_from_trace(factors, 1, grid=None)[0]
    assert isinstance(stage.operator, DeferredOperator)
    with pytest.raises(InputError, match="GiB in float32"):
        stage.weights  # noqa: B018


def test_nan_in_factors_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = fake_trace("joint", to=tmp_path / "a.zarr", form="factors")
    read = StoredFactors.read

    def broken(self: StoredFactors, device: object = None) -> object:
        query, *rest = read(self, device)  # type: ignore[arg-type]
        query[0, 0, 0, 0] = torch.nan
        return query, *rest

    monkeypatch.setattr(StoredFactors, "read", broken)
    with pytest.raises(vl.errors.AttributionError, match=r"attn at step 1 holds NaN"):
        vl.attribute(tree, "rollout", steps=1)


def test_an_open_bracket_says_so_and_holds_the_flow(pair, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    factors, _ = pair
    exact = vl.attribute(factors, "max_flow", steps=1, sink="frame", rho=0.9)
    monkeypatch.setattr("vico_lens.attribution.methods.max_flow._LARGEST_GRAPH", 0)
    found = vl.attribute(factors, "max_flow", steps=1, sink="frame", rho=0.9)
    assert bool((found <= exact.values * (1 + 1e-5)).all()) and bool((found.upper >= exact.values * (1 - 1e-5)).all())
    assert (found.exact.values == (found.gap.values <= 1e-9)).all()
    assert found.attrs["bound"].startswith("lower")
