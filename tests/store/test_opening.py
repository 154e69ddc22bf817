"""What an opened trace is: lazy, open to plain Zarr, to dask and to our engine, and explained when it is not valid."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from zarr.storage import ZipStore

from vico_lens.errors import InputError, SchemaError
from vico_lens.store.engine import VicoLensEntrypoint
from vico_lens.store.layout import attention_groups
from vico_lens.store.opening import open_trace
from vico_lens.store.validation import validate_trace
from vico_lens.testing.assertions import assert_traces_close
from vico_lens.testing.traces import fake_trace


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "run.zarr"
    fake_trace(to=path, form="factors", mask_padding=True, video=True)
    return path


def test_plain_zarr_shows_factors_and_coordinates(stored: Path) -> None:
    """Without a warning, for warnings are errors here."""
    tree = xr.open_datatree(stored, engine="zarr")
    cross = tree["cross/4x4x4"].to_dataset()
    assert cross["query"].dims == ("step", "layer", "head", "frame", "y", "x", "channel")
    assert cross["key"].dims == ("step", "layer", "head", "token", "channel")
    assert cross["bias"].dims == ("step", "layer", "token")
    assert list(cross.coords["order"].values) == [1]
    assert list(tree.coords["token_text"].values[:3]) == ["<|start|>", "a</w>", "red</w>"]
    logits = np.einsum("fyxc,tc->fyxt", cross["query"].values[1, 0, 1], cross["key"].values[1, 0, 1]) / np.sqrt(8)
    weights = np.exp(logits + np.maximum(cross["bias"].values[1, 0], -1e4))
    expected = open_trace(stored)["cross/4x4x4"].to_dataset().weights.values[1, 0, 1]
    np.testing.assert_allclose(weights / weights.sum(-1, keepdims=True), expected, atol=1e-6)


def test_engine_opens_trees_groups_and_datasets(stored: Path) -> None:
    reference = fake_trace(mask_padding=True, video=True)
    assert_traces_close(xr.open_datatree(stored, engine=VicoLensEntrypoint), reference)
    group = xr.open_dataset(stored, engine=VicoLensEntrypoint, group="cross/4x4x4")  # type: ignore[arg-type]
    assert group.weights.sel(step=1, token=3).shape == (1, 2, 4, 4, 4)
    assert set(xr.open_groups(stored, engine=VicoLensEntrypoint)) >= {"/", "/cross/4x4x4", "/video"}  # type: ignore[arg-type]
    with pytest.raises(InputError, match="group: expected one of /, "):
        xr.open_dataset(stored, engine=VicoLensEntrypoint, group="cross/9x9x9")  # type: ignore[arg-type]
    engine = VicoLensEntrypoint()
    assert engine.guess_can_open(stored)
    assert not engine.guess_can_open(stored / "cross")
    assert not engine.guess_can_open(stored.parent / "nothing")


def test_engine_is_found_by_its_name_where_the_package_is_installed(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkout's entry points as an installer writes them; an installed copy, which they stand before, has them too."""
    group = "xarray.backends"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["entry-points"][group]
    for installed in distributions(name=project["name"]):
        assert {point.name: point.value for point in installed.entry_points.select(group=group)} == declared
    info = tmp_path / f"{project['name'].replace('-', '_')}-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *(f"{key} = {value}" for key, value in declared.items())]))
    monkeypatch.syspath_prepend(str(tmp_path))
    xr.backends.list_engines.cache_clear()  # type: ignore[attr-defined]
    try:
        assert isinstance(xr.backends.list_engines()["vico_lens"], VicoLensEntrypoint)
        assert_traces_close(xr.open_datatree(stored, engine="vico_lens"), fake_trace(mask_padding=True, video=True))
        assert "weights" in xr.open_dataset(stored, engine="vico_lens", group="cross/4x4x4")
    finally:
        monkeypatch.undo()
        xr.backends.list_engines.cache_clear()  # type: ignore[attr-defined]


def test_dask_chunks_are_one_call_and_head(stored: Path) -> None:
    tree = open_trace(stored, chunks={})
    weights = tree["spatial/4x4x4"].to_dataset().weights
    assert weights.chunks is not None
    assert weights.data.chunksize == (1, 1, 1, 4, 4, 4, 4, 4)
    assert_traces_close(tree, fake_trace(mask_padding=True))
    assert open_trace(stored, chunks={"head": 2})["spatial/4x4x4"].to_dataset().weights.data.chunksize[2] == 2


def test_nothing_is_computed_before_it_is_asked_for(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vico_lens.kernels import softmax

    rows: list[int] = []
    original = softmax.attention_columns

    def counted(query, *rest, **named):  # type: ignore[no-untyped-def]
        rows.append(query.shape[0] * query.shape[-2])
        return original(query, *rest, **named)

    monkeypatch.setattr(softmax, "attention_columns", counted)
    weights = open_trace(stored)["cross/4x4x4"].to_dataset().weights
    part = weights.sel(step=1).isel(layer=0, head=1, frame=2, y=slice(1, 3))
    repr(part)
    assert rows == []
    part.load()
    assert rows == [2 * 4]


def test_any_zarr_store_will_do(stored: Path, tmp_path: Path) -> None:
    fake_trace(to=tmp_path / "run.zip", form="factors", mask_padding=True)
    store = ZipStore(tmp_path / "run.zip", mode="r")
    assert_traces_close(open_trace(store), open_trace(stored))
    store.close()


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
def test_synthetic_traces_are_valid(family: str) -> None:
    validate_trace(fake_trace(family))  # type: ignore[arg-type]


def test_every_problem_is_named() -> None:
    tree = fake_trace("spacetime")
    del tree.attrs["prompt"]
    groups = {name: node.to_dataset(inherit=False) for name, *_, node in attention_groups(tree)}
    tree["cross/4x4x4"] = groups["cross/4x4x4"].assign(weights=groups["cross/4x4x4"].weights * 2)
    tree["spacetime/4x4x4"] = groups["spacetime/4x4x4"].rename(key_x="kx").drop_vars("order")
    with pytest.raises(SchemaError) as caught:
        validate_trace(tree)
    message = str(caught.value)
    assert "/: expected attribute prompt; got" in message
    assert "/cross/4x4x4: weights: expected rows that sum to 1; got 2" in message
    assert "/spacetime/4x4x4: weights: expected dimensions" in message
    assert "/spacetime/4x4x4: expected coordinate order over layer" in message


def test_what_is_no_trace_at_all() -> None:
    with pytest.raises(SchemaError, match=r"expected an xarray\.DataTree; got Dataset"):
        validate_trace(xr.Dataset())  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match=r"expected groups such as /cross/8x8x8"):
        validate_trace(xr.DataTree())


def test_traces_with_a_folder_an_axis_open_too(tmp_path: Path) -> None:
    """Our first traces, and what other writers of Zarr do by default."""
    path = tmp_path / "run.zarr"
    written = fake_trace(to=path, form="factors", mask_padding=True, video=True).load()
    for meta in path.rglob("zarr.json"):
        meta.write_text(meta.read_text().replace('"separator": "."', '"separator": "/"'))
    for chunk in [file for file in path.rglob("c.*") if file.is_file()]:
        nested = chunk.parent / chunk.name.replace(".", "/")
        nested.parent.mkdir(parents=True, exist_ok=True)
        chunk.rename(nested)
    assert not list(path.rglob("c.*"))
    assert_traces_close(open_trace(path), written, atol=0)
