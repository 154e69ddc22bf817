"""How the running pipeline encodes its prompt: the stock `encode_prompt`, and the prompts that a call gave it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vico_lens.errors import BalanceError

__all__ = ["encode_other_prompt", "prompt_encoder", "prompts_of_call"]


def prompt_encoder(pipe: Any) -> Callable[..., Any]:
    """Return the pipeline's own `encode_prompt`; refuse a pipeline that has none."""
    stock = getattr(pipe, "encode_prompt", None)
    if not callable(stock):
        raise BalanceError(f"expected a pipeline that encodes its prompt by `encode_prompt`, got {type(pipe).__name__}.")
    return stock


def encode_other_prompt(stock: Callable[..., Any], prompt: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Encode another prompt with the arguments of a call, its given embeddings left out."""
    rest = {name: value for name, value in kwargs.items() if name not in ("prompt", "prompt_embeds", "negative_prompt_embeds")}
    encoded = stock(prompt, *args[1:], **rest)
    return encoded if isinstance(encoded, tuple) else (encoded,)


def prompts_of_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Return the prompts that `encode_prompt` was called with; refuse a call with embeddings."""
    prompt = kwargs.get("prompt", args[0] if args else None)
    if prompt is None:
        raise BalanceError("expected a pipeline call with a prompt, got embeddings; a prompt is needed to encode it anew.")
    return [prompt] if isinstance(prompt, str) else list(prompt)
