"""The words of the running prompt: which text tokens carry content, and which belong to each concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vico_lens.errors import BalanceError, ConceptError, InputError
from vico_lens.intervention.balancing.directions import Direction, directions_of
from vico_lens.tracing.running_call import running_call
from vico_lens.tracing.tokens import SeenIds, token_tables, warn_of_cut
from vico_lens.vocabulary.concepts import Concept, find_concepts
from vico_lens.vocabulary.schema import TokenTable

__all__ = ["Names", "Words", "words_of_call", "words_of_table", "words_without_prompt"]

Names = Sequence[str | Concept]


@dataclass(frozen=True, slots=True)
class Words:
    """Concepts of one video's prompt.

    Attributes
    ----------
    concepts : tuple of Concept
        Their tokens count from the first text token of the softmax.
    content : tuple of int
        Every text token that is neither start, end nor padding, ascending.
    directions : tuple
        Where the prompt sends each concept, see `vico_lens.intervention.balancing.directions`; empty without a prompt.
    padding : int or None
        The first padding token, or where there is none the first special one behind the text; None if there is neither.
    """

    concepts: tuple[Concept, ...]
    content: tuple[int, ...]
    directions: tuple[Direction | None, ...] = ()
    padding: int | None = None

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """For each concept, the places of its tokens in `content`."""
        place = {token: index for index, token in enumerate(self.content)}
        return tuple(tuple(place[token] for token in concept.tokens) for concept in self.concepts)


def words_of_call(
    pipe: Any,
    concepts: Names | Sequence[Names] | None,
    tokens: int | Sequence[int],
    videos: int,
    seen: SeenIds,
    *,
    needed: bool = True,
) -> list[Words]:
    """Concepts and content tokens of every video of the running pipeline call.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        The pipeline whose call is under way.
    concepts : sequence of str or Concept, or one such sequence a different prompt, or None
        Names are looked up; None takes the noun phrases of each prompt.
    tokens : int or sequence of int
        Text tokens that the denoiser sees, of each of its text states if there are several.
    videos : int
        Rows of the latents: prompts times videos a prompt.
    seen : dict
        Ids that the text encoders were given, see `vico_lens.tracing.tokens.seen_ids`.
    needed : bool
        Whether a prompt without noun phrases is an error where no names are given; else it has no concepts.

    Raises
    ------
    ConceptError
        If a name is not in its prompt, a needed phrase is not found, or embeddings came without tokens of the concepts.
    InputError
        If the lists of concepts are not as many as the different prompts.
    """
    call = running_call(pipe)
    if call is None:
        raise BalanceError(f"expected a running call of {type(pipe).__name__}, got none; call it inside the `with`.")
    nested = concepts is not None and any(not isinstance(entry, (str, Concept)) for entry in concepts)
    if call.prompts is None:
        return [words_without_prompt(concepts)] * videos  # type: ignore[arg-type]
    prompts = [prompt for prompt in call.prompts for _ in range(max(1, videos // len(call.prompts)))]
    different = list(dict.fromkeys(prompts))
    each: list[Any] = list(concepts) if nested and concepts is not None else [concepts] * len(different)
    if len(each) != len(different):
        raise InputError(f"expected one list of concepts for each of {len(different)} different prompts, got {len(each)}.")
    names = dict(zip(different, each, strict=True))
    tables = token_tables(pipe, call, tokens, seen=seen)
    warn_of_cut(pipe, call.prompts, tables)
    tables = tables if len(tables) == len(prompts) else [table for table in tables for _ in range(len(prompts) // len(tables))]
    return [words_of_table(table, prompt, names[prompt], needed=needed) for table, prompt in zip(tables, prompts, strict=True)]


def words_of_table(table: TokenTable, prompt: str, names: Names | None, *, needed: bool = True) -> Words:
    """Find concepts by name, or all that the prompt holds, in the tokens of a running call.

    Raises
    ------
    ConceptError
        If a name is not in the prompt, or without names none is found though one is `needed`.
    """
    try:
        concepts = find_concepts(prompt, None if names is None else list(names), table)
    except ConceptError:
        if needed or names is not None:
            raise
        concepts = []
    content = tuple(index for index, kind in enumerate(table.kind) if kind == "text")
    behind = [index for index, kind in enumerate(table.kind) if kind == "special" and index > max(content, default=0)]
    padding = next((index for index, kind in enumerate(table.kind) if kind == "padding"), next(iter(behind), None))
    return Words(tuple(concepts), content, directions_of(prompt, concepts), padding)


def words_without_prompt(concepts: Names | None) -> Words:
    """Take concepts as they are, where the pipeline was given embeddings and no prompt.

    Raises
    ------
    ConceptError
        If there are none, or some are names: there is no text to look them up in.
    """
    known = [concept for concept in concepts or () if isinstance(concept, Concept)]
    if not known or len(known) < len(concepts or ()):
        raise ConceptError(
            "expected a prompt in the pipeline call, or concepts with their tokens where it is given embeddings; got "
            f"embeddings and concepts={list(map(str, concepts or ()))}. Pass Concept(name, tokens, span) objects, counting "
            "tokens "
            "from the first embedding."
        )
    return Words(tuple(known), tuple(sorted({token for concept in known for token in concept.tokens})))
