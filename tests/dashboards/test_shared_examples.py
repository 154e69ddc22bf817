"""The examples in the plain modules of dashboards/shared, which lie outside the folders that pytest searches."""

from __future__ import annotations

import doctest
import importlib

import pytest
from pages_support import DASHBOARDS  # puts dashboards/ on the path


@pytest.mark.parametrize("name", ["budget", "sites", "state"])
def test_examples(name: str) -> None:
    assert (DASHBOARDS / "shared" / f"{name}.py").is_file()
    found = doctest.testmod(importlib.import_module(f"shared.{name}"), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0 and found.failed == 0
