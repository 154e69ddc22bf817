"""What a reader expects beside balancing, under the same interface: re-weighted tokens, composed concepts, and more seeds.

The first two change how the prompt conditions the denoiser, in the stock call, by shadowing the pipeline's `encode_prompt` on the
instance for the time of a ``with``. The third spends the same compute on trying other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vico_lens.errors import BalanceError, InputError
from vico_lens.intervention.balancing.balancer import balance
from vico_lens.intervention.balancing.injection import shadow
from vico_lens.intervention.balancing.presets import Preset
from vico_lens.intervention.balancing.rows import conditional_rows
from vico_lens.intervention.balancing.schedule import Schedule
from vico_lens.intervention.balancing.session import Cost, Session, extra_forwards, is_extra, rows_of
from vico_lens.intervention.balancing.words import Names, words_of_call
from vico_lens.tracing.tokens import SeenIds, seen_ids

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Best", "Composition", "Reweighting", "best_of", "compose", "reweight"]


def _encoder(pipe: Any) -> Callable[..., Any]:
    stock = getattr(pipe, "encode_prompt", None)
    if not callable(stock):
        raise BalanceError(f"expected a pipeline that encodes its prompt by `encode_prompt`, got {type(pipe).__name__}.")
    return stock


def _with_prompt(stock: Callable[..., Any], prompt: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Encode another prompt with the arguments of a call, its given embeddings left out."""
    rest = {name: value for name, value in kwargs.items() if name not in ("prompt", "prompt_embeds", "negative_prompt_embeds")}
    encoded = stock(prompt, *args[1:], **rest)
    return encoded if isinstance(encoded, tuple) else (encoded,)


def _prompt_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    prompt = kwargs.get("prompt", args[0] if args else None)
    if prompt is None:
        raise BalanceError("expected a pipeline call with a prompt, got embeddings; a prompt is needed to encode it anew.")
    return [prompt] if isinstance(prompt, str) else list(prompt)


class Reweighting(Session):
    """Stretch of a program in which tokens of concepts are weighted; made by `reweight`."""

    def __init__(self, pipe: Any, concepts: Names | None, weight: float, denoisers: dict[str, nn.Module]) -> None:
        super().__init__(pipe, denoisers)
        self.concepts, self.weight = concepts, weight

    @property
    def settings(self) -> dict[str, Any]:
        """The weight."""
        return {"baseline": "reweight", "weight": self.weight}

    def install(self, undo: ExitStack) -> None:
        """Shadow the encoding of the prompt."""
        stock = _encoder(self.pipe)
        seen: SeenIds = undo.enter_context(seen_ids(self.pipe))

        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            prompts = _prompt_of(args, kwargs)
            seen.clear()
            encoded = stock(*args, **kwargs)
            ids = {name: list(rows) for name, rows in seen.items()}
            embeddings = encoded[0].clone()
            (empty, *_) = _with_prompt(stock, [""] * len(prompts), args, kwargs)
            words = words_of_call(self.pipe, self.concepts, embeddings.shape[1], embeddings.shape[0], ids)
            for row, found in enumerate(words):
                tokens = sorted({token for concept in found.concepts for token in concept.tokens})
                embeddings[row, tokens] = torch.lerp(empty[row, tokens], embeddings[row, tokens], self.weight)
            return (embeddings, *encoded[1:])

        undo.callback(shadow(self.pipe, "encode_prompt", encode_prompt))


def reweight(pipe: Any, concepts: Names | None = None, *, weight: float = 1.5) -> Reweighting:
    """Weight the tokens of concepts in the prompt's embedding, as ``(red circle)1.5`` does in prompt-weighting libraries.

    A token's embedding is moved away from that of the empty prompt: ``empty + weight * (embedding - empty)``. The published
    baseline of Vico (arXiv:2407.06182) has a weight of 1.5.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        A pipeline with `encode_prompt`.
    concepts : sequence of str or Concept, optional
        Names are looked up in the prompt; by default its noun phrases.
    weight : float
        1 changes nothing.

    Returns
    -------
    Reweighting
        A session, used as the one of `balance`.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with reweight(tiny.pipe, ["circle"], weight=1.5) as session:
    ...     _ = tiny.run(seed=0)
    >>> session.settings
    {'baseline': 'reweight', 'weight': 1.5}
    """
    from vico_lens.tracing.families import denoisers

    _encoder(pipe)
    return Reweighting(pipe, concepts, weight, denoisers(pipe))


