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
    """Base class of every error that vico-lens raises on purpose.

    Examples
    --------
    >>> from vico_lens import open_trace
    >>> try:
    ...     open_trace("missing.zarr")
    ... except VicoLensError as error:
    ...     print(type(error).__name__)
    StoreError
    """


class InputError(VicoLensError, ValueError):
    """An argument has the wrong type, shape or value (exit code 2 at the command line).

    Examples
    --------
    >>> issubclass(InputError, ValueError)
    True
    """


class ConceptError(InputError):
    """A concept is not in the prompt, or a prompt holds no concept.

    Examples
    --------
    >>> from vico_lens import find_concepts
    >>> from vico_lens.testing.traces import fake_trace
    >>> find_concepts(fake_trace(), ["green hexagon"])
    Traceback (most recent call last):
    ...
    vico_lens.errors.ConceptError: concept 'green hexagon' is not in the prompt 'a red circle ...
    """


class ModelError(VicoLensError):
    """A model folder is missing, incomplete, or not a text-to-video pipeline.

    Examples
    --------
    >>> from vico_lens import load_pipeline
    >>> load_pipeline("./no-such-folder")
    Traceback (most recent call last):
    ...
    vico_lens.errors.ModelError: expected a pipeline folder or a hub name such as ...
    """


class TracingError(VicoLensError):
    """A site recorded nothing, or the layout of an attention call is unknown.

    Examples
    --------
    >>> from vico_lens import trace
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with trace(tiny.pipe):
    ...     pass  # the pipeline is not called
    Traceback (most recent call last):
    ...
    vico_lens.errors.TracingError: expected the pipeline to be called inside the trace, but ...
    """


class BudgetError(TracingError):
    """The capture asked for would not fit the byte budget.

    Examples
    --------
    >>> from vico_lens import Capture, trace
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with trace(tiny.pipe, capture=Capture(budget="1kB")):
    ...     _ = tiny.run(seed=0)
    Traceback (most recent call last):
    ...
    vico_lens.errors.BudgetError: expected the capture to fit its budget of 1 kB, but 3 steps ...
    """


class StoreError(VicoLensError):
    """A trace store cannot be written or read.

    Examples
    --------
    >>> from vico_lens import open_trace
    >>> open_trace("missing.zarr")
    Traceback (most recent call last):
    ...
    vico_lens.errors.StoreError: expected a trace at missing.zarr; there is nothing. Check ...
    """


class SchemaError(StoreError):
    """A dataset is not a trace, or breaks the trace schema.

    Examples
    --------
    >>> import xarray as xr
    >>> from vico_lens.store.validation import validate_trace
    >>> validate_trace(xr.DataTree())
    Traceback (most recent call last):
    ...
    vico_lens.errors.SchemaError: not a valid trace: ...
    """


class AttributionError(VicoLensError):
    """A method cannot run on this trace, or its input is not usable.

    Examples
    --------
    >>> from vico_lens import attribute
    >>> from vico_lens.testing.traces import fake_trace
    >>> tree = fake_trace().filter(lambda node: not node.path.startswith("/cross"))
    >>> attribute(tree, "rollout")
    Traceback (most recent call last):
    ...
    vico_lens.errors.AttributionError: expected a trace with cross or joint attention; ...
    """


class BalanceError(VicoLensError):
    """A latent update cannot be applied: no gradient, unknown latents, or a non-finite value.

    Examples
    --------
    >>> from vico_lens import balance
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with balance(tiny.pipe) as session:
    ...     session.video
    Traceback (most recent call last):
    ...
    vico_lens.errors.BalanceError: expected a pipeline call that decodes its video inside the ...
    """
