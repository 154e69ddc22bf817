"""The text tokens of a run, exactly as the denoiser sees them: strings, ids, kinds, words, and where each stands in the prompt.

The ids are those that the text encoder was really given, if it ran while watched; otherwise the prompt is tokenized again. A
template around the prompt (video language models are told what to do first) is cropped by the pipeline before the denoiser, and the
rest of it is special, not text. Character spans come from the tokenizer's own offsets where it has them and the prompt reached it
unchanged, and from matching the pieces to the prompt from left to right where a pipeline cleaned it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from vico_lens.families import Family, family_of
from vico_lens.phrases import words_of
from vico_lens.running import RunningCall
from vico_lens.schema import TokenKind, TokenTable

__all__ = ["SeenIds", "seen_ids", "table_of", "token_tables"]

SeenIds = dict[str, list[list[int]]]
"""Token ids by tokenizer name, one list a row, in the order in which they were encoded."""

_ENCODER_OF = {"tokenizer": "text_encoder"} | {f"tokenizer_{n}": f"text_encoder_{n}" for n in (2, 3)}
_MARKS = ("</w>", "▁", "Ġ", "Ċ", "##")


@contextmanager
def seen_ids(pipe: object) -> Iterator[SeenIds]:
    """Collect the ids that the text encoders of a pipeline are given, for the time of a ``with``."""
    seen: SeenIds = {}

    def keep(tokenizer: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if isinstance(ids, Tensor) and ids.ndim == 2 and not ids.is_floating_point():
            seen.setdefault(tokenizer, []).extend(ids.tolist())

    with ExitStack() as undo:
        for tokenizer, name in _ENCODER_OF.items():
            encoder = getattr(pipe, name, None)
            if isinstance(encoder, nn.Module):
                hook = lambda _, args, kwargs, tokenizer=tokenizer: keep(tokenizer, args, kwargs)  # noqa: E731
                undo.callback(encoder.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield seen


def token_tables(
    pipe: Any, call: RunningCall, tokens: int | None = None, *, seen: SeenIds | None = None, prompts: Sequence[str] | None = None
) -> list[TokenTable]:
    """Build the token tables of a running call, one a prompt row (videos of one prompt share theirs).

    Parameters
    ----------
    pipe : object
        The pipeline.
    call : RunningCall
        Its running call.
    tokens : int or None
        Text tokens that the denoiser sees. None: as many as the tokenizer pads a prompt to.
    seen : dict or None
        Ids that the text encoders were given (:func:`seen_ids`).
    prompts : sequence of str or None
        Prompts to use when the pipeline was called with embeddings.

    Returns
    -------
    list of TokenTable
        All of the same length. Tokens of which nothing is known (embeddings without a prompt) have an empty string.
    """
    family = family_of(pipe)
    texts = list(call.prompts or prompts or [])
    rows = call.rows or max(1, len(texts))
    if not texts:
        return [_blank(tokens or 0)] * rows
    videos = max(1, rows // len(texts))
    tables = [_of_prompt(pipe, family, text, index, tokens, seen or {}) for index, text in enumerate(texts)]
    length = max(len(table) for table in tables)
    return [_padded(table, length) for table in tables for _ in range(videos)]


def _of_prompt(pipe: Any, family: Family, prompt: str, index: int, tokens: int | None, seen: SeenIds) -> TokenTable:
    name = family.tokenizers[0]
    tokenizer = getattr(pipe, name, None)
    if tokenizer is None:
        return _blank(tokens or 0)
    rows = [row for row in seen.get(name, []) if tokens is None or len(row) >= tokens]
    ids = rows[index] if index < len(rows) else _tokenized(tokenizer, prompt, tokens)
    if tokens is not None and len(ids) > tokens:
        ids = ids[-tokens:] if family.crop == "end" else ids[:tokens]
    return table_of(tokenizer, prompt, ids, tokens)


def _tokenized(tokenizer: Any, prompt: str, tokens: int | None) -> list[int]:
    length = tokens or getattr(tokenizer, "model_max_length", 0)
    if not 0 < length < 10**6:  # tokenizers without a limit say 10**30
        return list(tokenizer(prompt)["input_ids"])
    return list(tokenizer(prompt, padding="max_length", max_length=length, truncation=True)["input_ids"])


def table_of(tokenizer: Any, prompt: str, ids: Sequence[int], length: int | None = None) -> TokenTable:
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

    Returns
    -------
    TokenTable
        Tokens of the prompt are ``text``; what the tokenizer or a template added is ``special``; fill at an end is ``padding``.
    """
    ids = list(ids)
    padding = _padding(tokenizer, ids)
    special = set(tokenizer.all_special_ids)
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
    spans = _offsets(tokenizer, prompt, ids) or _matched(prompt, pieces, [i in special for i in ids])
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
    return _padded(table, length or 0)


