"""Balancing a denoiser whose weights are brought in by accelerate's hooks: the gradient must outlive their leaving."""

from __future__ import annotations

from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from accelerate.hooks import remove_hook_from_module

from vico_lens.intervention.balancing import FixedRms, Schedule, balance
from vico_lens.testing.pipelines import tiny_pipeline


@pytest.mark.parametrize("name", ["animatediff-t2v", "cogvideox-t2v", "wan21-t2v"])
def test_offloading_does_not_change_what_balancing_does(name: str) -> None:
    settings: dict[str, Any] = {"step": FixedRms(0.02), "schedule": Schedule(stop=1.0)}
    tiny = tiny_pipeline(name)
    plain = tiny.run()
    with balance(tiny.pipe, ["red circle", "blue square"], **settings) as resident:
        expected = tiny.run()
    (denoiser,) = tiny.denoisers.values()
    accelerate.cpu_offload(denoiser, execution_device=torch.device("cpu"), offload_buffers=True)
    assert next(denoiser.parameters()).device.type == "meta"
    try:
        with balance(tiny.pipe, ["red circle", "blue square"], **settings) as offloaded:
            got = tiny.run()
        np.testing.assert_array_equal(tiny.run(), plain)
    finally:
        remove_hook_from_module(denoiser, recurse=True)
    assert len(offloaded.updates) == len(resident.updates) > 0
    np.testing.assert_array_equal(got, expected)
    assert not np.array_equal(got, plain)
