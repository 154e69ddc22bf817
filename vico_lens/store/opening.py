"""Opening a stored trace: from a Zarr hierarchy to the tree of the schema, with weights that compute themselves.

Only steps that were finished are shown. A store whose writer was killed opens like any other; its attributes say how far it got.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from xarray.core import indexing
from zarr.abc.store import Store

from vico_lens.errors import SchemaError, StoreError
from vico_lens.store.layout import TOKEN_COORDS, Group, Header, assemble
from vico_lens.store.lazy_weights import Block, FactorSource, LazyWeights, NormaliserCache
from vico_lens.store.safety import check_arrays
from vico_lens.store.source import Expected, Reader, open_root
from vico_lens.store.tracefile import KEY
from vico_lens.vocabulary.schema import (
    JOINT_BLOCKS,
    KEY_DIMS,
    QUERY_DIMS,
    SCHEMA_VERSION,
    AttentionSite,
    Grid,
    Kind,
    parse_group,
    shared_dims,
    softmax_dims,
    weights_dims,
)

if TYPE_CHECKING:
    import torch

__all__ = ["LIMIT", "chunked", "missing_chunks", "open_store", "open_trace"]

LIMIT = 8 << 30
"""Bytes that a single request without dask may take."""


def open_trace(
    path: str | PathLike[str] | Store,
    *,
    device: str | torch.device = "cpu",
    chunks: Mapping[str, int] | None = None,
    limit: int = LIMIT,
) -> xr.DataTree:
    """Open a trace; nothing is read but its metadata and coordinates.

    Attention weights are there under their names whether they were stored or have to be computed from query and key, and a slice
    costs what the slice needs. The trace of a run that was killed opens with the steps it finished; ``attrs["complete"]``,
    ``attrs["steps_finished"]`` and ``attrs["steps_planned"]`` say how far it got.

    Parameters
    ----------
    path : path or zarr store
        A folder, a ``.zip`` (the trace may lie in a folder inside it), or a zarr store.
    device : str or torch.device
        Where weights are computed from their factors.
    chunks : mapping or None
        Give dask arrays: with ``{}`` in chunks of one call and one head, cut further where those are large; sizes by dimension
        override. None gives lazily indexed arrays without dask.
    limit : int
        Bytes that a single request without dask may take; a larger one is refused instead of exhausting the memory.

    Returns
    -------
    xarray.DataTree
        One group a kind and grid, such as ``/cross/16x40x64``.

    Raises
    ------
    StoreError
        If there is nothing at `path`, it is damaged, or cannot be read.
    SchemaError
        If it is a store of something else, or from a newer release.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = fake_trace(to=f"{folder}/run.zarr", form="factors")
    >>> open_trace(f"{folder}/run.zarr")["cross/4x4x4"].weights.sel(step=1).sizes["token"]
    20
    """
    if device != "cpu":
        import torch

        device = torch.device(device)
    tree = open_store(path, device, limit)
    return tree if chunks is None else chunked(tree, chunks)


def missing_chunks(path: str | PathLike[str] | Store) -> list[str]:
    """List the chunks of a trace that were written and are no longer there; empty for a trace that is whole.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/run.zarr"
    >>> _ = fake_trace(to=path)
    >>> missing_chunks(path)
    []
    """
    return _open(path)[1].missing_chunks()


def open_store(source: str | PathLike[str] | Store, device: str | torch.device, limit: int) -> xr.DataTree:
    """Open a trace.

    Parameters
    ----------
    source : path or zarr store
        A folder, a zip, or a zarr store.
    device : str or torch.device
        Where weights are computed from factors.
    limit : int
        Bytes that a single request may take.

    Raises
    ------
    StoreError
        If there is no store, or it is damaged.
    SchemaError
        If the store is not a trace, or from a newer release.
    """
    root, reader, own = _open(source)
    attrs = {key: value for key, value in root.attrs.items() if key not in (KEY, "coordinates")}
    arrays = reader.arrays
    finished = own["finished"]
    coords = {}
    for coordinate in TOKEN_COORDS:
        if coordinate in arrays:
            values = reader.read(coordinate, (...,))
            values = values if values.dtype.kind == "i" else values.astype(object)
            coords[coordinate] = (("token",) if values.ndim == 1 else ("prompt", "token"), values)
    header = Header(
        attrs,
        reader.read("step", (slice(0, finished),)).tolist(),
        reader.read("timestep", (slice(0, finished),)).tolist(),
        own["branches"],
        own["prompts"],
        coords,
    )
    groups = {}
    for path, sites in reader.expected.groups.items():
        kind, grid = parse_group(path) or ("cross", (0, 0, 0))
        groups[path] = _group(path, kind, grid, sites, header, reader, device, limit)
    video = indexing.LazilyIndexedArray(_Video(reader)) if "video/rgb" in arrays else None
    return assemble(header, groups, video)


def _open(source: Any) -> tuple[zarr.Group, Reader, dict[str, Any]]:
    """Open the store of a trace: its root, a reader of its arrays, and what its writer says about itself."""
    name = str(source) if isinstance(source, str | PathLike) else type(source).__name__
    root = open_root(source, name)
    own: Any = root.attrs.get(KEY)
    if not isinstance(own, dict) or "schema_version" not in own:
        held = ", ".join(sorted(root.keys())[:8]) or "nothing"
        raise SchemaError(
            f"expected a trace written by vico-lens at {name}; got a Zarr store of something else (it holds {held}). "
            "Open it with xarray.open_datatree(..., engine='zarr')."
        )
    if own["schema_version"] > SCHEMA_VERSION:
        raise SchemaError(
            f"expected a trace of schema version {SCHEMA_VERSION} or older at {name}; got version {own['schema_version']}. "
            "Install a newer vico-lens."
        )
    try:
        nodes = dict(root.members(max_depth=None))
    except (ValueError, KeyError, TypeError) as error:  # what zarr raises for metadata it cannot read, unknown codecs included
        raise StoreError(f"cannot read the metadata of the trace at {name}: {error}. The store is damaged or crafted.") from error
    arrays: dict[str, zarr.Array[Any]] = {path: node for path, node in nodes.items() if isinstance(node, zarr.Array)}
    check_arrays(arrays, name)
    facts: Any = {path: node.attrs[KEY] for path, node in nodes.items() if isinstance(node, zarr.Group) and KEY in node.attrs}
    sites = {path: about["sites"] for path, about in facts.items() if parse_group(path) is not None}
    return root, Reader(name, arrays, Expected(sites, own.get("holes", ()))), own


class _Video(xr.backends.BackendArray):
    """The generated video, read when looked at."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.shape = reader.arrays["video/rgb"].shape
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        read = lambda part: self._reader.read("video/rgb", part)  # noqa: E731 - an adapter wants a callable
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, read)


