"""Change the latents of a running stock pipeline, once a denoising step, before the denoiser sees them.

A forward pre-hook on the denoiser is the one place that every diffusers video pipeline passes through at every step, step 0
included, whether or not it has callbacks. The update is written into the pipeline's own latent tensor, so whatever the sampling
loop does with it later (guidance in two passes, scheduler step, conversion to a clean estimate) sees the moved latents. Nothing
of diffusers is forked.

Five things would undo an update, or let it reach what it must not change; all are guarded here. A predictor-corrector scheduler
recomputes the present latents from older ones (UniPC, SA). A second-order scheduler calls the denoiser twice a step. A flow
pipeline samples in the very tensor that the caller passed as ``latents=``. Image-to-video keeps the image's latents among those
that are generated. A cache of the denoiser counts its forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vico_lens.errors import BalanceError
from vico_lens.intervention.balancing.given_cells import given_cells, untouched_frames
from vico_lens.intervention.balancing.latents import LatentMap, find_latents, solve_map
from vico_lens.intervention.balancing.rows import conditional_rows
from vico_lens.intervention.balancing.session import INPUTS, extra_forwards, is_extra
from vico_lens.tracing.branches import EncodedTexts, text_states
from vico_lens.tracing.families import family_of
from vico_lens.tracing.families.forwards import bound
from vico_lens.tracing.running_call import running_call

__all__ = ["StepState", "inject", "shadow"]


@dataclass(frozen=True, slots=True)
class StepState:
    """The pipeline right before a denoising step.

    Attributes
    ----------
    run : int
        Sampling passes seen before this one inside the same ``with``. A call that goes through its timesteps several times
        (FreeInit iterations, chunks of a long video) makes one pass each time.
    step, steps : int
        This denoising step, counted from 0, and how many the pass has.
    timestep : float
        As handed to the denoiser.
    repeat : int
        Rows of the batch the denoiser is called with, per video: 2 for guidance by batch.
    scale : float
        Factor from latents to denoiser input at this step (1 for most schedulers).
    branches : int
        Guidance branches the pipeline evaluates a step, in one batch or one after the other.
    latents : Tensor [video, ...]
        A copy in float32, detached.
    dtype : torch.dtype
        In which the pipeline keeps them.
    denoiser : str
        Component name ("unet", "transformer", "transformer_2").
    prompts : list of str or None
        One a video, or None where the pipeline was given embeddings.
    scheduler : Any
        Of the running call.
    given : Tensor or None
        Which latents the call was given and does not generate, broadcastable to `latents`; they must not be moved.
    forward : callable
        Latents [video, ...] to the conditional rows of one denoiser forward; what it returns is the denoiser's output.
    """

    run: int
    step: int
    steps: int
    timestep: float
    repeat: int
    scale: float
    branches: int
    latents: Tensor
    dtype: torch.dtype
    denoiser: str
    prompts: list[str] | None
    scheduler: Any
    given: Tensor | None
    forward: Callable[[Tensor], Any]


@contextmanager
def inject(
    pipe: Any, denoisers: Mapping[str, nn.Module], update: Callable[[StepState], Tensor | None], *, first_run: int = 0
) -> Iterator[None]:
    """Call `update` before every denoising step and put the latents it returns in the place of the pipeline's.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Any stock video pipeline; call it inside the ``with``.
    denoisers : mapping of str to torch.nn.Module
        The pipeline's denoisers by component name.
    update : callable
        Takes a `StepState`, returns new latents [video, ...] (any float dtype) or None to leave them. Gradients are off when it
        is called.
    first_run : int
        Number of the first sampling pass.

    Raises
    ------
    BalanceError
        While the pipeline runs: unknown latents, inference mode, or an update that is not finite or changes the shape.
    """
    if not callable(getattr(pipe, "prepare_latents", None)):
        raise BalanceError(
            f"expected a diffusers pipeline with a `prepare_latents` method, got {type(pipe).__name__}; "
            "without it the caller's own latents could not be told from the pipeline's, and would be changed."
        )
    session = _Injection(pipe, denoisers, update, first_run)
    with ExitStack() as undo:
        undo.enter_context(session.texts.heard(pipe))
        for name, module in denoisers.items():
            undo.callback(module.register_forward_pre_hook(session.hook(name), with_kwargs=True).remove)
        undo.callback(shadow(pipe, "prepare_latents", session.prepare_latents(pipe.prepare_latents)))
        yield


class _Injection:
    """What must be remembered from one denoiser call to the next inside an `inject`."""

    def __init__(
        self,
        pipe: Any,
        denoisers: Mapping[str, nn.Module],
        update: Callable[[StepState], Tensor | None],
        first_run: int,
    ) -> None:
        self.pipe, self.denoisers, self.update, self.first_run = pipe, denoisers, update, first_run
        self.family = family_of(pipe)
        self.layout = self.family.latents
        self.texts = EncodedTexts()
        self.run = first_run - 1
        self._begin_pass()

    def _begin_pass(self) -> None:
        self.run, self.step, self.index = self.run + 1, -1, -1
        self.latents: Tensor | None = None
        self.version = -1
        self.map: LatentMap | None = None
        self.moved: Tensor | None = None

    def _check_text(self, inputs: Mapping[str, Any], rows: int, videos: int) -> None:
        """Refuse a loop whose conditional rows are not where those of diffusers are: the negative prompt would be balanced."""
        states = text_states(self.family, inputs)
        branches = [] if states is None else self.texts.branches(states, rows, running_call(self.pipe))
        if "uncond" in branches[-videos:]:
            raise BalanceError(
                f"expected {type(self.pipe).__name__} to give the denoiser the prompt in the first forward of a step, and "
                "behind the negative prompt in a batch of both, as the pipelines of diffusers do, got the negative prompt there: "
                "put the branches of its loop in that order."
            )

    def prepare_latents(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        """Start a new sampling pass, in latents that are not the caller's."""

        def prepare(*args: Any, **kwargs: Any) -> Any:
            if self.step >= 0:
                self._begin_pass()
            prepared = stock(*args, **kwargs)
            caller = {_storage(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor)}
            if isinstance(prepared, Tensor):
                return prepared.clone() if _storage(prepared) in caller else prepared
            if isinstance(prepared, tuple):
                return tuple(part.clone() if isinstance(part, Tensor) and _storage(part) in caller else part for part in prepared)
            return prepared

        return prepare

    def hook(self, name: str) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
        def before_forward(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            if is_extra():
                return None
            with extra_forwards(self.denoisers.values()):
                return self.before(name, module, args, kwargs)

        return before_forward

    def before(
        self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        key = next((key for key in INPUTS if key in kwargs), None)
        model_input = kwargs[key] if key else args[0]
        frame, latents = find_latents(self.pipe)
        known = frame.f_locals
        if latents is self.latents and latents._version == self.version:
            # The second guidance pass of a step: its input was made before the update.
            return None if self.map is None else _with_input(args, kwargs, key, self.map(latents, model_input).detach())
        self.latents, self.version, self.map = latents, latents._version, None
        scheduler = known.get("scheduler", getattr(self.pipe, "scheduler", None))
        if _is_correction(scheduler):
            return None
        self._count(known.get("i"))
        self._refuse_untouched(latents)
        self._check_text(bound(module, args, kwargs), model_input.shape[0], latents.shape[0])
        state, solved = self._state(name, module, args, kwargs, key, known, scheduler)
        moved = self.update(state)
        if moved is None:
            return None
        if moved.shape != latents.shape or not bool(torch.isfinite(moved).all()):
            raise BalanceError(
                f"expected an update to return finite latents of shape {tuple(latents.shape)}, got shape {tuple(moved.shape)}"
                f"{'' if moved.shape != latents.shape else ' with values that are not finite'} at denoising step {self.step}; "
                "lower the size of the update."
            )
        latents.copy_(moved if state.given is None else torch.where(state.given, latents.to(moved), moved))
        self.version, self.map = latents._version, solved
        self.moved = latents.clone() if state.given is None else latents.masked_fill(state.given, float("nan"))
        _drop_corrector(scheduler)
        return _with_input(args, kwargs, key, solved(latents).detach())

    def _count(self, index: object) -> None:
        """Count the denoising step; where the pipeline's loop has gone back to its first timestep, a new pass begins."""
        place = index if isinstance(index, int) else self.index
        if place < self.index:
            latents, version = self.latents, self.version
            self._begin_pass()
            self.latents, self.version = latents, version
        self.step, self.index = self.step + 1, place

    def _refuse_untouched(self, latents: Tensor) -> None:
        """Refuse a pipeline that leaves frames as they were, so that an update of them would stay in the video."""
        frames = [] if self.moved is None else untouched_frames(self.moved, latents, self.layout)
        self.moved = None
        if frames:
            raise BalanceError(
                f"expected the scheduler of {type(self.pipe).__name__} to change every latent frame that was moved, but frames "
                f"{frames} are as the update left them: the call was given them in a way that is not known, so they cannot be "
                "kept as they are. This pipeline cannot be balanced; please report its class."
            )

    def _state(
        self,
        name: str,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        key: str | None,
        known: Mapping[str, Any],
        scheduler: Any,
    ) -> tuple[StepState, LatentMap]:
        latents, model_input = self.latents, kwargs[key] if key else args[0]
        assert latents is not None  # set by the caller
        timestep = _timestep(args, kwargs, key)
        given = given_cells(latents, self.layout, timestep, known)
        solved = solve_map(latents, model_input, given)
        rows, repeat = model_input.shape[0], solved.repeat

        def forward(moved: Tensor) -> Any:
            rest = tuple(conditional_rows(value, rows, repeat) for value in args[0 if key else 1 :])
            named = {word: conditional_rows(value, rows, repeat, word) for word, value in kwargs.items() if word != key}
            inner = solved.conditional(moved)
            return module(*rest, **{key: inner}, **named) if key else module(inner, *rest, **named)

        state = StepState(
            run=self.run,
            step=self.step,
            steps=_count_steps(known, scheduler),
            timestep=float(timestep.max()) if isinstance(timestep, Tensor) else float(timestep),
            repeat=repeat,
            scale=solved.scale,
            branches=2 if getattr(self.pipe, "do_classifier_free_guidance", False) is True else repeat,
            dtype=latents.dtype,
            latents=latents.detach().to(torch.float32, copy=True),
            denoiser=name,
            prompts=_prompts(known, latents.shape[0]),
            scheduler=scheduler,
            given=given,
            forward=forward,
        )
        return state, solved


def _with_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], key: str | None, model_input: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (args, {**kwargs, key: model_input}) if key else ((model_input, *args[1:]), kwargs)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def shadow(target: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute on the instance only, and return what restores it."""
    missing = object()
    before = target.__dict__.get(name, missing)
    target.__dict__[name] = value

    def restore() -> None:
        if before is missing:
            target.__dict__.pop(name, None)
        else:
            target.__dict__[name] = before

    return restore


def _is_correction(scheduler: Any) -> bool:
    """Whether the scheduler is at an inner stage of a step, which starts again from a sample it kept: an update would be lost."""
    if getattr(scheduler, "order", 1) > 1 and getattr(scheduler, "state_in_first_order", True) is False:
        return True
    # PNDM repeats its first step from the sample it kept; with Runge-Kutta stages it does so four times a step.
    return getattr(scheduler, "cur_sample", None) is not None and int(getattr(scheduler, "counter", 0)) > 0


def _drop_corrector(scheduler: Any) -> None:
    """Skip the coming correction: it recomputes the present latents from `last_sample` and would discard the update."""
    if getattr(scheduler, "last_sample", None) is not None:
        scheduler.last_sample = None


def _count_steps(known: Mapping[str, Any], scheduler: Any) -> int:
    timesteps = known.get("timesteps", getattr(scheduler, "timesteps", ()))
    order = int(getattr(scheduler, "order", 1)) if hasattr(scheduler, "state_in_first_order") else 1
    return max(1, -(-len(timesteps) // order))


def _timestep(args: tuple[Any, ...], kwargs: Mapping[str, Any], key: str | None) -> Any:
    """The timestep that the denoiser is given: a number, or a tensor of one a row, frame or token."""
    return kwargs.get("timestep", args[1] if len(args) > 1 and key is None else args[0] if args and key else 0.0)


def _prompts(known: Mapping[str, Any], videos: int) -> list[str] | None:
    prompt = known.get("prompt")
    if prompt is None:
        return None
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    return [text for text in prompts for _ in range(max(1, videos // len(prompts)))]
