"""Named settings of the whole update: step rule, schedule, objective, flow and its options.

``vico`` is what the released code does (arXiv:2407.06182 and its defaults, at 50 steps exactly so; other lengths in proportion),
with its arithmetic in float32. ``observe`` moves nothing and logs the influences, ``random`` is ``default`` in a random
direction.

``default`` is ours, chosen on the bundled world by 48 two-object prompts that no report uses: of the objectives only `weakest`
gained at any size, over the sum flow most; steps of 0.03 gained, of 0.12 did harm, and a threshold of 0.5 took the gain back.
Concepts that include their motion words, or competition among the concepts alone, gained less. `benchmarks.reliability` says what
it does on 200 other prompts: nearly all missing objects appear, and about as many motions get mixed up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from vico_lens.balancing.schedule import Refinement, Schedule
from vico_lens.balancing.steps import Adam, FixedRms, RandomDirection, StepRule
from vico_lens.registry import Registry

__all__ = ["Preset", "presets"]


@dataclass(frozen=True, slots=True)
class Preset:
    """One complete setting.

    Attributes
    ----------
    step : StepRule
        How far to move.
    schedule : Schedule
        When to move.
    objective : str
        Name in the registry of objectives.
    flow : str
        Attribution method that gives the influences.
    flow_options : mapping
        Its options.

    Examples
    --------
    >>> sorted(presets)
    ['default', 'observe', 'random', 'vico']
    >>> presets["default"].step
    FixedRms(size=0.03, decay=1.0)
    """

    step: StepRule
    schedule: Schedule
    objective: str = "weakest"
    flow: str = "subgraph_flow"
    flow_options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


presets: Registry[Preset] = Registry("balancing preset", "vico_lens.balancing_presets")

_DEFAULT = Preset(
    FixedRms(size=0.03),
    # The threshold only ends updates where the objective has nothing left to gain; a real one (0.5) took back what was won.
    Schedule(stop=0.4, iterations=1, threshold=0.01),
    objective="weakest",
    flow_options={"kind": "sum"},
)

presets.add("default", _DEFAULT)
presets.add(
    "vico",
    Preset(
        Adam(rate=1e-4, decay=0.5, epsilon=1e-7),
        Schedule(
            stop=0.5,
            iterations=1,
            threshold=0.2,
            refinements=(Refinement(0.0, 10, 0.95), Refinement(0.2, 10, 0.5), Refinement(0.4, 10, 0.2)),
        ),
        objective="weakest",
        flow_options={"kind": "soft", "tau": 0.01, "parity": True},
    ),
)
presets.add(
    "observe", Preset(_DEFAULT.step, Schedule(stop=1.0, iterations=0), _DEFAULT.objective, _DEFAULT.flow, _DEFAULT.flow_options)
)
presets.add(
    "random", Preset(RandomDirection(_DEFAULT.step), _DEFAULT.schedule, _DEFAULT.objective, _DEFAULT.flow, _DEFAULT.flow_options)
)
