"""What goes wrong with disks and paths: a clear error, and nothing destroyed."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from vico_lens.errors import InputError, SchemaError, StoreError
from vico_lens.store import zarrfile
from vico_lens.store.opening import missing_chunks, open_trace
from vico_lens.store.reading import concept_maps
from vico_lens.store.writer import TraceWriter
from vico_lens.store.zarrfile import Directory
from vico_lens.testing.assertions import assert_traces_close
from vico_lens.testing.traces import fake_calls, fake_sites, fake_tokens, fake_trace, record

SITES = fake_sites("spacetime", grid=(2, 2, 2), blocks=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up in the third step: the error says so and how much is safe, and that much opens."""
    calls = [call for step in range(4) for call in fake_calls(SITES, step=step)]
    original = zarrfile.write_file

    def full(path: str, data: bytes) -> None:
        if "/c.2." in path:
            original(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", path)
        original(path, data)

    monkeypatch.setattr(zarrfile, "write_file", full)
    writer = TraceWriter(tmp_path / "run.zarr")
    with pytest.raises(StoreError, match=r"cannot write .*run\.zarr: No space left on device\. 2 finished steps are safe"):
        record(writer, calls, [fake_tokens()], {"prompt": "p"}, steps=range(4))
    monkeypatch.undo()
    tree = writer.close(complete=False)
    assert tree.sizes["step"] == 2
    assert np.isfinite(tree["cross/2x2x2"].weights.values).all()
    assert not [name for name in contents(tmp_path) if name.endswith(".partial") or "/c.2." in name]


@pytest.mark.parametrize("name", ["run.zarr", "run.zarr.zip"])
def test_existing_store_is_refused_before_the_run(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    fake_trace(to=path)
    before = contents(tmp_path)
    with pytest.raises(StoreError, match=r"exists already.*overwrite=True"):
        TraceWriter(path)
    assert contents(tmp_path) == before
    tree = record(TraceWriter(path, overwrite=True), fake_calls(SITES), [fake_tokens()], {"prompt": "q"}, steps=[0])
    assert tree.attrs["prompt"] == "q"


def test_a_killed_zip_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run.zip")
    writer.start({"prompt": "p"}, [fake_tokens()])
    writer.discard()
    with pytest.raises(StoreError, match=r"run\.zip\.partial exists already"):
        TraceWriter(tmp_path / "run.zip")


def test_what_is_not_a_trace_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("irreplaceable")
    zarr.create_array(str(tmp_path / "other.zarr"), shape=(3,), dtype="float32")
    before = contents(tmp_path)
    for name in ("thesis", "thesis/chapter.txt", "other.zarr"):
        with pytest.raises(StoreError, match="expected a trace to overwrite"):
            TraceWriter(tmp_path / name, overwrite=True)
    assert contents(tmp_path) == before


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        TraceWriter(tmp_path / "file" / "run.zarr")
    with pytest.raises(StoreError, match="cannot write to /proc"):
        TraceWriter("/proc/run.zarr")


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root no folder is read-only, so the system's answer is given by hand."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(StoreError, match=r"Read-only file system\. Choose a path that can be written"):
        TraceWriter(tmp_path / "run.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
@pytest.mark.parametrize("form", ["weights", "factors"])
def test_damaged_chunk_is_named(tmp_path: Path, damage: str, form: str) -> None:
    path = tmp_path / "run.zarr"
    fake_trace(to=path, form=form)  # type: ignore[arg-type]
    name = "weights" if form == "weights" else "key"
    chunk = next(file for file in sorted((path / "temporal/4x4x4" / name).glob("c.1.*")))
    data = chunk.read_bytes()
    flipped = data[:40] + bytes([data[40] ^ 1]) + data[41:]
    chunk.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "flipped": flipped}[damage])
    before = contents(path)
    tree = open_trace(path)
    with pytest.raises(StoreError, match=rf"cannot read temporal/4x4x4/{name} .*damaged or cut off.*select other steps"):
        tree["temporal/4x4x4"].weights.sel(step=1).load()
    assert np.isfinite(tree["temporal/4x4x4"].weights.sel(step=0).values).all()
    assert contents(path) == before


def test_what_is_not_a_trace_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is nothing"):
        open_trace(tmp_path / "missing.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="not a Zarr store"):
        open_trace(tmp_path / "empty")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(StoreError, match="neither"):
        open_trace(tmp_path / "text.zip")
    xr.Dataset({"rain": ("time", [1.0])}).to_zarr(tmp_path / "rain.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(SchemaError, match=r"something else.*rain"):
        open_trace(tmp_path / "rain.zarr")
    fake_trace(to=tmp_path / "run.zarr")
    root = tmp_path / "run.zarr" / "zarr.json"
    whole = root.read_text()
    root.write_text(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="cannot read the root"):
        open_trace(tmp_path / "run.zarr")
    root.write_text(whole.replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(SchemaError, match=r"version 99\. Install a newer"):
        open_trace(tmp_path / "run.zarr")


def test_a_request_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    fake_trace(to=tmp_path / "run.zarr", form="factors")
    weights = open_trace(tmp_path / "run.zarr", limit=5000)["spatial/4x4x4"].weights
    with pytest.raises(StoreError, match="Select steps, layers, heads"):
        weights.load()
    assert weights.isel(step=0, layer=0, head=0, frame=0).load().shape == (4, 4, 4, 4)


def test_misuse_of_the_writer() -> None:
    with pytest.raises(InputError, match="form: expected one of auto, weights, factors; got 'maps'"):
        TraceWriter(None, form="maps")  # type: ignore[arg-type]
    writer = TraceWriter(None)
    with pytest.raises(StoreError, match="expected start"):
        writer.finish_step(0)
    writer.start({}, [fake_tokens()])
    writer.write(fake_calls(SITES, step=0)[0])
    with pytest.raises(StoreError, match="expected step 0 to be finished before"):
        writer.write(fake_calls(SITES, step=1)[0])
    with pytest.raises(StoreError, match="prompt row below 1"):
        writer.write(fake_calls(SITES, step=0, prompt=3)[0])
    writer.close(complete=False)


def test_directory_leaves_no_partial_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Directory(tmp_path)
    target.put("a/b", b"first")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        target.put("a/b", b"second")
    assert contents(tmp_path) == {"a/b": b"first"}


@pytest.mark.parametrize(("form", "name"), [("weights", "weights"), ("factors", "key"), ("factors", "bias")])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_missing_chunk_is_named_and_counted(tmp_path: Path, form: str, name: str, zipped: bool) -> None:
    path = tmp_path / "run.zarr"
    fake_trace(to=path, form=form, mask_padding=True)  # type: ignore[arg-type]
    assert missing_chunks(path) == []
    chunk = next(file for file in sorted((path / "cross/4x4x4" / name).glob("c.1.*")))
    chunk.unlink()
    if zipped:
        path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", path))
    assert missing_chunks(path) == [f"cross/4x4x4/{name}/{chunk.name}"]
    tree = open_trace(path)
    with pytest.raises(StoreError, match=rf"cannot read cross/4x4x4/{name} .*its chunk {chunk.name} is missing"):
        tree["cross/4x4x4"].weights.sel(step=1).load()
    with pytest.raises(StoreError, match=chunk.name):
        concept_maps(tree, ["red circle"])
    assert np.isfinite(tree["cross/4x4x4"].weights.sel(step=0).values).all()


def test_what_was_never_recorded_is_no_missing_chunk(tmp_path: Path) -> None:
    """Forms, masks and calls that differ from site to site and step to step leave chunks out on purpose."""
    cross, spatial, *rest = fake_sites("unet")
    tokens = [fake_tokens()]
    calls = [
        *fake_calls([cross, spatial, *rest], *tokens, step=0, mask_padding=True),
        *fake_calls([cross, *rest], *tokens, step=1, mask_padding=True),
    ]
    path = tmp_path / "run.zarr"
    tree = record(TraceWriter(path), calls, tokens, {}, steps=[0, 1])
    assert missing_chunks(path) == [] and tree.attrs["complete"] is False
    assert np.isnan(tree[spatial.group].to_dataset().sel(step=1).weights.isel(layer=0)).all()


def test_a_zip_may_have_an_outer_folder(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "run.zarr"
    reference = fake_trace(to=inner).load()
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", inner.parent)
    assert_traces_close(open_trace(packed), reference, atol=0)
    with pytest.raises(StoreError, match=r"it lies one folder deeper: open .*run\.zarr"):
        open_trace(inner.parent)
    fake_trace(to=inner.parent / "second.zarr")
    both = shutil.make_archive(str(tmp_path / "both"), "zip", inner.parent)
    with pytest.raises(StoreError, match=r"it holds 2: run\.zarr, second\.zarr"):
        open_trace(both)


def test_a_url_says_that_a_copy_is_needed() -> None:
    with pytest.raises(StoreError, match=r"expected a trace on this machine, got the URL s3://bucket/run\.zarr\. Copy it here"):
        open_trace("s3://bucket/run.zarr")


def test_fewer_steps_than_planned_are_never_complete(tmp_path: Path) -> None:
    tokens = [fake_tokens()]
    writer = TraceWriter(tmp_path / "run.zarr")
    writer.start({"prompt": "p"}, tokens, steps=[0, 1, 2])
    for step in range(2):
        for call in fake_calls(fake_sites("unet"), *tokens, step=step):
            writer.write(call)
        writer.finish_step(step)
    tree = writer.close(complete=True)
    assert (tree.attrs["complete"], tree.attrs["steps_finished"], tree.attrs["steps_planned"]) == (False, 2, 3)
