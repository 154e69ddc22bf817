"""Two checks that any explanation must pass: it depends on the model's weights, and it does not jump when its input hardly
moves. Both work on every method: an `explainer` makes of it a function of one denoiser call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vico_lens.attribution.base import METHODS, influence_of_stages
from vico_lens.attribution.facade import attribute
from vico_lens.attribution.replay import DenoiserCall, replayed, sampling_of
from vico_lens.attribution.trace_stages import GridChoice, choose_grid
from vico_lens.kernels.stages import Stage, stages_from_calls
from vico_lens.store.selection import Layers, matches, records
from vico_lens.tracing.tracer import observe

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Explain", "explainer", "live_stages", "shuffled_weights", "stability", "weight_dependence"]

Explain = Callable[[DenoiserCall], Tensor]


def live_stages(pipe: Any, call: DenoiserCall, text: Tensor | None = None) -> list[Stage]:
    """Repeat a denoiser call, with other text states if given, and return the stages of its conditional branch."""
    sample = next(value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Tensor) and value.ndim >= 3)
    conditional = range(call.rows.start, call.rows.stop)
    rows = [("cond", row - call.rows.start) if row in conditional else ("uncond", row) for row in range(sample.shape[0])]
    with torch.no_grad(), observe(pipe, rows=rows, step=call.step, timestep=call.timestep) as calls:  # type: ignore[arg-type]
        call.forward(call.text if text is None else text)
    return stages_from_calls([seen for seen in calls if seen.prompt == 0])


def explainer(
    tree: xr.DataTree,
    pipe: Any,
    method: str,
    concepts: Mapping[str, Sequence[int]],
    *,
    layers: Layers = None,
    grid: GridChoice = None,
    sampling: Mapping[str, Any] | None = None,
    prompt: int | None = None,
    **options: Any,
) -> Explain:
    """Make of a method a function of one denoiser call, so that it can be asked again after the model or the text has changed.

    Parameters
    ----------
    tree, pipe
        The trace, for its tokens, sites and sampling, and the pipeline that made it.
    method : str
        Any method. Those on stages read the attention of the call itself; those that need the pipeline repeat the call.
    concepts : mapping
        Names with token indices.
    layers, grid, sampling, prompt, **options
        As in `vico_lens.attribute`.

    Returns
    -------
    callable
        ``explain(call)``, the influence at the call's step, without a step axis: ``[concept, frame, y, x]`` or what the method
        gives.
    """
    asked = METHODS[method]
    if not asked.needs_pipe:
        target = choose_grid(records(tree, layers=layers, kinds=asked.reads), grid)
        spans = list(concepts.values())

        def of_stages(call: DenoiserCall) -> Tensor:
            stages = [stage for stage in live_stages(pipe, call) if matches(stage, layers)]
            return influence_of_stages(stages, spans, method, grid=target, **options)

        return of_stages

    run = sampling_of(tree, None, sampling, prompt)

    def of_model(call: DenoiserCall) -> Tensor:
        with replayed(pipe, run, [call]):
            found = attribute(
                tree, method, concepts, steps=call.step, grid=grid, pipe=pipe, sampling=sampling, prompt=prompt, **options
            )
        return torch.from_numpy(found.values)

    return of_model


@contextmanager
def shuffled_weights(module: nn.Module, seed: int = 0) -> Iterator[None]:
    """Inside the ``with``, the entries of every parameter are shuffled: the same numbers, nothing learned."""
    generator = torch.Generator().manual_seed(seed)
    kept = [(parameter, parameter.detach().clone()) for parameter in module.parameters()]
    try:
        with torch.no_grad():
            for parameter, values in kept:
                order = torch.randperm(values.numel(), generator=generator).to(values.device)
                parameter.copy_(values.flatten()[order].reshape(values.shape))
        yield
    finally:
        with torch.no_grad():
            for parameter, values in kept:
                parameter.copy_(values)


def weight_dependence(call: DenoiserCall, explain: Explain, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Explain a call with the trained and with shuffled weights of the denoiser (the sanity check of arXiv 1810.03292).

    Returns
    -------
    tuple of Tensor
        What `explain` gives of either; an explanation that hardly differs has not looked at the model.
    """
    trained = explain(call)
    with shuffled_weights(call.module, seed):
        return trained, explain(call)


def stability(call: DenoiserCall, explain: Explain, *, radius: float = 0.02, samples: int = 4, seed: int = 0) -> float:
    """Largest relative change of an explanation when the text states move a little: max-sensitivity of arXiv 1901.09392.

    Parameters
    ----------
    call : DenoiserCall
        A kept call.
    explain : callable
        A call to a tensor, such as an `explainer`.
    radius : float
        Largest change of an entry, in standard deviations of the text states.
    samples : int
        Random changes tried.
    seed : int
        Of the changes.
    """
    from captum.metrics import sensitivity_max

    def explained(inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        # A tuple, as captum 0.9 takes apart the explanation of the input itself without asking.
        return (torch.stack([explain(call.told(text)).flatten() for text in inputs[0]]),)

    text = call.text.float()[None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = sensitivity_max(
            explained,
            text,
            perturb_radius=radius * float(text.std()),
            n_perturb_samples=samples,
            max_examples_per_batch=1,
        )
    return float(found[0])
