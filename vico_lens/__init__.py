"""vico-lens: trace, attribute and balance attention flow in text-to-video diffusion models.

The public names fit on one screen and are loaded on first use, so that ``import vico_lens`` costs milliseconds and a laptop that
only looks at traces never imports diffusers, captum or a plotting library.

>>> import vico_lens as vl
>>> "attribute" in dir(vl)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> the module that holds it. No module at the root shares a name with them, so importing one changes no name.
_HOME = {
    "AttentionGraph": "vico_lens.attribution.graph",
    "Capture": "vico_lens.tracing.capture",
    "Concept": "vico_lens.vocabulary.concepts",
    "VicoLensError": "vico_lens.errors",
    "attribute": "vico_lens.attribution",
    "balance": "vico_lens.intervention.balancing",
    "balance_report": "vico_lens.intervention.balancing",
    "causal_map": "vico_lens.intervention.knockouts",
    "compare": "vico_lens.attribution.judging.comparison",
    "dominance": "vico_lens.attribution.dominance",
    "estimate": "vico_lens.tracing.cost.estimate",
    "find_concepts": "vico_lens.vocabulary.concepts",
    "invert": "vico_lens.intervention.inversion",
    "knockout": "vico_lens.intervention.knockouts",
    "load_pipeline": "vico_lens.tracing.pipelines",
    "methods": "vico_lens.attribution.base",
    "open_trace": "vico_lens.store.opening",
    "register_method": "vico_lens.attribution",
    "save_trace": "vico_lens.store.saving",
    "sweep": "vico_lens.runs.sweeps",
    "trace": "vico_lens.tracing.recording",
}
_MODULES = ("plot", "testing", "tinyworld")

__all__ = [
    "AttentionGraph",
    "Capture",
    "Concept",
    "VicoLensError",
    "attribute",
    "balance",
    "balance_report",
    "causal_map",
    "compare",
    "dominance",
    "estimate",
    "find_concepts",
    "invert",
    "knockout",
    "load_pipeline",
    "methods",
    "open_trace",
    "plot",
    "register_method",
    "save_trace",
    "sweep",
    "testing",
    "tinyworld",
    "trace",
]

if TYPE_CHECKING:
    from vico_lens import plot, testing, tinyworld
    from vico_lens.attribution import attribute, register_method
    from vico_lens.attribution.base import methods
    from vico_lens.attribution.dominance import dominance
    from vico_lens.attribution.graph import AttentionGraph
    from vico_lens.attribution.judging.comparison import compare
    from vico_lens.errors import VicoLensError
    from vico_lens.intervention.balancing import balance, balance_report
    from vico_lens.intervention.inversion import invert
    from vico_lens.intervention.knockouts import causal_map, knockout
    from vico_lens.runs.sweeps import sweep
    from vico_lens.store.opening import open_trace
    from vico_lens.store.saving import save_trace
    from vico_lens.tracing.capture import Capture
    from vico_lens.tracing.cost.estimate import estimate
    from vico_lens.tracing.pipelines import load_pipeline
    from vico_lens.tracing.recording import trace
    from vico_lens.vocabulary.concepts import Concept, find_concepts


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
