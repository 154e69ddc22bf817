"""Two checks that any explanation must pass: it depends on the model's weights, and it does not jump when its input hardly
moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vico_lens.attribution.replay import DenoiserCall
from vico_lens.kernels.stages import Stage, stages_from_calls
from vico_lens.tracer import observe

__all__ = ["live_stages", "shuffled_weights", "stability", "weight_dependence"]

Explain = Callable[[Sequence[Stage]], Tensor]


def live_stages(pipe: Any, call: DenoiserCall, text: Tensor | None = None) -> list[Stage]:
    """Repeat a denoiser call, with other text states if given, and return the stages of its conditional branch."""
    sample = next(value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Tensor) and value.ndim >= 3)
    conditional = range(call.rows.start, call.rows.stop)
    rows = [("cond", row - call.rows.start) if row in conditional else ("uncond", row) for row in range(sample.shape[0])]
    with torch.no_grad(), observe(pipe, rows=rows, step=call.step, timestep=call.timestep) as calls:  # type: ignore[arg-type]
        call.forward(call.text if text is None else text)
    return stages_from_calls([seen for seen in calls if seen.prompt == 0])


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


def weight_dependence(pipe: Any, call: DenoiserCall, explain: Explain, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Explain a call with the trained and with shuffled weights (the sanity check of arXiv 1810.03292).

    Returns
    -------
    tuple of Tensor
        What `explain` gives of either; an explanation that hardly differs has not looked at the model.
    """
    trained = explain(live_stages(pipe, call))
    with shuffled_weights(call.module, seed):
        return trained, explain(live_stages(pipe, call))


def stability(pipe: Any, call: DenoiserCall, explain: Explain, *, radius: float = 0.02, samples: int = 4, seed: int = 0) -> float:
    """Largest relative change of an explanation when the text states move a little: max-sensitivity of arXiv 1901.09392.

    Parameters
    ----------
    pipe, call
        A kept denoiser call of the pipeline.
    explain : callable
        Stages to a tensor.
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
        return (torch.stack([explain(live_stages(pipe, call, text)).flatten() for text in inputs[0]]),)

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
