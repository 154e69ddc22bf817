"""The xarray engine of traces: ``xarray.open_datatree("run.zarr", engine="vico_lens")``.

Plain ``engine="zarr"`` opens the same store and shows what lies in it: query and key where factors were stored. This engine shows
attention weights. Nothing to import: xarray finds it by its entry point.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from vico_lens.errors import InputError

__all__ = ["VicoLensEntrypoint"]


class VicoLensEntrypoint(BackendEntrypoint):
    """Opens traces for `xarray.open_datatree`, `xarray.open_groups` and `xarray.open_dataset` (one group).

    Examples
    --------
    >>> import tempfile
    >>> from vico_lens.testing.traces import fake_trace
    >>> path = f"{tempfile.mkdtemp()}/run.zarr"
    >>> _ = fake_trace(to=path)
    >>> engine = VicoLensEntrypoint()  # what xarray.open_datatree(path, engine="vico_lens") uses
    >>> engine.guess_can_open(path), engine.open_datatree(path)["cross/4x4x4"].weights.dims[-1]
    (True, 'token')
    """

    description = "Open attention traces of vico-lens, weights computed from query and key where needed"
    url = "https://github.com/vico-lens/vico-lens"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "group", "device")
    supports_groups = True

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Say whether a folder is a trace, by its root metadata; other stores are left to other engines."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        try:
            meta = json.loads((Path(filename_or_obj) / "zarr.json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(meta, dict) and "vico_lens" in meta.get("attributes", {})

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        device: str = "cpu",
    ) -> xr.DataTree:
        """Open a trace; `device` computes weights from factors."""
        from vico_lens.store.opening import open_trace

        tree = open_trace(filename_or_obj, device=device)
        node = tree if group is None else _node(tree, group)
        if drop_variables is not None:
            names = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables)
            node = node.map_over_datasets(lambda dataset: dataset.drop_vars(names, errors="ignore"))
        return node

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        device: str = "cpu",
    ) -> dict[str, xr.Dataset]:
        """Open each group of a trace as a dataset of its own."""
        tree = self.open_datatree(filename_or_obj, drop_variables=drop_variables, group=group, device=device)
        return {node.path: node.to_dataset(inherit=False) for node in tree.subtree}

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        device: str = "cpu",
    ) -> xr.Dataset:
        """Open one group, with the coordinates it inherits; the root if none is named."""
        return self.open_datatree(filename_or_obj, drop_variables=drop_variables, group=group, device=device).to_dataset()


def _node(tree: xr.DataTree, group: str) -> xr.DataTree:
    known = [node.path for node in tree.subtree]
    if f"/{group.strip('/')}" not in known:
        raise InputError(f"group: expected one of {', '.join(known)}; got {group!r}.")
    return next(node for node in tree.subtree if node.path == f"/{group.strip('/')}")
