"""Gradient and perturbation methods of captum on the text states, against what the prompt does to the denoiser's prediction.

The score of a text is how far it moves the prediction from that of the empty prompt, along the direction in which the traced
prompt moves it; the traced prompt itself scores 1 over the whole video, the empty one 0. So attributions are shares of the
prompt's effect, and methods with a completeness property (integrated gradients, Shapley values) add up to 1 over all tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vico_lens.attribution.base import Answer, Problem, register_method
from vico_lens.attribution.methods.max_flow import Sink, shaped, sink_dims, sinks_of
from vico_lens.attribution.replay import DenoiserCall, record_calls, sampling_of, text_of_prompt
from vico_lens.errors import InputError
from vico_lens.kernels.resampling import resample_axes

__all__ = ["PromptEffect", "feature_ablation", "input_x_gradient", "integrated_gradients", "shapley_values"]

# Groups of tokens up to which Shapley values run over all orders; the model itself is asked once a subset, 2 to the power of
# this.
_MOST_EXACT_GROUPS = 6


class PromptEffect:
    """Score of texts for one denoiser call, ``[batch, token, channel]`` to ``[batch, target]``; the empty prompt scores 0.

    Parameters
    ----------
    call : DenoiserCall
        The call to repeat.
    null : Tensor
        Text states of the empty prompt, ``[token, channel]``.
    problem : Problem
        For the token grid.
    target : {"video", "frame", "token"} or mask
        Where the prediction counts.
    """

    def __init__(self, call: DenoiserCall, null: Tensor, problem: Problem, target: Sink) -> None:
        self.call, self.grid = call, problem.grid
        frames, rows, columns = problem.grid
        chosen = sinks_of(target, problem.grid)
        named = {
            "video": lambda: torch.ones(1, frames, 1, 1).expand(-1, -1, rows, columns),
            "frame": lambda: torch.eye(frames)[:, :, None, None].expand(-1, -1, rows, columns),
            "token": lambda: torch.eye(frames * rows * columns).reshape(-1, frames, rows, columns),
        }
        self.masks = named[chosen]() if isinstance(chosen, str) else chosen.float().reshape(-1, *problem.grid)
        with torch.no_grad():
            self.start = call.predict(null, problem.grid)
            direction = call.predict(call.text, problem.grid) - self.start
        size = direction.square().sum()
        if not bool(size > 0):
            raise InputError("the prompt does not change the denoiser's prediction: there is nothing to attribute. Is it empty?")
        self.direction = direction / size
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, texts: Tensor) -> Tensor:
        """Score each text of a batch; texts without a gradient are scored once and remembered."""
        return torch.stack([self._one(text) for text in texts])

    def _one(self, text: Tensor) -> Tensor:
        if text.requires_grad:
            return self._score(text)
        key = text.detach().float().cpu().numpy().tobytes()
        if key not in self.known:
            with torch.no_grad():
                self.known[key] = self._score(text)
        return self.known[key]

    def _score(self, text: Tensor) -> Tensor:
        moved = ((self.call.predict(text, self.grid) - self.start) * self.direction).sum(-1)
        at_tokens = resample_axes(moved, [0, 1, 2], self.grid, "sum")
        return torch.einsum("fyx,sfyx->s", at_tokens, self.masks.to(at_tokens))


# text and null states [1, token, channel], groups of tokens [1, token, channel], target index -> attribution [1, token, channel]
Engine = Callable[[PromptEffect, Tensor, Tensor, Tensor, int], Tensor]


def _attribute(
    problem: Problem, engine: Engine, target: Sink, seed: int | None, sampling: Mapping[str, Any] | None, *, grouped: bool
) -> Answer:
    """Run one captum method at every step and target; collect tokens into concepts."""
    run = sampling_of(problem.trace, seed, sampling, problem.prompt)
    calls = record_calls(problem.pipe, run, problem.steps)
    null = text_of_prompt(problem.pipe, run, "", len(calls[problem.steps[0]].text))
    steps = []
    for step in problem.steps:
        call = calls[step]
        effect = PromptEffect(call, null, problem, target)
        text = call.text.detach().float()[None]
        groups = _groups(problem, text)
        columns = []
        for index in range(len(effect.masks)):
            found = engine(effect, text, null.float()[None], groups, index)[0].detach()
            per_token = found[:, 0] if grouped else found.sum(-1)
            columns.append(
                torch.stack([per_token[span[0]] if grouped else per_token[list(span)].sum() for span in problem.tokens])
            )
        steps.append(shaped(torch.stack(columns, 1), target, problem.grid))
    dims = sink_dims(target)
    return Answer(torch.stack(steps, 1), ("concept", "step", *dims[1:]), attrs={"units": "share of the prompt's effect"})


def _groups(problem: Problem, text: Tensor) -> Tensor:
    """Number of each token's concept, ``[1, token, channel]``; the tokens of no concept are one more group."""
    groups = torch.full(text.shape[:2], len(problem.tokens), dtype=torch.long)
    for index, span in enumerate(problem.tokens):
        if max(span) >= text.shape[1] or bool((groups[0, list(span)] != len(problem.tokens)).any()):
            raise InputError(
                f"expected concepts that share no token, within the {text.shape[1]} text states; got {problem.tokens}."
            )
        groups[0, list(span)] = index
    return groups[..., None].expand(text.shape).contiguous()


