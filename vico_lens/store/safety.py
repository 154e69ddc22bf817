"""What a store has to be before anything in it is decoded: traces are passed around, and come from people one does not know.

Two things in Zarr can harm whoever opens a file. Version 2 stores may name a codec that unpickles, which runs code; and metadata
may declare arrays of any size, whose coordinates would be read into memory at once. `vico_lens` writes neither: both are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vico_lens.errors import StoreError

__all__ = ["check_arrays"]

# What zarr itself brings for numbers and strings; none of them runs code. Traces are written with the first four.
_CODECS = frozenset({"bytes", "blosc", "crc32c", "vlen-utf8", "gzip", "zstd", "transpose", "sharding_indexed", "vlen-bytes"})
_CHUNK_BYTES = 1 << 30
_COORDINATE_VALUES = 1 << 24


def check_arrays(arrays: Mapping[str, Any], name: str) -> None:
    """Refuse arrays that no trace holds.

    Parameters
    ----------
    arrays : mapping of str to zarr.Array
        By path.
    name : str
        Of the store, for messages.

    Raises
    ------
    StoreError
        If an array is of Zarr version 2, names an unknown codec, or declares chunks (or coordinates, which are read on opening)
        of a size that only a crafted file has.
    """
    for path, array in arrays.items():
        if array.metadata.zarr_format != 3:
            raise StoreError(f"expected a Zarr version 3 store at {name}; {path} is of version {array.metadata.zarr_format}.")
        unknown = _codec_names(array.metadata.to_dict()["codecs"]) - _CODECS
        if unknown:
            raise StoreError(
                f"{path} of {name} asks for the codec {', '.join(sorted(unknown))}, which no trace uses; not opened."
            )
        if math.prod(array.chunks) * array.dtype.itemsize > _CHUNK_BYTES:
            raise StoreError(f"{path} of {name} declares chunks of shape {array.chunks}, above 1 GiB each; not opened.")
        if "/" not in path and math.prod(array.shape) > _COORDINATE_VALUES:
            raise StoreError(
                f"{path} of {name} declares {math.prod(array.shape):,} values, more than any coordinate; not opened."
            )


def _codec_names(codecs: Any) -> set[str]:
    """Names of codecs, those inside a sharding codec included."""
    found = set()
    for codec in codecs:
        found.add(str(codec["name"]))
        settings = codec.get("configuration") or {}
        for inner in ("codecs", "index_codecs"):
            found |= _codec_names(settings.get(inner) or ())
    return found
