"""The text tokens of a run, exactly as the denoiser sees them: strings, ids, kinds, words, and where each stands in the prompt.

The ids are those that the text encoder was really given, if it ran while watched; otherwise the prompt is tokenized again. A
template around the prompt (video language models are told what to do first) is cropped by the pipeline before the denoiser, and
the rest of it is special, not text. Where each token stands in the prompt is found by `vico_lens.tracing.spans`.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

from torch import Tensor, nn

from vico_lens.tracing.families import Family, family_of
from vico_lens.tracing.rewriting import glyphs_of, rewrites_of
from vico_lens.tracing.running_call import RunningCall
from vico_lens.tracing.spans import matched_spans, spans_of
from vico_lens.vocabulary.alignment import Rewritten, uncovered
from vico_lens.vocabulary.phrases import words_of
from vico_lens.vocabulary.schema import TokenKind, TokenTable

__all__ = ["SeenIds", "cut_texts", "seen_ids", "table_of", "token_tables", "warn_of_cut"]

SeenIds = dict[str, list[list[int]]]
"""Token ids by tokenizer name, one list a row, in the order in which they were encoded."""

_ENCODER_OF = {"tokenizer": "text_encoder"} | {f"tokenizer_{n}": f"text_encoder_{n}" for n in (2, 3)}


@contextmanager
def seen_ids(pipe: object) -> Iterator[SeenIds]:
    """Collect the ids that the text encoders of a pipeline are given in this thread, for the time of a ``with``."""
    seen: SeenIds = {}
    thread = threading.get_ident()

    def keep(tokenizer: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        ours = thread == threading.get_ident()  # another thread encodes prompts of its own
        if ours and isinstance(ids, Tensor) and ids.ndim == 2 and not ids.is_floating_point():
            seen.setdefault(tokenizer, []).extend(ids.tolist())

    with ExitStack() as undo:
        for tokenizer, name in _ENCODER_OF.items():
            encoder = getattr(pipe, name, None)
            if isinstance(encoder, nn.Module):
                hook = lambda _, args, kwargs, tokenizer=tokenizer: keep(tokenizer, args, kwargs)  # noqa: E731
                undo.callback(encoder.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield seen


def token_tables(
    pipe: Any,
    call: RunningCall,
    tokens: int | Sequence[int] | None = None,
    *,
    seen: SeenIds | None = None,
    prompts: Sequence[str] | None = None,
) -> list[TokenTable]:
    """Build the token tables of a running call, one a prompt row (videos of one prompt share theirs).

    Parameters
    ----------
    pipe : object
        The pipeline.
    call : RunningCall
        Its running call.
    tokens : int, sequence of int or None
        Text tokens that the denoiser sees: of each of the family's text states, or a number for the first that is text. None: as
        many as the tokenizer pads a prompt to.
    seen : dict or None
        Ids that the text encoders were given (`seen_ids`).
    prompts : sequence of str or None
        Prompts to use when the pipeline was called with embeddings.

    Returns
    -------
    list of TokenTable
        All of the same length. Tokens of which nothing is known (embeddings without a prompt) have an empty string.
    """
    family = family_of(pipe)
    if isinstance(tokens, int) or tokens is None:  # of the first state that is text
        lengths: list[int | None] = [tokens if name else 0 for name in family.tokenizers[: _first_text(family) + 1]]
    else:
        lengths = list(tokens)
    texts = list(call.prompts or prompts or [])
    rows = call.rows or max(1, len(texts))
    if not texts:
        return [_blank(sum(length or 0 for length in lengths))] * rows
    tables = [
        _joined([_of_state(pipe, call, state, text, index, length, seen or {}) for state, length in enumerate(lengths)])
        for index, text in enumerate(texts)
    ]
    longest = max(len(table) for table in tables)
    return [table.padded(longest) for table in tables for _ in range(max(1, rows // len(texts)))]


def _first_text(family: Family) -> int:
    return next((state for state, name in enumerate(family.tokenizers) if name), 0)


def _of_state(pipe: Any, call: RunningCall, state: int, prompt: str, index: int, tokens: int | None, seen: SeenIds) -> TokenTable:
    """Tokens of one of the text states that a denoiser is given."""
    family = family_of(pipe)
    name = family.tokenizers[state] if state < len(family.tokenizers) else ""
    tokenizer = getattr(pipe, name, None) if name else None
    if tokenizer is None:
        return _blank(tokens or 0, "special" if not name else "text")
    texts = rewrites_of(pipe, tokenizer, prompt, call)
    if name in family.quoted:
        glyphs = glyphs_of(prompt)
        if glyphs is None:  # the encoder is not asked, and its slots stay empty
            return _blank(tokens or 0, "padding")
        texts = [glyphs]
    rows = [row for row in seen.get(name, []) if tokens is None or len(row) >= tokens]
    # positive prompts are encoded first, in order; a pipeline that does otherwise is found out by the ids of the prompt
    rows = [] if name in family.quoted else rows[index : index + 1] + rows
    ids = next((row for row in rows if _is_of(tokenizer, texts, row)), rows[0] if rows else None)
    ids = _cropped(tokenizer, family, ids or _tokenized(tokenizer, texts[0].text, tokens), tokens)
    return table_of(tokenizer, prompt, ids, tokens, texts=texts)


def _is_of(tokenizer: Any, texts: Sequence[Rewritten], ids: list[int]) -> bool:
    fill = _padding(tokenizer, ids)
    return any(matched_spans(tokenizer, text, ids, fill) is not None for text in texts)


def _cropped(tokenizer: Any, family: Family, ids: list[int], tokens: int | None) -> list[int]:
    """Those ids that the denoiser is given, in its order."""
    if family.crop == "front":
        ids = sorted(ids, key=lambda i: i == tokenizer.pad_token_id)  # stable: what is not padding comes to the front
    if tokens is None or len(ids) <= tokens:
        return ids
    if family.crop == "ends":
        return ids[:1] + ids[len(ids) - tokens + 1 :]
    return ids[-tokens:] if family.crop == "end" else ids[:tokens]


def _tokenized(tokenizer: Any, prompt: str, tokens: int | None) -> list[int]:
    length: int = tokens or getattr(tokenizer, "model_max_length", 0) or 0
    if not 0 < length < 10**6:  # tokenizers without a limit say 10**30
        return list(tokenizer(prompt)["input_ids"])
    return list(tokenizer(prompt, padding="max_length", max_length=length, truncation=True)["input_ids"])


def table_of(
    tokenizer: Any, prompt: str, ids: Sequence[int], length: int | None = None, *, texts: Sequence[Rewritten] = ()
) -> TokenTable:
    """Describe token ids of a prompt.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        That made them.
    prompt : str
        As the user wrote it.
    ids : sequence of int
        With special tokens, padding, and what is left of a template.
    length : int or None
        Pad the table to this many tokens.
    texts : sequence of Rewritten
        What the tokenizer may have been given in place of the prompt, the likeliest first (`vico_lens.tracing.rewriting`).

    Returns
    -------
    TokenTable
        Tokens of the prompt are ``text``; what the tokenizer or a template added is ``special``; fill at an end is ``padding``.
    """
    ids = list(ids)
    padding = _padding(tokenizer, ids)
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
    spans = spans_of(tokenizer, texts or [Rewritten.same(prompt)], ids, padding)
    words = words_of(prompt)
    kinds: list[TokenKind] = [
        "padding" if pad else "special" if span is None else "text" for pad, span in zip(padding, spans, strict=True)
    ]
    spans = [None if kind == "padding" else span for kind, span in zip(kinds, spans, strict=True)]
    table = TokenTable(
        text=tuple(pieces),
        kind=tuple(kinds),
        word=tuple("" if span is None else _word(prompt, words, span) for span in spans),
        id=tuple(ids),
        start=tuple(-1 if span is None else span[0] for span in spans),
        stop=tuple(-1 if span is None else span[1] for span in spans),
    )
    return table.padded(length or 0)


def cut_texts(prompts: Sequence[str], tables: Sequence[TokenTable]) -> list[str]:
    """Text of each prompt that has no token: it was cut off, or is not found in what the encoder was given. Empty for none.

    Several stretches are joined by an ellipsis. Punctuation does not count.
    """
    each = len(tables) // max(1, len(prompts)) or 1
    pairs = zip(prompts, tables[::each], strict=False)
    return [" … ".join(uncovered(prompt, list(zip(table.start, table.stop, strict=True)))) for prompt, table in pairs]


def warn_of_cut(pipe: Any, prompts: Sequence[str], tables: Sequence[TokenTable]) -> list[str]:
    """Warn by name of text that has no token; return `cut_texts`, empty strings where no token is known."""
    cut = cut_texts(prompts, tables) if any(i >= 0 for table in tables for i in table.id) else [""] * len(prompts)
    for text in filter(None, cut):
        warnings.warn(
            f"a part of the prompt has no token in what {type(pipe).__name__} gives its denoiser: {text!r}. It was cut off, or "
            "changed beyond recognition. It cannot be traced, balanced or named as a concept. Shorten the prompt, or give the "
            "pipeline a larger max_sequence_length if it has one.",
            UserWarning,
            stacklevel=3,
        )
    return cut


def _padding(tokenizer: Any, ids: list[int]) -> list[bool]:
    """Which ids are fill, at an end. Where the end token is also the fill (CLIP), the first one behind the text still ends it."""
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        return [False] * len(ids)
    head = next((index for index, i in enumerate(ids) if i != pad), len(ids))
    tail = len(ids) - next((index for index, i in enumerate(reversed(ids)) if i != pad), len(ids))
    if pad in {getattr(tokenizer, "eos_token_id", None), getattr(tokenizer, "sep_token_id", None)}:
        tail += 1
    return [index < head or index >= tail for index in range(len(ids))]


def _word(prompt: str, words: list[tuple[int, int]], span: tuple[int, int]) -> str:
    for start, stop in words:
        if span[0] < stop and start < span[1]:
            return prompt[start:stop]
    return prompt[span[0] : span[1]]


def _joined(tables: Sequence[TokenTable]) -> TokenTable:
    if len(tables) == 1:
        return tables[0]
    fields = ("text", "kind", "word", "id", "start", "stop")
    return TokenTable(**{name: tuple(chain.from_iterable(getattr(table, name) for table in tables)) for name in fields})


def _blank(length: int, kind: TokenKind = "text") -> TokenTable:
    """Tokens of which nothing is known."""
    return TokenTable(("",) * length, (kind,) * length, ("",) * length, (-1,) * length, (-1,) * length, (-1,) * length)
