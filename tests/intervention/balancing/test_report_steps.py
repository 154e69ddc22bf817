"""Shares of the report: of the first iteration of each step, so that a plain and a balanced run are asked at equal moments."""

from __future__ import annotations

import numpy as np
import pytest

from vico_lens.intervention.balancing import balance_report
from vico_lens.intervention.balancing.log import Update
from vico_lens.intervention.balancing.session import Cost, Session


class Told(Session):
    """A session that was told what it did."""

    def __init__(self, rows: list[tuple[int, int, float]]) -> None:
        super().__init__(None, {})
        self.videos, self.cost = [np.zeros((1, 4, 4, 3), np.uint8)], Cost(forwards=2, rows=2, seconds=1.0)
        self.rows = [
            Update(0, step, i, 0, 9.0, 0.5, {"cat": cat, "dog": 1 - cat}, {"cat": cat, "dog": 1 - cat}) for step, i, cat in rows
        ]

    @property
    def updates(self) -> list[Update]:
        return self.rows


def test_shares_are_those_before_the_first_update_of_each_common_step() -> None:
    plain = Told([(0, 0, 0.9), (1, 0, 0.7), (2, 0, 0.1)])  # step 2 was not looked at in the balanced run
    balanced = Told([(0, 0, 0.9), (0, 1, 0.6), (0, 2, 0.5), (1, 0, 0.5), (1, 1, 0.3)])
    report = balance_report(plain, balanced)
    assert report.share.sel(concept="cat").values == pytest.approx([(0.9 + 0.7) / 2, (0.9 + 0.5) / 2])
    assert report.attrs["compared_steps"] == [0, 1]