@register_method(
    "integrated_gradients",
    needs_pipe=True,
    cost="one sampling run up to the last step, then n_steps forward and backward passes a step and target",
    references="arXiv 1703.01365",
)
def integrated_gradients(
    problem: Problem,
    target: Sink = "video",
    n_steps: int = 20,
    seed: int | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> Answer:
    """Gradient of the prompt's effect along the line from the empty prompt's text states; sums to the effect over all tokens."""
    from captum.attr import IntegratedGradients

    def engine(effect: PromptEffect, text: Tensor, null: Tensor, groups: Tensor, index: int) -> Tensor:
        method = IntegratedGradients(effect)
        found: Tensor = method.attribute(
            text, baselines=null, target=index, n_steps=n_steps, method="gausslegendre", internal_batch_size=1
        )
        return found

    return _attribute(problem, engine, target, seed, sampling, grouped=False)


@register_method(
    "input_x_gradient",
    needs_pipe=True,
    cost="one sampling run up to the last step, then one forward and backward pass a step and target",
    references="arXiv 1605.01713",
)
def input_x_gradient(
    problem: Problem, target: Sink = "video", seed: int | None = None, sampling: Mapping[str, Any] | None = None
) -> Answer:
    """Gradient of the prompt's effect times the text states."""
    from captum.attr import InputXGradient

    def engine(effect: PromptEffect, text: Tensor, null: Tensor, groups: Tensor, index: int) -> Tensor:
        found: Tensor = InputXGradient(effect).attribute(text.requires_grad_(), target=index)
        return found

    return _attribute(problem, engine, target, seed, sampling, grouped=False)


@register_method(
    "feature_ablation",
    exact=True,
    needs_pipe=True,
    cost="one sampling run up to the last step, then K + 2 denoiser calls a step",
    references="captum FeatureAblation",
)
def feature_ablation(
    problem: Problem, target: Sink = "video", seed: int | None = None, sampling: Mapping[str, Any] | None = None
) -> Answer:
    """Loss of the prompt's effect when a concept's text states become those of the empty prompt, signed."""
    from captum.attr import FeatureAblation

    def engine(effect: PromptEffect, text: Tensor, null: Tensor, groups: Tensor, index: int) -> Tensor:
        found: Tensor = FeatureAblation(effect).attribute(text, baselines=null, target=index, feature_mask=groups)
        return found

    return _attribute(problem, engine, target, seed, sampling, grouped=True)


@register_method(
    "shapley_values",
    needs_pipe=True,
    cost=f"one sampling run up to the last step, then 2^(K+1) denoiser calls a step; sampled above {_MOST_EXACT_GROUPS} groups",
    references="Shapley 1953; arXiv 2105.14652",
)
def shapley_values(
    problem: Problem,
    target: Sink = "video",
    n_samples: int = 25,
    seed: int | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> Answer:
    """Mean gain in the prompt's effect when a concept joins the others, over orders; all other tokens are one more player."""
    from captum.attr import ShapleyValues, ShapleyValueSampling

    def engine(effect: PromptEffect, text: Tensor, null: Tensor, groups: Tensor, index: int) -> Tensor:
        asked = {"baselines": null, "target": index, "feature_mask": groups}
        found: Tensor
        if len(problem.tokens) < _MOST_EXACT_GROUPS:
            found = ShapleyValues(effect).attribute(text, **asked)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                found = ShapleyValueSampling(effect).attribute(text, n_samples=n_samples, **asked)
        return found

    return _attribute(problem, engine, target, seed, sampling, grouped=True)
