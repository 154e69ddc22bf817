"""The list of codecs: a store with any other is refused by name, although it could be read."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from vico_lens.errors import StoreError
from vico_lens.store.opening import open_trace
from vico_lens.store.safety import check_arrays
from vico_lens.testing.traces import fake_trace


def test_a_readable_store_with_an_unlisted_codec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    fake_trace(to=path)
    assert open_trace(path).sizes["step"] == 2
    from zarr.codecs import numcodecs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zarr warns that this codec is no part of version 3
        values = zarr.open_array(path / "token_id", mode="r")[:]
        zlib = {"compressors": numcodecs.Zlib(level=1), "overwrite": True, "dimension_names": ["token"]}
        zarr.create_array(path / "token_id", data=values, **zlib)
        zarr.consolidate_metadata(path)
        np.testing.assert_array_equal(zarr.open_array(path / "token_id", mode="r")[:], values)
        with pytest.raises(StoreError, match=r"token_id of .*run\.zarr asks for the codec numcodecs\.zlib, which no trace uses"):
            open_trace(path)


def test_a_codec_inside_a_shard_is_seen() -> None:
    inside = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "bytes"}, {"name": "evil"}]}}
    metadata = SimpleNamespace(zarr_format=3, to_dict=lambda: {"codecs": [inside]})
    array = SimpleNamespace(metadata=metadata, chunks=(1,), shape=(1,), dtype=np.dtype("f4"))
    with pytest.raises(StoreError, match="asks for the codec evil"):
        check_arrays({"cross/weights": array}, "run.zarr")
