"""Compose the prediction of one prompt a concept, the baseline of composable diffusion (arXiv:2206.01714)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from vico_lens.errors import BalanceError, InputError
from vico_lens.intervention.balancing.injection import shadow
from vico_lens.intervention.balancing.prompt_encoding import encode_other_prompt, prompt_encoder, prompts_of_call
from vico_lens.intervention.balancing.rows import conditional_rows
from vico_lens.intervention.balancing.session import Session, extra_forwards, is_extra, rows_of

__all__ = ["Composition", "compose"]


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
        stock = prompt_encoder(self.pipe)

        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            count = len(prompts_of_call(args, kwargs))
            whole = stock(*args, **kwargs)
            self._whole = whole if isinstance(whole, tuple) else (whole,)
            self._pieces = [encode_other_prompt(stock, [part] * count, args, kwargs) for part in self.parts]
            self._empty = encode_other_prompt(stock, kwargs.get("negative_prompt") or [""] * count, args, kwargs)
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
        with extra_forwards([module]):
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
    prompt_encoder(pipe)
    return Composition(pipe, parts, denoisers(pipe))
