"""Replaying denoiser calls of a stock pipeline with other text: what every causal and gradient method asks of the model.

The pipeline samples as it always does. A forward pre-hook keeps the arguments of its denoiser at the steps asked for and then
ends the run; each kept call can be repeated with other text states, everything else unchanged. So nothing of any pipeline is
forked, and no pipeline's way of encoding a prompt has to be known: the text states of another prompt are read where that prompt's
run hands them over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from vico_lens.errors import AttributionError, InputError
from vico_lens.kernels.resampling import resample_axes
from vico_lens.kernels.stages import Grid
from vico_lens.tracing.families import Family, denoisers, family_of
from vico_lens.tracing.interception import suspended
from vico_lens.tracing.running_call import StopCall, running_call

__all__ = [
    "DenoiserCall",
    "Sampling",
    "record_calls",
    "replayed",
    "run_video",
    "sampling_of",
    "shared_calls",
    "text_of_prompt",
    "to_grid",
    "with_text",
]

Edit = Callable[[Tensor], Tensor]

_SHARED: ContextVar[dict[tuple[object, ...], DenoiserCall] | None] = ContextVar("calls shared by several methods", default=None)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to run the pipeline as the trace did.

    Attributes
    ----------
    prompt : str
        The traced prompt.
    seed : int
        Of the generator.
    arguments : mapping
        Other arguments of the pipeline call.
    """

    prompt: str
    seed: int
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class DenoiserCall:
    """One denoiser forward of a sampling run, kept to be repeated.

    Attributes
    ----------
    module : nn.Module
        The denoiser.
    args, kwargs
        Its arguments.
    state : str
        Keyword of the text states.
    rows, text_rows : slice
        Conditional rows of the output batch, and of the text states (which may come once a frame).
    layout : str
        Axes of the prediction: ``BCFHW``, ``BFCHW``, ``BFHWC`` or ``packed``.
    step : int
        Denoising step.
    timestep : float
        Of the scheduler.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    state: str
    rows: slice
    text_rows: slice
    layout: str
    step: int
    timestep: float

    @property
    def text(self) -> Tensor:
        """Text states of the conditional branch, ``[token, channel]``."""
        states: Tensor = self.kwargs[self.state][self.text_rows]
        return states[0].clone()

    def told(self, text: Tensor) -> DenoiserCall:
        """Return the call with other text states ``[token, channel]`` in its conditional rows."""
        states = self.kwargs[self.state]
        before, after = states[: self.text_rows.start], states[self.text_rows.stop :]
        count = self.text_rows.stop - self.text_rows.start
        moved = torch.cat([before, text.to(states).expand(count, *text.shape), after])
        return replace(self, kwargs={**self.kwargs, self.state: moved})

    def forward(self, text: Tensor) -> Any:
        """Repeat the call with other text states ``[token, channel]``; what the denoiser returns, as it returns it."""
        return self.module(*self.args, **self.told(text).kwargs)

    def predict(self, text: Tensor, grid: Grid | None = None) -> Tensor:
        """Repeat the call with other text states ``[token, channel]``, seen by no trace; differentiable in them.

        Returns
        -------
        Tensor
            Conditional prediction of the first video, ``[frame, y, x, channel]``, float32.
        """
        with suspended():
            output = self.forward(text)
        sample = output[0] if isinstance(output, (tuple, list)) else getattr(output, "sample", output)
        video: Tensor = sample[self.rows][0].float()
        if self.layout == "packed":
            if grid is None or video.shape[0] != grid[0] * grid[1] * grid[2]:
                raise AttributionError(
                    f"expected a packed prediction of {grid} tokens; got {tuple(video.shape)}. Choose grid= as the model's."
                )
            return video.reshape(*grid, -1)
        order = {"BCFHW": (1, 2, 3, 0), "BFCHW": (0, 2, 3, 1), "BFHWC": (0, 1, 2, 3)}[self.layout]
        return video.permute(order)


def to_grid(values: Tensor, grid: Grid) -> Tensor:
    """Bring a map ``[frame, y, x]`` of the latents to the token grid by area mean."""
    return resample_axes(values, [0, 1, 2], grid, "mean")


def sampling_of(tree: xr.DataTree, seed: int | None, sampling: Mapping[str, Any] | None, prompt: int | None = None) -> Sampling:
    """Arguments with which to run the pipeline as the trace did: from its provenance, changed by the caller's `sampling`.

    Raises
    ------
    InputError
        If the trace holds several prompts and none is chosen, or does not say from which seed its clip was drawn.
    """
    arguments = dict(sampling or {})
    prompts = tree.attrs.get("prompt")
    rows = [prompts] if isinstance(prompts, str) else list(prompts) if prompts is not None else []
    if not rows or (len(rows) > 1 and prompt is None):
        raise InputError(f"expected a trace of one prompt, or prompt= to choose one; the trace holds {len(rows)} prompts.")
    seeds = np.atleast_1d(tree.attrs.get("seed", [])).tolist()
    clips = len(rows) * int(tree.attrs.get("videos_per_prompt", 1))
    given = arguments.pop("seed", seed) if seed is None else seed
    if given is None and len(seeds) != clips:
        raise InputError(
            f"expected the trace to know the seed of each of its {clips} clips, to sample it again; it knows {len(seeds)}. "
            "Pass seed= (sampling={'seed': ..} in compare) for another clip of this prompt, or trace with a generator a clip."
        )
    row = (prompt or 0) * clips // len(rows)
    names = {"steps": "num_inference_steps", "guidance_scale": "guidance_scale", "negative_prompt": "negative_prompt"}
    names |= {name: name for name in ("height", "width", "num_frames", "video_length", "max_sequence_length")}
    known = {argument: tree.attrs[name] for name, argument in names.items() if name in tree.attrs}
    negative = known.get("negative_prompt")
    if negative is not None and not isinstance(negative, str):
        known["negative_prompt"] = list(negative)[prompt or 0]
    known = {argument: value for argument, value in known.items() if value not in ("", None)}
    return Sampling(rows[prompt or 0], int(seeds[row] if given is None else given), {**known, **arguments})


def _run(pipe: Any, sampling: Sampling, prompt: str, **more: Any) -> Any:
    """Call the pipeline, one video, on the traced seed."""
    generator = torch.Generator().manual_seed(sampling.seed)
    arguments = _arguments_of_call(pipe, sampling.arguments)
    return pipe(prompt=prompt, generator=generator, **{**arguments, **more})


def _arguments_of_call(pipe: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out the guidance scale where a guider holds it: the call of such a pipeline does not take it.

    Raises
    ------
    InputError
        If the guider has another scale now than the trace or the caller says.
    """
    guider = getattr(pipe, "guider", None)
    if (
        "guidance_scale" not in arguments
        or guider is None
        or "guidance_scale" in inspect.signature(type(pipe).__call__).parameters
    ):
        return arguments
    asked, present = arguments["guidance_scale"], getattr(guider, "guidance_scale", None)
    if asked != present:
        raise InputError(
            f"expected the guider of {type(pipe).__name__} to have guidance_scale={asked}, to sample the clip again; it has "
            f"{present}. Set it with pipe.guider = pipe.guider.new(guidance_scale={asked})."
        )
    return {name: value for name, value in arguments.items() if name != "guidance_scale"}


