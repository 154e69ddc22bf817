"""Live and demonstration runs: the bundled model samples on one thread, whatever the machine has, and gives them back."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vico_lens.runs.request import Request


class Pipe:
    """Notes how many threads it was sampled with."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def set_progress_bar_config(self, **_: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.threads.append(torch.get_num_threads())
        return SimpleNamespace(frames=np.zeros((1, 2, 4, 4, 3), np.float32))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("model", "threads"), [(None, 1), ("mine", 2)])
def test_the_bundled_model_samples_on_one_thread(two_threads: None, model: str | None, threads: int) -> None:
    pipe = Pipe()
    Request("a red circle", model).sample(pipe, "sampling")
    assert pipe.threads == [threads] and torch.get_num_threads() == 2