def _group(
    path: str,
    kind: Kind,
    grid: Grid,
    facts: Sequence[Mapping[str, Any]],
    header: Header,
    reader: Reader,
    device: str | torch.device,
    limit: int,
) -> Group:
    """Make the lazy variables of one group."""
    fields = ("heads", "head_size", "tokens", "order")
    sites = [AttentionSite(site["module"], kind, grid, *(site[name] for name in fields)) for site in facts]
    branch, prompt = len(header.branches) > 1, header.prompts > 1
    names = weights_dims(kind, branch=branch, prompt=prompt)
    whole = AttentionSite("", kind, grid, max(site.heads for site in sites), 0, max(site.tokens for site in sites), 0)
    leading = {"step": len(header.steps), "branch": len(header.branches), "prompt": header.prompts, "layer": len(sites)}
    sizes = leading | whole.sizes
    read = reader.within(path)
    factors = _factors(path, kind, sites, facts, sizes, reader, device) if f"{path}/query" in reader.arrays else None
    framed = factors is not None and kind == "cross" and "frame" in _dims(reader, f"{path}/key")
    arrays, encoding = {}, {}
    for name, dims in names.items():
        shape = tuple(sizes[dim] for dim in dims)
        block, forms = _block(kind, name, sizes, framed), [site["form"] for site in facts]
        lazy = LazyWeights(shape, name, block, forms, [site.heads for site in sites], factors, read, limit)
        arrays[name] = indexing.LazilyIndexedArray(lazy)
        encoding[name] = {"preferred_chunks": _preferred(dims, shape)}
    return Group(kind, grid, sites, arrays, encoding)