@contextmanager
def shared_calls() -> Iterator[None]:
    """Inside the ``with``, methods that ask for the same steps of the same run share one: sampling again would give the same."""
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


@contextmanager
def replayed(pipe: Any, sampling: Sampling, calls: Iterable[DenoiserCall]) -> Iterator[None]:
    """Inside the ``with``, methods that ask for a step of this run get the call given here instead of sampling.

    So a method can be asked about the same inputs after the model, or the text, has been changed.
    """
    given = {(*_run_name(pipe, sampling, sampling.prompt), call.step): call for call in calls}
    token = _SHARED.set({**(_SHARED.get() or {}), **given})
    try:
        yield
    finally:
        _SHARED.reset(token)


def _run_name(pipe: Any, sampling: Sampling, prompt: str) -> tuple[object, ...]:
    """What tells one sampling run from another."""
    return id(pipe), prompt, sampling.seed, repr(sorted(sampling.arguments.items()))


@contextmanager
def _hooked(pipe: Any, before: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[Family]:
    """Run `before` ahead of every denoiser forward that the pipeline makes."""
    family = family_of(pipe)
    with ExitStack() as undo, suspended():
        for module in denoisers(pipe, family).values():
            undo.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        yield family


def record_calls(pipe: Any, sampling: Sampling, steps: Sequence[int], prompt: str | None = None) -> dict[int, DenoiserCall]:
    """Sample with the stock pipeline and keep its denoiser call at each of `steps`; the run ends after the last of them.

    Parameters
    ----------
    pipe : diffusers pipeline
        As it was traced.
    sampling : Sampling
        How to call it.
    steps : sequence of int
        Denoising steps.
    prompt : str, optional
        Another prompt than the traced one.

    Raises
    ------
    AttributionError
        If the run never reached a step, or the denoiser takes its text in a way that is not known.
    """
    text = sampling.prompt if prompt is None else prompt
    run = _run_name(pipe, sampling, text)
    shared = _SHARED.get()
    found: dict[int, DenoiserCall] = {}
    if shared is not None:
        found |= {step: shared[(*run, step)] for step in steps if (*run, step) in shared}
        if len(found) == len(set(steps)):
            return found

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = running_call(pipe)
        if call is None or call.step is None or call.step not in steps or call.step in found:
            return
        found[call.step] = _keep(family, module, args, kwargs, call.rows, call.step, call.timestep or 0.0)
        if len(found) == len(set(steps)):
            raise StopCall

    with _hooked(pipe, before) as family:
        try:
            _run(pipe, sampling, text)
        except StopCall:
            if shared is not None:
                shared |= {(*run, step): call for step, call in found.items()}
            return found
    missing = sorted(set(steps) - set(found))
    raise AttributionError(
        f"expected the pipeline to reach steps {missing}; its run ended before. Pass sampling= with the traced number of steps."
    )


def _keep(
    family: Family,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    videos: int | None,
    step: int,
    timestep: float,
) -> DenoiserCall:
    states = [name for name in family.states if isinstance(kwargs.get(name), Tensor)]
    if len(states) != 1 or family.text == "reordered" or kwargs[states[0]].ndim != 3:
        raise AttributionError(
            f"expected a denoiser with one text state [batch, token, channel]; the {family.name} family takes "
            f"{', '.join(family.states) or 'none by keyword'}. Its text cannot be replaced; use a method that works on the trace."
        )
    sample = kwargs[family.sample] if family.sample in kwargs else args[0]
    batch = int(sample.shape[0])
    parts = batch // videos if videos and batch % videos == 0 else 1
    conditional = family.thirds.index("cond") if parts == 3 else parts - 1
    share = kwargs[states[0]].shape[0] // parts
    return DenoiserCall(
        module,
        args,
        dict(kwargs),
        states[0],
        slice(conditional * batch // parts, (conditional + 1) * batch // parts),
        slice(conditional * share, (conditional + 1) * share),
        family.latents,
        step,
        timestep,
    )


def run_video(pipe: Any, sampling: Sampling) -> Tensor:
    """Sample the whole video: ``[frame, row, column, rgb]``, float32 in 0..1."""
    frames = _run(pipe, sampling, sampling.prompt, output_type="pt").frames[0]
    video = torch.as_tensor(frames).detach().float().cpu()
    return video if video.shape[-1] == 3 else video.movedim(1, -1)


def text_of_prompt(pipe: Any, sampling: Sampling, prompt: str, length: int) -> Tensor:
    """Text states of another prompt, ``[token, channel]``, as the pipeline itself encodes it; no denoiser forward is run.

    Pipelines that drop padding hand over fewer states for a shorter prompt: the last one is repeated up to `length`.
    """
    text = record_calls(pipe, sampling, [0], prompt)[0].text[:length]
    return torch.cat([text, text[-1:].expand(length - len(text), -1)])


@contextmanager
def with_text(pipe: Any, edit: Edit) -> Iterator[None]:
    """Inside the ``with``, every denoiser call of one sampling run gets its conditional text ``[token, channel]`` edited."""
    edited: set[int] = set()

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        call = running_call(pipe)
        if call is None or call.iteration is None:
            return None
        # Guidance in two passes calls the denoiser with the prompt first, then with the negative prompt: that one stays as it is.
        if family.guidance != "batch" and call.iteration in edited:
            return None
        edited.add(call.iteration)
        kept = _keep(family, module, args, kwargs, call.rows, call.iteration, 0.0)
        states = kwargs[kept.state].clone()
        states[kept.text_rows] = edit(kept.text)
        return args, {**kwargs, kept.state: states}

    with _hooked(pipe, before) as family:
        yield
