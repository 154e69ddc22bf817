"""What tells runs of a sweep apart: every field of a run, the model included, and seeds that no two runs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vico_lens.intervention import balancing
from vico_lens.intervention.balancing.seed_search import Best
from vico_lens.intervention.balancing.session import Cost
from vico_lens.runs.sweeps import Run, record, sweep
from vico_lens.runs.sweeps.sampling import sample_run

PLAIN = {"prompt": "a cat", "seed": 0, "condition": "plain", "settings": None, "call": {}, "model": "one"}


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a dog"}, {"seed": 1}, {"condition": "other"}, {"settings": {}}, {"call": {"steps": 2}}, {"model": "two"}],
    ids=lambda change: next(iter(change)),
)
def test_every_field_of_a_run_is_part_of_its_key(change: dict[str, Any]) -> None:
    assert Run(**PLAIN).key == Run(**dict(PLAIN)).key != Run(**(PLAIN | change)).key


def test_two_models_in_one_folder_have_records_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def sample(pipe: Any, run: Run) -> tuple[np.ndarray, dict[str, Any]]:
        made.append(pipe)
        return np.zeros((1, 2, 2, 3), np.uint8), {"seconds": 0.0}

    monkeypatch.setattr(record, "sample_run", sample)
    keys = [sweep(name, ["a cat"], [0], {"plain": None}, tmp_path, model=name).key.item() for name in ("one", "two", "one")]
    assert made == ["one", "two"] and keys[0] == keys[2] != keys[1]


def test_best_of_never_looks_at_the_seed_of_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []

    def best_of(pipe: Any, concepts: Any, seeds: list[int], **_: Any) -> Best:
        asked.append(seeds)
        return Best(np.zeros((1, 2, 2, 3), np.uint8), seeds[0], {}, Cost())

    monkeypatch.setattr(balancing, "best_of", best_of)
    for seed in range(50):
        sample_run(None, Run("p", seed, "best", {"baseline": "best_of", "count": 3}, {}))
    assert [seeds[0] for seeds in asked] == list(range(50)) and all(len(seeds) == 3 for seeds in asked)
    assert len({seed for seeds in asked for seed in seeds}) == 150
