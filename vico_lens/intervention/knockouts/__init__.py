"""Knock-out: cut words out of attention while a stock pipeline samples, and map what every layer and step does for a word."""

from __future__ import annotations

from vico_lens.intervention.knockouts.effects import causal_map
from vico_lens.intervention.knockouts.plan import CausalPlan
from vico_lens.intervention.knockouts.session import Knockout, knockout

__all__ = ["CausalPlan", "Knockout", "causal_map", "knockout"]
