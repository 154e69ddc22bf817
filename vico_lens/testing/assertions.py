"""Assertions on traces, for tests of this package and of what is built on it."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vico_lens.store.layout import attention_groups
from vico_lens.store.validation import problems

__all__ = ["assert_traces_close", "assert_valid_trace"]


def assert_valid_trace(tree: xr.DataTree, *, rows: int = 3, tolerance: float = 1e-3) -> None:
    """Fail with every problem that `vico_lens.store.validation.validate_trace` would name.

    >>> from vico_lens.testing.traces import fake_trace
    >>> assert_valid_trace(fake_trace("joint"))
    """
    found = list(problems(tree, rows=rows, tolerance=tolerance))
    assert not found, "not a valid trace:\n" + "\n".join(found)


def assert_traces_close(actual: xr.DataTree, expected: xr.DataTree, *, atol: float = 1e-6) -> None:
    """Fail unless both hold the same groups, coordinates and, within `atol`, weights. Loads all weights.

    >>> from vico_lens.testing.traces import fake_trace
    >>> assert_traces_close(fake_trace(form="factors"), fake_trace())
    """
    got, want = ({name: node.to_dataset() for name, *_, node in attention_groups(tree)} for tree in (actual, expected))
    assert set(got) == set(want), f"expected groups {sorted(want)}; got {sorted(got)}"
    for name in expected.coords:
        xr.testing.assert_identical(actual.coords[name].drop_attrs(), expected.coords[name].drop_attrs())
    for group, node in want.items():
        assert set(got[group].data_vars) == set(node.data_vars), f"/{group}: {list(got[group].data_vars)}"
        for coordinate in ("module", "order", "heads", "head_size"):
            np.testing.assert_array_equal(got[group].coords[coordinate].values, node.coords[coordinate].values)
        for name in node.data_vars:
            one, other = got[group][name], node[name]
            assert one.dims == other.dims, f"/{group}/{name}: expected {other.dims}; got {one.dims}"
            np.testing.assert_allclose(one.values, other.values, rtol=0, atol=atol, err_msg=f"/{group}/{name}")