def _padding(tokenizer: Any, ids: list[int]) -> list[bool]:
    """Which ids are fill. Where the end token is also the fill (CLIP), the first one behind the text still ends it."""
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        return [False] * len(ids)
    flags = [i == pad for i in ids]
    ends = {getattr(tokenizer, "eos_token_id", None), getattr(tokenizer, "sep_token_id", None)}
    if pad in ends and True in flags:
        tail = len(flags)
        while tail and flags[tail - 1]:
            tail -= 1
        flags = [index > tail for index in range(len(flags))]
    return flags


def _offsets(tokenizer: Any, prompt: str, ids: list[int]) -> list[tuple[int, int] | None] | None:
    """Character spans by the tokenizer's own account, or None if it has none or was given another text than the prompt."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    own = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    pieces, offsets = list(own["input_ids"]), [tuple(span) for span in own["offset_mapping"]]
    # a template may merge with the prompt's first piece, and truncation may cut its last ones
    for skip in (0, 1):
        body, marks = pieces[skip:], offsets[skip:]
        for start in range(len(ids)):
            kept = min(len(body), len(ids) - start)
            while kept and kept > len(body) - 3 and ids[start : start + kept] != body[:kept]:
                kept -= 1  # an end token takes the place of the last piece of a truncated prompt
            whole = kept == len(body) or start + kept >= len(ids) - 1
            if kept > 0 and whole and ids[start : start + kept] == body[:kept]:
                spans: list[tuple[int, int] | None] = [None] * len(ids)
                spans[start : start + kept] = [_trimmed(prompt, a, b) for a, b in marks[:kept]]
                return spans
    return None


def _trimmed(prompt: str, start: int, stop: int) -> tuple[int, int]:
    while start < stop and prompt[start].isspace():
        start += 1
    return start, stop


def _matched(prompt: str, pieces: list[str], special: list[bool]) -> list[tuple[int, int] | None]:
    """Character spans found by looking for each piece in the prompt, from where the last one ended."""
    lowered, cursor = prompt.lower(), 0
    spans: list[tuple[int, int] | None] = []
    for piece, skip in zip(pieces, special, strict=True):
        text = piece.lower()
        for mark in _MARKS:
            text = text.replace(mark, "")
        while cursor < len(prompt) and prompt[cursor].isspace():
            cursor += 1
        at = -1 if skip or not text else lowered.find(text, cursor)
        if at < 0 or not (at == cursor or lowered[cursor:at].strip(" \t\n.,;:!?\"'()-") == ""):
            spans.append(None)
            continue
        cursor = at + len(text)
        spans.append((at, cursor))
    return spans


def _word(prompt: str, words: list[tuple[int, int]], span: tuple[int, int]) -> str:
    for start, stop in words:
        if span[0] < stop and start < span[1]:
            return prompt[start:stop]
    return prompt[span[0] : span[1]]


def _padded(table: TokenTable, length: int) -> TokenTable:
    more = length - len(table)
    if more <= 0:
        return table
    blank = _blank(more, "padding")
    return TokenTable(
        table.text + blank.text,
        table.kind + blank.kind,
        table.word + blank.word,
        table.id + blank.id,
        table.start + blank.start,
        table.stop + blank.stop,
    )


def _blank(length: int, kind: TokenKind = "text") -> TokenTable:
    """Tokens of which nothing is known."""
    return TokenTable(("",) * length, (kind,) * length, ("",) * length, (-1,) * length, (-1,) * length, (-1,) * length)
