"""Weight the tokens of concepts in the prompt's embedding, the baseline of prompt-weighting libraries."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from vico_lens.intervention.balancing.injection import shadow
from vico_lens.intervention.balancing.prompt_encoding import encode_other_prompt, prompt_encoder, prompts_of_call
from vico_lens.intervention.balancing.session import Session
from vico_lens.intervention.balancing.words import Names, words_of_call
from vico_lens.tracing.tokens import SeenIds, seen_ids

__all__ = ["Reweighting", "reweight"]


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
        stock = prompt_encoder(self.pipe)
        seen: SeenIds = undo.enter_context(seen_ids(self.pipe))

        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            prompts = prompts_of_call(args, kwargs)
            seen.clear()
            encoded = stock(*args, **kwargs)
            ids = {name: list(rows) for name, rows in seen.items()}
            embeddings = encoded[0].clone()
            (empty, *_) = encode_other_prompt(stock, [""] * len(prompts), args, kwargs)
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

    prompt_encoder(pipe)
    return Reweighting(pipe, concepts, weight, denoisers(pipe))
