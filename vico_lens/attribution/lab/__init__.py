"""A flow laboratory: attention graphs small enough to solve by hand, in exact arithmetic.

`Network` is the graph, `Flow` what has been pushed through it so far and what the residual graph still lets through, `Game` one
exercise, `readings` what max flow, rollout and widest path say of the same capacities, and `presets` are networks worth solving.
"""

from vico_lens.attribution.lab.flow import Cut, Flow, Path
from vico_lens.attribution.lab.game import Game, cut_in_words, written
from vico_lens.attribution.lab.network import VIDEO, Edge, Network
from vico_lens.attribution.lab.presets import Preset, presets
from vico_lens.attribution.lab.readings import leaders, readings, rollout, widest_path

__all__ = [
    "VIDEO",
    "Cut",
    "Edge",
    "Flow",
    "Game",
    "Network",
    "Path",
    "Preset",
    "cut_in_words",
    "leaders",
    "presets",
    "readings",
    "rollout",
    "widest_path",
    "written",
]
