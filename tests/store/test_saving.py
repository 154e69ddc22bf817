"""A part of a trace in a store of its own: the same numbers, in the same form, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import vico_lens as vl
from vico_lens.errors import ConceptError, InputError, StoreError
from vico_lens.store.reading import concept_maps
from vico_lens.store.selection import records
from vico_lens.store.validation import validate_trace
from vico_lens.testing.assertions import assert_traces_close
from vico_lens.testing.traces import fake_trace


def arrays(path: Path) -> set[str]:
    return {name for name, node in zarr.open_group(path, mode="r").members(max_depth=None) if isinstance(node, zarr.Array)}


@pytest.mark.parametrize("family", ["unet", "spacetime", "joint"])
@pytest.mark.parametrize("form", ["weights", "factors", "auto"])
def test_a_whole_trace_is_saved_as_it_is(tmp_path: Path, family: Any, form: Any) -> None:
    fake_trace(family, to=tmp_path / "run.zarr", form=form, mask_padding=True, branches=("cond", "uncond"), video=True)
    tree = vl.open_trace(tmp_path / "run.zarr")
    path = vl.save_trace(tree, tmp_path / "copy.zarr.zip" if form == "auto" else tmp_path / "copy.zarr")
    copy = vl.open_trace(path)
    validate_trace(copy)
    assert_traces_close(copy, tree, atol=0)
    if form != "auto":
        assert arrays(path) == arrays(tmp_path / "run.zarr")


def test_steps_layers_and_heads_keep_their_names_and_factors(tmp_path: Path) -> None:
    fake_trace(to=tmp_path / "run.zarr", form="factors", mask_padding=True)
    tree = vl.open_trace(tmp_path / "run.zarr")
    part = vl.open_trace(vl.save_trace(tree, tmp_path / "part.zarr", steps=-1, layers=["*blocks.0*"], heads=1))
    assert part.coords["step"].values.tolist() == [1] and part.attrs["steps_planned"] == 1 and part.attrs["complete"]
    assert [site.order for site in records(part)] == [site.order for site in records(tree, layers=["*blocks.0*"])]
    for site in records(part):
        kept = part[site.group].to_dataset().weights
        assert kept.coords["head"].values.tolist() == [1]
        whole = tree[site.group].to_dataset().weights
        np.testing.assert_array_equal(kept.values[:, site.layer, 0], whole.values[1:, site.layer, 1])
        assert {f"{site.group}/query", f"{site.group}/key"} <= arrays(tmp_path / "part.zarr")
    with pytest.raises(InputError, match=r"heads: expected one or more of \[1\]"):
        vl.attribute(part, "rollout", ["red circle"], heads=0)
    again = vl.open_trace(vl.save_trace(part, tmp_path / "again.zarr", layers="cross*"))
    np.testing.assert_array_equal(
        concept_maps(again, ["red circle"]),
        concept_maps(tree, ["red circle"], step=1, heads=1, layers="cross/4x4x4").expand_dims("step", 1),
    )


def test_words_keep_their_columns(tmp_path: Path) -> None:
    tree = fake_trace(form="factors")
    path = vl.save_trace(tree, tmp_path / "words.zarr", layers="cross*", words=["blue square", 0])
    part = vl.open_trace(path)
    validate_trace(part)
    tokens = sorted({0, *vl.find_concepts(tree, ["blue square"])[0].tokens})
    assert part.coords["token_text"].values.tolist() == tree.coords["token_text"].values[tokens].tolist()
    for group in ("cross/4x4x4", "cross/4x2x2"):
        np.testing.assert_array_equal(part[group].weights, tree[group].weights.isel(token=tokens))
    np.testing.assert_allclose(concept_maps(part, ["blue square"]), concept_maps(tree, ["blue square"]), atol=1e-7)
    with pytest.raises(ConceptError):
        concept_maps(part, ["red circle"])


def test_a_selection_by_xarray_keeps_factors(tmp_path: Path) -> None:
    tree = fake_trace("joint", to=tmp_path / "run.zarr", form="factors")
    path = vl.save_trace(tree.isel(step=[1]), tmp_path / "one.zarr")
    assert arrays(path) == arrays(tmp_path / "run.zarr")
    kept, whole = (trace["joint/4x4x4"].to_dataset() for trace in (vl.open_trace(path), tree))
    xr.testing.assert_equal(kept.load(), whole.isel(step=[1]).load())


def test_batches_and_eager_trees(tmp_path: Path) -> None:
    tree = fake_trace(prompt=["a red circle", "a dog"]).load()
    copy = vl.open_trace(vl.save_trace(tree, tmp_path / "batch.zarr"))
    assert_traces_close(copy, tree, atol=0)
    assert vl.find_concepts(copy, prompt=1)[0].name == "dog"


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    tree = fake_trace("joint")
    with pytest.raises(InputError, match="in joint attention words are rows, too"):
        vl.save_trace(tree, tmp_path / "x.zarr", words="red")
    with pytest.raises(InputError, match="steps: expected one or more of"):
        vl.save_trace(tree, tmp_path / "x.zarr", steps=9)
    assert not list(tmp_path.iterdir())
    vl.save_trace(tree, tmp_path / "x.zarr", steps=0)
    with pytest.raises(StoreError, match="exists already"):
        vl.save_trace(tree, tmp_path / "x.zarr")
    vl.save_trace(tree, tmp_path / "x.zarr", overwrite=True)
