"""Numbers narrowed to float16 keep their values; see section 1 of tests/kernels/oracles.md for what is exact and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vico_lens.store.precision import narrow
from vico_lens.store.writer import TraceWriter
from vico_lens.testing.traces import fake_calls, fake_sites, fake_tokens, record


@pytest.mark.parametrize("largest", [6.4e4, 6.6e4, 1e5, 3e38, -1e5, -3e38, 1e-6, -1e-30])
def test_bfloat16_of_any_size_comes_back_to_the_last_bit(largest: float) -> None:
    values = (torch.tensor([1, 0.7, 2.0**-10, 1.3 * 2.0**-20, 0]) * largest).to(torch.bfloat16)
    copy, factor = narrow(values, torch.float16)
    assert copy.dtype == np.float16 and np.isfinite(copy).all()
    np.testing.assert_array_equal(copy.astype(np.float64) * factor, values.double().numpy())


def test_values_that_fit_are_not_touched() -> None:
    values = torch.tensor([1.0, -3.5, 30000.0], dtype=torch.bfloat16)
    copy, factor = narrow(values, torch.float16)
    assert factor == 1
    np.testing.assert_array_equal(copy, values.double().numpy())


@pytest.mark.parametrize("family", ["unet", "joint"])
def test_a_model_beyond_the_range_of_float16_has_the_same_attention(family: str) -> None:
    """Queries times 2**20 and keys divided by it have the same products; 2**20 lies beyond the range of float16."""
    calls = fake_calls(fake_sites(family, grid=(2, 2, 2), coarse=None, blocks=1), dtype=torch.bfloat16)  # type: ignore[arg-type]
    moved = [replace(call, query=call.query * 2.0**20, key=call.key * 2.0**-20) for call in calls]
    plain, far = (
        record(TraceWriter(None, form="factors"), part, [fake_tokens()], {"prompt": "p"}, steps=[0]) for part in (calls, moved)
    )
    for call in calls:
        for name, expected in plain[call.site.group].data_vars.items():
            np.testing.assert_array_equal(far[call.site.group][name].values, expected.values, err_msg=f"{call.site.kind} {name}")
