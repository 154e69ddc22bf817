"""Schedules: the published one, and the cost cap."""

from __future__ import annotations

import pytest

from vico_lens.errors import InputError
from vico_lens.intervention.balancing.presets import presets
from vico_lens.intervention.balancing.schedule import Plan, Schedule


def test_vico_schedule_at_fifty_steps() -> None:
    schedule = presets["vico"].schedule
    plans = [schedule.plan(step, 50) for step in range(50)]
    assert plans[0] == Plan(10, 0.95) and plans[10] == Plan(10, 0.5) and plans[20] == Plan(10, 0.2)
    assert plans[25:] == [None] * 25
    others = [plan for step, plan in enumerate(plans[:25]) if step not in (0, 10, 20)]
    assert others == [Plan(1, 0.2)] * 22
    assert sum(plan.iterations for plan in plans if plan) == 52


def test_chosen_steps_win_over_shares() -> None:
    schedule = Schedule(steps=(2, 7), stop=0.1)
    assert [step for step in range(10) if schedule.plan(step, 10)] == [2, 7]


@pytest.mark.parametrize(("rows", "expected"), [(2, 5), (1, 2)])
def test_cost_cap_counts_forward_and_backward(rows: int, expected: int) -> None:
    schedule = Schedule(cost_cap=1.5)
    affordable = next(made for made in range(100) if not schedule.affords(made, 10, rows))
    assert affordable == expected
    assert 1 + 2 * affordable / (10 * rows) <= 1.5 < 1 + 2 * (affordable + 1) / (10 * rows)


@pytest.mark.parametrize("settings", [{"start": 0.6, "stop": 0.5}, {"stop": 1.5}, {"iterations": -1}, {"cost_cap": 0.9}])
def test_settings_without_meaning_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        Schedule(**settings)  # type: ignore[arg-type]