class Composition(Session):
    """Stretch of a program in which the conditional prediction is composed of one a concept; made by `compose`."""

    def __init__(self, pipe: Any, parts: Sequence[str], denoisers: dict[str, nn.Module]) -> None:
        super().__init__(pipe, denoisers)
        self.parts = list(parts)
        self._whole: tuple[Any, ...] = ()
        self._pieces: list[tuple[Any, ...]] = []
        self._empty: tuple[Any, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The prompts that are composed."""
        return {"baseline": "compose", "parts": repr(self.parts)}

    def install(self, undo: ExitStack) -> None:
        """Shadow the encoding of the prompt, and combine predictions after the denoiser."""
        stock = _encoder(self.pipe)

        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            count = len(_prompt_of(args, kwargs))
            whole = stock(*args, **kwargs)
            self._whole = whole if isinstance(whole, tuple) else (whole,)
            self._pieces = [_with_prompt(stock, [part] * count, args, kwargs) for part in self.parts]
            self._empty = _with_prompt(stock, kwargs.get("negative_prompt") or [""] * count, args, kwargs)
            return whole

        undo.callback(shadow(self.pipe, "encode_prompt", encode_prompt))
        for module in self.denoisers.values():
            undo.callback(module.register_forward_hook(self._compose, with_kwargs=True).remove)

    def _compose(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if is_extra():
            return None
        repeat = self._repeat(kwargs)
        if repeat is None:
            return None
        own = output[0] if isinstance(output, tuple) else output.sample
        size = own.shape[0] // repeat
        with extra_forwards():
            parts = [self._predict(module, args, kwargs, piece, repeat) for piece in self._pieces]
            without = own[:size] if repeat == 2 else self._predict(module, args, kwargs, self._empty, repeat)
        composed = without + torch.stack([part - without for part in parts]).sum(0)
        combined = torch.cat([own[:size], composed]) if repeat == 2 else composed
        if isinstance(output, tuple):
            return (combined, *output[1:])
        output.sample = combined
        return output

    def _repeat(self, kwargs: dict[str, Any]) -> int | None:
        """How often the prompt's embedding stands in the call, the unconditional one before it; None in a pass without the
        prompt.
        """
        given = kwargs.get("encoder_hidden_states")
        if not isinstance(given, Tensor) or not self._whole:
            raise BalanceError(
                "expected a denoiser that takes the prompt's embedding as `encoder_hidden_states`, as `encode_prompt` made it; "
                "got none."
            )
        for repeat in (1, 2):
            if _swapped(given, self._whole[:1], self._whole[:1], repeat) is not None:
                return repeat
        return None

    def _predict(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], piece: tuple[Any, ...], repeat: int
    ) -> Tensor:
        """Predict the conditional rows alone, with every argument that came from the encoded prompt taken from another one."""
        rows = rows_of(args, kwargs)
        named = {}
        for name, value in kwargs.items():
            swapped = _swapped(value, self._whole, piece, repeat) if isinstance(value, Tensor) else None
            named[name] = conditional_rows(value, rows, repeat, name) if swapped is None else swapped
        output = module(*(conditional_rows(value, rows, repeat) for value in args), **named)
        self.cost.extra_forwards += 1
        self.cost.extra_rows += rows // repeat
        prediction: Tensor = output[0] if isinstance(output, tuple) else output.sample
        return prediction


def _swapped(value: Tensor, old: tuple[Any, ...], new: tuple[Any, ...], repeat: int) -> Tensor | None:
    """Give `new` if the last 1/`repeat` rows of an argument are the encoded prompt `old`; None if they are not."""
    if value.dim() == 0 or value.shape[0] % repeat:
        return None
    rows = value[value.shape[0] - value.shape[0] // repeat :]
    for before, after in zip(old, new, strict=True):
        if not isinstance(before, Tensor) or before.dim() != value.dim() or rows.shape[0] % before.shape[0]:
            continue
        # Motion modules take the text once a frame.
        times = rows.shape[0] // before.shape[0]
        if before.shape[1:] == rows.shape[1:] and torch.equal(before.repeat_interleave(times, 0).to(rows.dtype), rows):
            return after.repeat_interleave(times, 0).to(rows.dtype)
    return None


def compose(pipe: Any, parts: Sequence[str]) -> Composition:
    """Compose the prediction of one prompt a concept: composable diffusion (arXiv:2206.01714).

    The conditional prediction becomes ``without + sum_i (with part i - without)``, so that the pipeline's own guidance weighs
    every part. A part costs one denoiser call of the pipeline's a step.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        A pipeline with `encode_prompt` whose denoiser takes the result as ``encoder_hidden_states``.
    parts : sequence of str
        One prompt each: concepts, or parts of the prompt with their motion. The prompt of the call itself is not used.

    Returns
    -------
    Composition
        A session, used as the one of `balance`.

    Raises
    ------
    InputError
        If there are no parts.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with compose(tiny.pipe, ["a red circle", "a blue square"]) as session:
    ...     _ = tiny.run(seed=0)
    >>> session.cost.extra_forwards > 0
    True
    """
    from vico_lens.tracing.families import denoisers

    if isinstance(parts, str) or not parts:
        raise InputError(f"expected a list of at least one prompt to compose, got {parts!r}.")
    _encoder(pipe)
    return Composition(pipe, parts, denoisers(pipe))


@dataclass(frozen=True, slots=True)
class Best:
    """The best of several seeds.

    Attributes
    ----------
    video : ndarray
        Uint8 (frame, row, column, channel).
    seed : int
        That made it.
    losses : dict
        Seed to loss: its mean over the denoising steps, or at the step looked at.
    cost : Cost
        Of all seeds together.
    """

    video: np.ndarray
    seed: int
    losses: dict[int, float]
    cost: Cost


class _Looked(Exception):
    """A seed has been judged: no error, it ends a pipeline call whose rest is not needed."""


def early_loss(pipe: Any, concepts: Names | Sequence[Names] | None, step: int, call: dict[str, Any], **settings: Any) -> Session:
    """Sample up to denoising step `step`, evaluate the objective there, and go no further.

    Parameters
    ----------
    pipe, concepts
        As in `balance`.
    step : int
        Counted from 0; that many steps are spent, and one conditional forward.
    call : dict
        Arguments of the pipeline's call, generator included.
    **settings
        Objective, flow and their options, as in `balance`.

    Returns
    -------
    Session
        Its `log` holds one row a video, its `cost` what was spent; it has no video.

    Raises
    ------
    InputError
        If the pass has no such step.
    """
    watched = {"preset": "observe", **settings, "schedule": Schedule(steps=(step,), iterations=0)}
    with ExitStack() as undo:
        session = undo.enter_context(balance(pipe, concepts, **watched))

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if session.updates and not is_extra():
                session.cost.forwards -= 1  # this one was counted and is not made
                session.cost.rows -= rows_of(args, kwargs)
                raise _Looked

        for module in session.denoisers.values():
            undo.callback(module.register_forward_pre_hook(stop, with_kwargs=True).remove)
        try:
            pipe(**call)
        except _Looked:
            return session
    raise InputError(f"expected a denoising step of the sampling pass, got step {step}; the pass ended before it.")


def best_of(
    pipe: Any,
    concepts: Names | None,
    seeds: Sequence[int],
    *,
    call: dict[str, Any],
    look: int | None = None,
    then: str | Preset | None = None,
    **settings: Any,
) -> Best:
    """Keep the seed whose objective is lowest, and balance that one if asked to.

    Without `then` this is the null of equal compute: balancing must do better than choosing. With it, the two work together.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline.
    concepts : sequence of str or Concept or None
        As in `balance`.
    seeds : sequence of int
        Of one sampling pass each.
    call : dict
        Arguments of the pipeline's call; its ``generator`` is made here.
    look : int, optional
        Judge every seed at this denoising step and sample only the best to its end; by default all are sampled to their end
        and judged by the mean over all steps.
    then : str or Preset, optional
        Balance the best seed with this preset (``"default"``); by default its video is the plain one.
    **settings
        Objective, flow and their options by which seeds are judged, as in `balance`; the updates are left out.

    Returns
    -------
    Best

    Raises
    ------
    InputError
        If there are no seeds, or `call` brings a generator of its own.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> best = best_of(tiny.pipe, ["circle", "square"], [0, 1], call=dict(tiny.kwargs, output_type="np"))
    >>> best.seed in best.losses, len(best.losses)
    (True, 2)
    """
    from vico_lens.tracing.families import denoisers

    if not seeds or "generator" in call:
        raise InputError(
            f"expected at least one seed and a call without a generator, got seeds={list(seeds)} and {sorted(call)}."
        )
    total, losses, videos = Cost(), {}, {}
    for seed in seeds:
        drawn = {**call, "generator": torch.Generator().manual_seed(seed)}
        if look is not None:
            session = early_loss(pipe, concepts, look, drawn, **settings)
        else:
            with balance(pipe, concepts, **{"preset": "observe", **settings}) as session:
                pipe(**drawn)
            videos[seed] = session.video
        losses[seed] = float(session.log.loss.mean())
        total = total + session.cost
    best = min(losses, key=losses.__getitem__)
    if look is not None or then is not None:
        with Session(pipe, denoisers(pipe)) if then is None else balance(pipe, concepts, preset=then) as whole:
            pipe(**call, generator=torch.Generator().manual_seed(best))
        videos[best], total = whole.video, total + whole.cost
    return Best(videos[best], best, losses, total)
