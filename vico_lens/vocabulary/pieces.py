"""What a text encoder saw of a prompt: the character span of every token, from a tokenizer, a running call or a trace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vico_lens.errors import ConceptError, InputError
from vico_lens.vocabulary.alignment import Rewritten, Span, with_vectors
from vico_lens.vocabulary.schema import TokenTable
from vico_lens.vocabulary.selection import choose_prompt

__all__ = ["Pieces", "pieces_of_prompt", "pieces_of_trace"]


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a text encoder saw of a prompt: the character span of every token, None for special tokens and padding."""

    prompt: str
    spans: tuple[tuple[int, int] | None, ...]
    cut_is_news: bool = False
    """Whether nobody has said yet what the encoder does not read; a trace says it when it is made."""

    def within(self, start: int, stop: int) -> tuple[int, ...]:
        """Tokens that share at least one character with ``prompt[start:stop]``."""
        return tuple(index for index, span in enumerate(self.spans) if span and span[0] < stop and start < span[1])


def pieces_of_prompt(prompt: str, tokenizer: Any) -> Pieces:
    """Ask a tokenizer, or the table of a running call."""
    if tokenizer is None:
        raise InputError(
            "concepts of a prompt need its tokenizer: find_concepts(prompt, tokenizer=pipe.tokenizer), or pass a trace."
        )
    if not prompt.strip():
        raise ConceptError("the prompt is empty: it holds no concept.")
    if isinstance(tokenizer, TokenTable):
        return _pieces_of_spans(prompt, zip(tokenizer.start, tokenizer.stop, strict=True), tokenizer.kind)
    if getattr(tokenizer, "is_fast", True) is False:
        raise InputError(
            f"{type(tokenizer).__name__} gives no character offsets: load its fast variant (AutoTokenizer, use_fast=True)."
        )
    text = with_vectors(tokenizer, Rewritten.same(prompt))
    if callable(tokenizer):
        options: dict[str, Any] = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
        length = getattr(tokenizer, "model_max_length", None)
        if isinstance(length, int) and length < 100_000:  # a tokenizer without a limit reports an astronomic one
            options |= {"truncation": True, "max_length": length}
            if getattr(tokenizer, "padding_side", "right") == "left":  # padding in front moves every position
                options["padding"] = "max_length"
        encoded = tokenizer(text.text, **options)
        offsets, special = encoded["offset_mapping"], encoded["special_tokens_mask"]
    elif hasattr(tokenizer, "encode"):
        encoding = tokenizer.encode(text.text)
        offsets, special = encoding.offsets, encoding.special_tokens_mask
    else:
        raise InputError(
            f"tokenizer must be a fast tokenizer of transformers or a tokenizers.Tokenizer, got {type(tokenizer).__name__}."
        )
    spans = [None if mark else text.span(start, stop) for (start, stop), mark in zip(offsets, special, strict=True)]
    return Pieces(prompt, tuple(span if span and span[0] < span[1] else None for span in spans), cut_is_news=True)


def pieces_of_trace(trace: Any, row: int | None) -> Pieces:
    """Read prompt and token spans from the root of a trace."""
    coords, attrs = getattr(trace, "coords", None), getattr(trace, "attrs", {})
    if coords is not None and "token_kind" in coords and "prompt" not in attrs:
        raise InputError(
            "expected a trace that knows its prompt, got one of a call with embeddings, which do not say what a token spells: "
            "trace with vl.trace(pipe, metadata={'prompt': 'the prompt that they encode'})."
        )
    if coords is None or "token_kind" not in coords:
        raise InputError(
            f"expected a trace (with its token coordinates and the attribute 'prompt') or a prompt, got {type(trace).__name__}."
        )

    prompts = [attrs["prompt"]] if isinstance(attrs["prompt"], str) else list(attrs["prompt"])
    rows = max([len(prompts), *(node.sizes.get("prompt", 1) for node in getattr(trace, "subtree", ()))])
    row = 0 if row is None and len(prompts) == 1 else choose_prompt(row, rows)
    prompt = prompts[row * len(prompts) // rows]  # the videos of one prompt follow one another

    def read(name: str) -> list[Any]:
        values = coords[name].values
        return list(values[row] if values.ndim == 2 else values)

    kinds = read("token_kind")
    if "token_start" in coords and "token_stop" in coords:
        spans = [(int(start), int(stop)) for start, stop in zip(read("token_start"), read("token_stop"), strict=True)]
    else:
        spans = _align(prompt, read("token_text"), kinds)
    return _pieces_of_spans(prompt, spans, kinds)


def _pieces_of_spans(prompt: str, spans: Iterable[tuple[int, int]], kinds: Sequence[str]) -> Pieces:
    rows = zip(spans, kinds, strict=True)
    return Pieces(prompt, tuple(span if kind == "text" and 0 <= span[0] < span[1] else None for span, kind in rows))


def _align(prompt: str, texts: Sequence[str], kinds: Sequence[str]) -> list[Span]:
    """Find the pieces in the prompt, for a trace that was written without character offsets."""
    written = [
        # marks of CLIP, WordPiece, BPE, byte-level, sentencepiece
        re.sub(r"</w>$|^##|@@$|[\u0120\u2581]", "", str(text)) if kind == "text" else ""
        for text, kind in zip(texts, kinds, strict=True)
    ]
    text = Rewritten.of(prompt, "".join(written))
    spans, stop = [], 0
    for piece in written:
        start, stop = stop, stop + len(piece)
        spans.append((text.span(start, stop) if piece else None) or (-1, -1))
    return spans
