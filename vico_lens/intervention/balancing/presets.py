"""Named settings of the whole update: step rule, schedule, objective, flow and its options.

``vico`` is what the released code does (arXiv:2407.06182 and its defaults, at 50 steps exactly so; other lengths in proportion),
with its arithmetic in float32. ``observe`` moves nothing and logs the influences, ``random`` is ``default`` in a random
direction, ``objects`` lifts the weakest concept over the (+, min) subgraph flow and looks at nothing else.

``default`` was chosen on two-object prompts of the bundled world that no report uses. There half of all failures are motions that
get mixed up, and what lifts the weakest concept alone mixes more of them: ``objects`` brings nearly all missing objects back and
gains nothing in all. ``directed`` adds where the words send each concept. Of 32 clips with two different directions 19 came
right, against 8 plain; with steps of 0.03, a motion weight of 8 or maps of the rollout 14 to 17 did. `benchmarks.study` says what
it does on 200 other prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from vico_lens.intervention.balancing.schedule import Refinement, Schedule
from vico_lens.intervention.balancing.steps import Adam, FixedRms, RandomDirection, StepRule
from vico_lens.vocabulary.registry import Registry

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
    ['default', 'objects', 'observe', 'random', 'vico']
    >>> presets["objects"].step
    FixedRms(size=0.03, decay=1.0)
    """

    step: StepRule
    schedule: Schedule
    objective: str = "weakest"
    flow: str = "subgraph_flow"
    flow_options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


presets: Registry[Preset] = Registry("balancing preset", "vico_lens.balancing_presets")

_DEFAULT = Preset(FixedRms(size=0.05), Schedule(stop=0.4, iterations=1, threshold=0.01), "directed", "cross_attention")

presets.add("default", _DEFAULT)
presets.add(
    "objects",
    Preset(
        FixedRms(size=0.03),
        # The threshold only ends updates where the objective has nothing left to gain; a real one (0.5) took back what was won.
        Schedule(stop=0.4, iterations=1, threshold=0.01),
        "weakest",
        "subgraph_flow",
        {"kind": "sum"},
    ),
)
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
