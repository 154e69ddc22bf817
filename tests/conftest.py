"""What holds in every test: one torch thread, fixed seeds, no model hub, bounded hypothesis runs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

# Before any import of huggingface_hub, which reads these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from vico_lens.testing.pipelines.releases import too_new

# Two cores: more threads than one slow tiny tensors down, and make float sums depend on the machine.
torch.set_num_threads(1)

# With --doctest-modules pytest would collect these as modules of one name; they are loaded as plugins anyway.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

settings.register_profile(
    "vico-lens", max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("vico-lens")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what an older diffusers cannot build; with the newest release nothing is skipped."""
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")  # type: ignore[attr-defined]
        if isinstance(name, str) and (reason := too_new(name)):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def fixed_seeds() -> Iterator[None]:
    """Every test starts from the same global random state, and leaves no changed one behind."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
