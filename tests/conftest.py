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

# Two cores: more threads than one slow tiny tensors down, and make float sums depend on the machine.
torch.set_num_threads(1)

# With --doctest-modules pytest would collect these as modules of one name; they are loaded as plugins anyway.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

settings.register_profile(
    "vico-lens", max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("vico-lens")


@pytest.fixture(autouse=True)
def fixed_seeds() -> Iterator[None]:
    """Every test starts from the same global random state, and leaves no changed one behind."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
