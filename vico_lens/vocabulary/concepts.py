"""Concepts: named spans of prompt tokens, found by rules or named by hand.

Two different cuts of the same text meet here: words, in which a person names a concept, and the pieces that the text encoder saw.
They are joined by character offsets, never by counting words: "circle" may be two pieces, a comma is one, and padding is none.
Everything a concept needs comes from the prompt and a tokenizer, or from a recorded trace alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from vico_lens.errors import ConceptError, InputError
from vico_lens.vocabulary.phrases import Phrase, find_phrases, is_english, lettered, spacy_phrases, words_of
from vico_lens.vocabulary.pieces import Pieces, pieces_of_prompt, pieces_of_trace

__all__ = ["Concept", "PhraseFinder", "find_concepts"]

# Scripts that put no space between words (Thai, Lao, Khmer, Burmese, kana, Han): there a name may begin and end anywhere.
_RANGES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_UNSPACED = re.compile(f"[{_RANGES}]")
_SPACED = rf"[^\W{_RANGES}]"

_RANKS: dict[str, int] = {"subject": 0, "object": 1, "setting": 2}

PhraseFinder: TypeAlias = Callable[[str, Collection[str]], Iterable[Phrase]]


@dataclass(frozen=True, slots=True)
class Concept:
    """A named span of prompt tokens.

    Attributes
    ----------
    name : str
        How results label it.
    tokens : tuple of int
        Positions on the `token` axis of a trace, ascending, of every piece of its words. Never a special token or padding.
    span : tuple of int
        Characters ``prompt[start:stop]``; of its first occurrence if it has several.

    Examples
    --------
    >>> circle = Concept("red circle", tokens=(2, 3), span=(2, 12))
    >>> circle.name, len(circle.tokens)
    ('red circle', 2)
    """

    name: str
    tokens: tuple[int, ...]
    span: tuple[int, int]

    def __str__(self) -> str:
        return self.name


def find_concepts(
    source: Any,
    names: Sequence[str | Concept] | Mapping[str, Sequence[int]] | str | None = None,
    tokenizer: Any = None,
    *,
    kinds: Collection[str] = ("noun",),
    method: Literal["rules", "spacy"] | PhraseFinder = "rules",
    prompt: int | None = None,
    limit: int | None = 6,
) -> list[Concept]:
    r"""Find the concepts of a prompt, or the tokens of concepts named by hand.

    Parameters
    ----------
    source : xarray.DataTree, xarray.Dataset or str
        A trace, which knows its prompt and tokens; or a prompt, which needs `tokenizer`.
    names : sequence of str, or mapping, optional
        Concepts by name, always used as they are. A name is matched to whole words, whatever their case. A word that occurs more
        than once is one concept with the tokens of all its occurrences; named as often as it occurs, it is one concept an
        occurrence. Elements that are concepts already are kept. A mapping of names to positions of tokens is taken as it is.
    tokenizer : optional
        A fast tokenizer of transformers or a ``tokenizers.Tokenizer``, which give character offsets; or the `TokenTable` of a
        running call. With a tokenizer the positions are those of the prompt alone: where a pipeline wraps it in a template, use a
        trace.
    kinds : collection of str
        Which phrases to look for without `names`: ``"noun"``, ``"motion"``, or both.
    method : str or callable
        ``"rules"``, ``"spacy"`` (extra ``nlp``), or a function of prompt and kinds that returns phrases.
    prompt : int, optional
        Which prompt of a trace that holds several.
    limit : int or None
        Most concepts to return without `names`: things that act come first, then things that something is done to, then the
        setting. What is left out is a warning. None for all.

    Returns
    -------
    list of Concept
        In prompt order without `names`, else in the order of `names`. A phrase that occurs again is called ``"cat (2)"``.

    Raises
    ------
    ConceptError
        If a name is not in the prompt, or fell off the end of what the encoder reads, or no concept was found.
    InputError
        If a prompt comes without a tokenizer, the tokenizer gives no offsets, or `limit` is below 1.

    Warns
    -----
    UserWarning
        If phrases are left out: beyond `limit`, or because the encoder reads no token of them.

    Examples
    --------
    >>> class Words:  # a tokenizer of whole words between two special tokens
    ...     def __call__(self, text, **options):
    ...         spans = [(0, 0), *((m.start(), m.end()) for m in re.finditer(r"\w+", text)), (0, 0)]
    ...         return {"offset_mapping": spans, "special_tokens_mask": [1] + [0] * (len(spans) - 2) + [1]}
    >>> [(c.name, c.tokens) for c in find_concepts("a red circle and a blue square", tokenizer=Words())]
    [('red circle', (2, 3)), ('blue square', (6, 7))]
    >>> find_concepts("a red circle and a red square", ["red"], Words())
    [Concept(name='red', tokens=(2, 6), span=(2, 5))]
    """
    if isinstance(names, Mapping):
        if isinstance(source, str) or "prompt" in getattr(source, "attrs", {}):
            spans = (pieces_of_prompt(source, tokenizer) if isinstance(source, str) else pieces_of_trace(source, prompt)).spans
        else:
            spans = (None,) * int(source.coords["token"].size)
        return _by_tokens(spans, names)
    pieces = pieces_of_prompt(source, tokenizer) if isinstance(source, str) else pieces_of_trace(source, prompt)
    if names is None:
        return _found(pieces, kinds, method, limit)
    wanted = [names] if isinstance(names, str | Concept) else list(names)
    if not wanted:
        raise ConceptError("at least one concept is needed, got an empty list: leave names out to find them by rules.")
    return list(_named(pieces, wanted))


def _by_tokens(spans: Sequence[tuple[int, int] | None], names: Mapping[str, Sequence[int]]) -> list[Concept]:
    """Make concepts of tokens given by their positions."""
    if not names:
        raise InputError("concepts: expected at least one; got an empty mapping. Leave it out to have them found.")
    concepts = []
    for name, chosen in names.items():
        tokens = tuple(int(token) for token in chosen)
        if not tokens or not all(0 <= token < len(spans) for token in tokens):
            raise InputError(f"concept {name!r}: expected one or more token indices in 0..{len(spans) - 1}; got {list(tokens)}.")
        known = [span for token in tokens if (span := spans[token]) is not None] or [(0, 0)]
        concepts.append(Concept(str(name), tokens, (min(start for start, _ in known), max(stop for _, stop in known))))
    return concepts


def _found(pieces: Pieces, kinds: Collection[str], method: str | PhraseFinder, limit: int | None) -> list[Concept]:
    if callable(method):
        finder = method
    elif method in ("rules", "spacy"):
        finder = find_phrases if method == "rules" else spacy_phrases
    else:
        raise InputError(f"method must be 'rules', 'spacy' or a function, got {method!r}.")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, or None for every phrase, got {limit!r}.")
    concepts: list[Concept] = []
    ranks: list[int] = []
    unread: list[str] = []
    seen: dict[str, int] = {}
    for phrase in finder(pieces.prompt, kinds):
        tokens = pieces.within(phrase.start, phrase.stop)
        if not tokens:
            unread.append(phrase.text)
            continue
        seen[phrase.text] = seen.get(phrase.text, 0) + 1
        name = phrase.text if seen[phrase.text] == 1 else f"{phrase.text} ({seen[phrase.text]})"
        concepts.append(Concept(name, tokens, (phrase.start, phrase.stop)))
        ranks.append(_RANKS[phrase.role])
    if not concepts:
        raise ConceptError(_nothing_found(pieces, kinds, method))
    kept = sorted(sorted(range(len(concepts)), key=ranks.__getitem__)[:limit])
    left = [concept.name for index, concept in enumerate(concepts) if index not in kept]
    if left:
        warnings.warn(
            f"{len(concepts)} phrases were found in the prompt, of which the {len(kept)} of highest rank are taken (things that "
            f"act first, the setting last). Left out: {', '.join(left)}. Name the concepts that you want, or pass limit=None to "
            "find_concepts.",
            UserWarning,
            stacklevel=3,
        )
    if unread and pieces.cut_is_news:
        warnings.warn(
            f"the text encoder reads no token of these phrases of the prompt: {', '.join(unread)}. They are left out: the prompt "
            "is longer than what it reads.",
            UserWarning,
            stacklevel=3,
        )
    return [concepts[index] for index in kept]


def _nothing_found(pieces: Pieces, kinds: Collection[str], method: str | PhraseFinder) -> str:
    told = f"no {' or '.join(kinds)} phrase was found in the prompt {pieces.prompt!r}: name the concepts yourself. "
    if method == "rules" and not is_english(pieces.prompt):
        told += "The rules are made for English, and this prompt seems to be in another language. "
    return told + _listing(pieces)


def _named(pieces: Pieces, names: Sequence[str | Concept]) -> Iterator[Concept]:
    keys = [_key(name) for name in names if isinstance(name, str)]
    used: dict[str, int] = {}
    for name in names:
        if isinstance(name, Concept):
            _check(pieces, name)
            yield name
            continue
        spans = _occurrences(pieces.prompt, name)
        if not spans:
            raise ConceptError(f"concept {name!r} is not in the prompt {pieces.prompt!r}. {_listing(pieces)}")
        key = _key(name)
        times, label = keys.count(key), name
        if times > 1:
            if times > len(spans):
                raise ConceptError(
                    f"concept {name!r} is named {times} times, but occurs {len(spans)} times in the prompt {pieces.prompt!r}."
                )
            nth = used[key] = used.get(key, 0) + 1
            spans = spans[nth - 1 : nth]
            label = name if nth == 1 else f"{name} ({nth})"
        tokens = sorted({token for start, stop in spans for token in pieces.within(start, stop)})
        if not tokens:
            raise ConceptError(_without_token(pieces, name, spans[0]))
        yield Concept(label, tuple(tokens), spans[0])


def _without_token(pieces: Pieces, name: str, span: tuple[int, int]) -> str:
    if span[0] >= max((stop for _, stop in filter(None, pieces.spans)), default=0):
        return f"concept {name!r} lies beyond the {len(pieces.spans)} tokens that the text encoder reads: shorten the prompt."
    return (
        f"concept {name!r} has no token: its text was changed before it reached the text encoder and is not found in the tokens, "
        "though later text is. Name other words, or give its tokens: Concept(name, tokens, span)."
    )


def _check(pieces: Pieces, concept: Concept) -> None:
    """A concept made elsewhere must fit this prompt: its tokens exist here and are text."""
    wrong = [token for token in concept.tokens if not (0 <= token < len(pieces.spans) and pieces.spans[token])]
    if wrong or not concept.tokens:
        raise ConceptError(
            f"concept {concept.name!r} has tokens {concept.tokens}; of these {tuple(wrong)} are no text tokens "
            f"of the prompt {pieces.prompt!r}. "
            f"{_listing(pieces)}"
        )


def _key(name: str) -> str:
    return " ".join(name.casefold().split())


def _occurrences(prompt: str, name: str) -> list[tuple[int, int]]:
    """Where `name` stands in `prompt` as whole words, whatever the case and the spacing."""
    parts = name.split()
    if not parts:
        return []
    marks = {mark for mark, letter in zip(prompt, lettered(prompt), strict=True) if mark != letter and not _UNSPACED.match(mark)}
    spaced = "|".join([_SPACED, *map(re.escape, sorted(marks))])
    before = "" if _UNSPACED.match(name.strip()[0]) else rf"(?<!{spaced})"
    after = "" if _UNSPACED.match(name.strip()[-1]) else rf"(?!{spaced})"
    pattern = before + r"\s+".join(map(re.escape, parts)) + after
    return [match.span() for match in re.finditer(pattern, prompt, re.IGNORECASE)]


def _listing(pieces: Pieces) -> str:
    """What there is to choose from, for error messages."""
    phrases = list(dict.fromkeys(phrase.text for phrase in find_phrases(pieces.prompt)))
    words = list(dict.fromkeys(pieces.prompt[start:stop] for start, stop in words_of(pieces.prompt)))
    if not words:
        return "The prompt has no words."
    found = f"Found by rules: {', '.join(map(repr, phrases))}. " if phrases else ""
    return f"{found}Any of its words will do: {', '.join(words)}."
