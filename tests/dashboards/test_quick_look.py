"""The quick look at one site: a mean over heads, at most 1, and a sum over a concept's tokens."""

from __future__ import annotations

import numpy as np
import pages_support  # noqa: F401  (puts the dashboards on the path)
import xarray as xr

from vico_lens.testing.traces import fake_trace
from vico_lens.vocabulary.concepts import find_concepts


def test_heads_are_averaged_and_tokens_summed() -> None:
    from shared.sites import quick_look

    tree = fake_trace("unet", grid=(4, 2, 3), coarse=None, blocks=1, heads=3)
    names = ("red circle", "blue square")
    look = quick_look(tree, names, 1)
    weights = tree["cross/4x2x3"]["weights"].sel(step=1).isel(layer=0).transpose("head", "frame", "y", "x", "token").values
    for name, concept in zip(names, find_concepts(tree, list(names)), strict=True):
        expected = np.mean([sum(weights[head][..., token] for token in concept.tokens) for head in range(3)], axis=0)
        np.testing.assert_allclose(look.sel(concept=name).values, expected, atol=1e-6)
    assert isinstance(look, xr.DataArray) and float(look.sum("concept").max()) < 1
