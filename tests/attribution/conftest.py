"""Fixtures of the attribution tests."""

from __future__ import annotations

import pytest
from attribution_trees import FAMILIES, build_tree


@pytest.fixture(params=sorted(FAMILIES))
def family_tree(request):
    return build_tree(FAMILIES[request.param])


@pytest.fixture
def unet_tree():
    return build_tree(FAMILIES["unet"])
