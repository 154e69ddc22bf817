"""One forward of a denoiser without computing anything: which attention calls it makes, and how large they are.

The stock pipeline prepares the denoiser's inputs as always, text encoder included, and is stopped there. The denoiser itself then
runs on fake tensors, which have shapes and no numbers: no memory, no weights read, a fraction of a second for billions of
parameters. Models that look into their inputs (which tokens are padding) cannot run so; they run once for real.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from vico_lens.errors import TracingError
from vico_lens.tracing.attention_calls import Label, Pass, Watch
from vico_lens.tracing.interception import intercept
from vico_lens.tracing.running_call import StopCall
from vico_lens.vocabulary.schema import AttentionCall, Branch

__all__ = ["DryCalls", "dry_calls", "first_moment", "weights_absent"]


@dataclass(frozen=True, slots=True)
class DryCalls:
    """What one denoiser forward does, as far as tracing is concerned; its tensors have shapes and no numbers.

    Attributes
    ----------
    calls : tuple of AttentionCall
        Its attention calls, of the guidance branches asked for.
    labels : tuple
        Guidance branch and prompt of each row, as `calls` were told apart.
    real : bool
        Whether the forward ran on numbers.
    """

    calls: tuple[AttentionCall, ...]
    labels: tuple[Label | None, ...]
    real: bool


def first_moment(pipe: Any, call: Callable[[], object]) -> Pass:
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
    found: list[Pass] = []

    def stop(moment: Pass) -> None:
        found.append(moment)
        raise StopCall

    watch = Watch(pipe, lambda _: None, begin=stop)
    try:
        with intercept(watch.roots, watch, exclusive=True), torch.random.fork_rng(devices=[]):
            call()
    except StopCall:
        if hasattr(pipe, "maybe_free_model_hooks"):
            pipe.maybe_free_model_hooks()
        return found[0]
    raise TracingError(
        f"expected the call of {type(pipe).__name__} to run its denoiser ({', '.join(watch.roots)}), but it never did."
    )


def dry_calls(pipe: Any, moment: Pass, branches: tuple[Branch, ...]) -> DryCalls:
    """Return the attention calls of a denoiser forward like `moment`, of all branches asked for.

    Parameters
    ----------
    pipe : object
        The pipeline.
    moment : Pass
        A forward that has begun.
    branches : tuple of str
        Guidance branches. Where they come in passes of their own, the one at hand stands for all.
    """
    labels = moment.labels
    if {label[0] for label in labels if label is not None} != {"cond", "uncond"}:
        labels = tuple(("cond", row) for row in range(len(labels)))
        branches = ("cond",)
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        return _forward(pipe, moment, labels, branches, mode)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        if weights_absent(moment.forward.module):
            raise TracingError(
                f"expected {type(moment.forward.module).__name__} to run without its weights, but it looks into its inputs "
                f"({str(error).splitlines()[0]}): give it weights, random ones will do."
            ) from None
        # data-dependent shapes end here, in many guises; a fault of the model shows again in the real forward
    try:
        return _forward(pipe, moment, labels, branches, None)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise TracingError(
            f"expected {type(moment.forward.module).__name__} to run on what the pipeline prepared for it, got "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0]}. The pipeline call itself would fail in the same way: "
            "check its height, width and num_frames."
        ) from error


def weights_absent(module: nn.Module) -> bool:
    """Whether the weights of a module are nowhere: it was built under ``torch.device("meta")``, and no offloading brings them."""
    offloaded = any(hasattr(part, "_hf_hook") for part in module.modules())
    return not offloaded and any(parameter.is_meta for parameter in module.parameters())


def _forward(pipe: Any, moment: Pass, labels: Any, branches: tuple[Branch, ...], mode: Any) -> DryCalls:
    calls: list[AttentionCall] = []

    def keep(call: AttentionCall) -> None:
        query, key, bias = _shape(call.query), _shape(call.key), _shape(call.bias)
        calls.append(replace(call, query=query, key=key, bias=bias, probabilities=_shape(call.probabilities)))

    watch = Watch(pipe, keep, branches, rows=labels, step=0, timestep=0.0, forward=moment.forward)
    root = moment.forward.module
    inputs = dict(moment.forward.inputs)
    extra = inputs.pop("kwargs", {})
    if mode is not None:
        # A model built from its configuration alone has its weights nowhere (device "meta"): then the inputs go there too.
        absent = weights_absent(root)

        def fake(x: Any) -> Any:
            return x if not isinstance(x, Tensor) else mode.from_tensor(x.to("meta") if absent else x)

        inputs, extra = tree_map(fake, (inputs, extra))
    watched = intercept({moment.denoiser: root}, watch, exclusive=True)
    with watched as watch.interception, torch.no_grad(), mode or nullcontext():
        root(**inputs, **extra)
    return DryCalls(tuple(calls), tuple(labels), real=mode is None)


def _shape(x: Tensor | None) -> Tensor | None:
    """The tensor without its numbers; how it lies in memory stays."""
    return None if x is None else torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
