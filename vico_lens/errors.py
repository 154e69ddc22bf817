"""Every error this package raises on purpose.

A user meets an error at the worst moment, after a long run or in front of a class. So each message says three things in this
order: what was expected, what came instead, and what to do. One base class lets a caller catch all of them; the command line
turns them into one line and an exit code.
"""

from __future__ import annotations

__all__ = [
    "AttributionError",
    "BalanceError",
    "BudgetError",
    "ConceptError",
    "InputError",
    "ModelError",
    "SchemaError",
    "StoreError",
    "TracingError",
    "VicoLensError",
]


class VicoLensError(Exception):
    """Base class of every error that vico-lens raises on purpose."""


class InputError(VicoLensError, ValueError):
    """An argument has the wrong type, shape or value (exit code 2 at the command line)."""


class ConceptError(InputError):
    """A concept is not in the prompt, or a prompt holds no concept."""


class ModelError(VicoLensError):
    """A model folder is missing, incomplete, or not a text-to-video pipeline."""


class TracingError(VicoLensError):
    """A site recorded nothing, or the layout of an attention call is unknown."""


class BudgetError(TracingError):
    """The capture asked for would not fit the byte budget."""


class StoreError(VicoLensError):
    """A trace store cannot be written or read."""


class SchemaError(StoreError):
    """A dataset is not a trace, or breaks the trace schema."""


class AttributionError(VicoLensError):
    """A method cannot run on this trace, or its input is not usable."""


class BalanceError(VicoLensError):
    """A latent update cannot be applied: no gradient, unknown latents, or a non-finite value."""