def _dims(reader: Reader, path: str) -> tuple[str, ...]:
    return tuple(str(dim) for dim in reader.arrays[path].metadata.dimension_names or ())  # type: ignore[union-attr]


def _block(kind: Kind, name: str, sizes: Mapping[str, int], framed: bool) -> Block:
    if kind == "joint":
        rows, keys = name.split("_")
        text, video = (sizes["token"],), (sizes["frame"], sizes["y"], sizes["x"])
        axes = {"text": text, "video": video}
        first = {"text": 0, "video": sizes["token"]}
        assert name in JOINT_BLOCKS
        return Block((), axes[rows], axes[keys], first[rows], first[keys])
    shared = shared_dims(kind, framed)
    rows_dims = [dim for dim in QUERY_DIMS[kind] if dim not in shared]
    extent = [tuple(sizes[dim] for dim in dims) for dims in (shared, rows_dims, KEY_DIMS[kind])]
    return Block(extent[0], extent[1], extent[2])


def _factors(
    path: str,
    kind: Kind,
    sites: Sequence[AttentionSite],
    facts: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, int],
    reader: Reader,
    device: str | torch.device,
) -> FactorSource:
    axes = softmax_dims(kind)
    framed = kind == "cross" and "frame" in _dims(reader, f"{path}/key")
    count = 1 + len(shared_dims(kind, framed))
    middle = 2 if kind == "joint" else 1 + len(QUERY_DIMS[kind])
    extent = [sizes[dim] for dim in axes]
    bias = f"{path}/bias" in reader.arrays
    return FactorSource(
        read=reader.within(path),
        scale=[float(site["scale"]) for site in facts],
        head_size=[site.head_size for site in sites],
        bias_axes=tuple(axes.index(dim) for dim in _dims(reader, f"{path}/bias") if dim in axes) if bias else None,
        bias_rows=tuple(extent[count:middle]),
        bias_keys=tuple(extent[middle:]),
        gain=f"{path}/gain" in reader.arrays,
        device=device,
        cache=NormaliserCache(),
        itemsize=np.dtype(reader.arrays[f"{path}/query"].dtype).itemsize,
    )


def chunked(tree: xr.DataTree, chunks: Mapping[str, int]) -> xr.DataTree:
    """Turn the weights of a trace into dask arrays, in their preferred chunks where `chunks` does not say otherwise."""

    def chunk(dataset: xr.Dataset) -> xr.Dataset:
        parts = {}
        for name, variable in dataset.data_vars.items():
            wanted = {**variable.encoding.get("preferred_chunks", {}), **chunks}
            parts[name] = variable.chunk({dim: size for dim, size in wanted.items() if dim in variable.dims})
        return dataset.assign(parts)

    return xr.DataTree.from_dict({node.path: chunk(node.to_dataset(inherit=False)) for node in tree.subtree}, name=tree.name)


def _preferred(dims: Sequence[str], shape: Sequence[int]) -> dict[str, int]:
    """Chunks for dask: one call and one head each, and few enough queries to keep a chunk under 64 MB."""
    chunks = dict(zip(dims, shape, strict=True))
    head = list(dims).index("head")
    chunks.update({dim: 1 for dim in dims[: head + 1]})
    for dim in dims[head + 1 :]:
        while chunks[dim] > 1 and 4 * np.prod(list(chunks.values()), dtype=float) > 64e6:
            chunks[dim] = -(-chunks[dim] // 2)
    return chunks
