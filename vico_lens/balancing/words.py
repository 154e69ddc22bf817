"""The words of the running prompt: which text tokens carry content, and which belong to each concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vico_lens.concepts import Concept, find_concepts
from vico_lens.errors import ConceptError
from vico_lens.schema import TokenTable

__all__ = ["Words", "words_of_table", "words_without_prompt"]


@dataclass(frozen=True, slots=True)
class Words:
    """Concepts of one video's prompt.

    Attributes
    ----------
    concepts : tuple of Concept
        Their tokens count from the first text token of the softmax.
    content : tuple of int
        Every text token that is neither start, end nor padding, ascending.
    """

    concepts: tuple[Concept, ...]
    content: tuple[int, ...]

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """For each concept, the places of its tokens in `content`."""
        place = {token: index for index, token in enumerate(self.content)}
        return tuple(tuple(place[token] for token in concept.tokens) for concept in self.concepts)


def words_of_table(table: TokenTable, prompt: str, names: Sequence[str | Concept] | None) -> Words:
    """Find concepts by name, or all that the prompt holds, in the tokens of a running call.

    Raises
    ------
    ConceptError
        If a name is not in the prompt, or without names none is found.
    """
    concepts = find_concepts(prompt, None if names is None else list(names), table)
    return Words(tuple(concepts), tuple(index for index, kind in enumerate(table.kind) if kind == "text"))


def words_without_prompt(concepts: Sequence[str | Concept] | None) -> Words:
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
