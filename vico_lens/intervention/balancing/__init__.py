"""Balancing: move the latents of a running pipeline so that no concept of the prompt starves (arXiv:2407.06182)."""

from __future__ import annotations

from vico_lens.intervention.balancing.balancer import Balance, balance
from vico_lens.intervention.balancing.composition import compose
from vico_lens.intervention.balancing.influences import Flow
from vico_lens.intervention.balancing.objectives import (
    AttendAndExcite,
    Directed,
    Equal,
    Influences,
    Objective,
    Variance,
    Verdict,
    Weakest,
    objectives,
)
from vico_lens.intervention.balancing.presets import Preset, presets
from vico_lens.intervention.balancing.report import balance_report
from vico_lens.intervention.balancing.reweighting import reweight
from vico_lens.intervention.balancing.schedule import Refinement, Schedule
from vico_lens.intervention.balancing.seed_search import best_of
from vico_lens.intervention.balancing.session import Cost, Session
from vico_lens.intervention.balancing.steps import Adam, FixedRms, RandomDirection, StepRule

__all__ = [
    "Adam",
    "AttendAndExcite",
    "Balance",
    "Cost",
    "Directed",
    "Equal",
    "FixedRms",
    "Flow",
    "Influences",
    "Objective",
    "Preset",
    "RandomDirection",
    "Refinement",
    "Schedule",
    "Session",
    "StepRule",
    "Variance",
    "Verdict",
    "Weakest",
    "balance",
    "balance_report",
    "best_of",
    "compose",
    "objectives",
    "presets",
    "reweight",
]
