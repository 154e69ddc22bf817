"""One forward of a denoiser without computing anything: which attention calls it makes, and how large they are.

The stock pipeline prepares the denoiser's inputs as always, text encoder included, and is stopped there. The denoiser itself then
runs on fake tensors, which have shapes and no numbers: no memory, no weights read, a fraction of a second for billions of
parameters. Models that look into their inputs (which tokens are padding) cannot run so; they run once for real.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from vico_lens.errors import TracingError
from vico_lens.interception import intercept
from vico_lens.schema import AttentionCall, Branch
from vico_lens.watch import Moment, Watch

__all__ = ["DryCalls", "dry_calls", "first_moment"]


@dataclass(frozen=True, slots=True)
class DryCalls:
    """The attention calls of one denoiser forward, tensors without numbers, and whether the forward was a real one."""

    calls: tuple[AttentionCall, ...]
    real: bool


class _Stop(BaseException):
    """Leaves a pipeline call at its first denoiser forward; no `except Exception` of a pipeline holds it up."""


def first_moment(pipe: Any, call: Callable[[], object]) -> Moment:
    """Run a pipeline call up to its first denoiser forward, and return that.

    Parameters
    ----------
    pipe : object
        The pipeline.
    call : callable
        Calls it.

    Raises
    ------
    TracingError
        If the call ends without running the denoiser.
    """
    found: list[Moment] = []

    def stop(moment: Moment) -> None:
        found.append(moment)
        raise _Stop

    watch = Watch(pipe, lambda _: None, begin=stop)
    try:
        with intercept(watch.roots, watch, exclusive=True), torch.random.fork_rng(devices=[]):
            call()
    except _Stop:
        if hasattr(pipe, "maybe_free_model_hooks"):
            pipe.maybe_free_model_hooks()
        return found[0]
    raise TracingError(
        f"expected the call of {type(pipe).__name__} to run its denoiser ({', '.join(watch.roots)}), but it never did."
    )


def dry_calls(pipe: Any, moment: Moment, branches: tuple[Branch, ...]) -> DryCalls:
    """Return the attention calls of a denoiser forward like `moment`, of all branches asked for.

    Parameters
    ----------
    pipe : object
        The pipeline.
    moment : Moment
        A forward that has begun.
    branches : tuple of str
        Guidance halves. Where halves come in passes of their own, the one at hand stands for all.
    """
    labels = moment.labels
    if {label[0] for label in labels if label is not None} != {"cond", "uncond"}:
        labels = tuple(("cond", row) for row in range(len(labels)))
        branches = ("cond",)
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        return DryCalls(_forward(pipe, moment, labels, branches, mode), real=False)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        if _absent(moment.forward.module):
            raise TracingError(
                f"expected {type(moment.forward.module).__name__} to run without its weights, but it looks into its inputs "
                f"({str(error).splitlines()[0]}): give it weights, random ones will do."
            ) from None
        # data-dependent shapes end here, in many guises; a fault of the model shows again in the real forward
        return DryCalls(_forward(pipe, moment, labels, branches, None), real=True)


def _absent(module: nn.Module) -> bool:
    """Whether the weights of a module are nowhere: it was built under ``torch.device("meta")``, and no offloading brings them."""
    offloaded = any(hasattr(part, "_hf_hook") for part in module.modules())
    return not offloaded and any(parameter.is_meta for parameter in module.parameters())


def _forward(pipe: Any, moment: Moment, labels: Any, branches: tuple[Branch, ...], mode: Any) -> tuple[AttentionCall, ...]:
    calls: list[AttentionCall] = []

    def keep(call: AttentionCall) -> None:
        empty = [None if x is None else torch.empty(x.shape, dtype=x.dtype, device="meta") for x in (call.query, call.key)]
        call.query, call.key = empty
        if call.probabilities is not None:
            call.probabilities = torch.empty(call.probabilities.shape, dtype=call.probabilities.dtype, device="meta")
        if call.bias is not None:
            call.bias = torch.empty(call.bias.shape, dtype=call.bias.dtype, device="meta")
        calls.append(call)

    watch = Watch(pipe, keep, branches, rows=labels, step=0, timestep=0.0, forward=moment.forward)
    root = moment.forward.module
    inputs = dict(moment.forward.inputs)
    extra = inputs.pop("kwargs", {})
    if mode is not None:
        # A model built from its configuration alone has its weights nowhere (device "meta"): then the inputs go there too.
        absent = _absent(root)

        def fake(x: Any) -> Any:
            return x if not isinstance(x, Tensor) else mode.from_tensor(x.to("meta") if absent else x)

        inputs, extra = tree_map(fake, (inputs, extra))
    with intercept({moment.denoiser: root}, watch, exclusive=True) as watch.interception, torch.no_grad(), mode or nullcontext():
        root(**inputs, **extra)
    return tuple(calls)
