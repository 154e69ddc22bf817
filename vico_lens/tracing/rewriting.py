"""What pipelines make of a prompt before they tokenize it.

Every change is asked of the code that makes it: the pipeline's own cleaning functions, the vectors that its tokenizer was given
for a word, the quoted texts that it hands to a second encoder. The result keeps the origin of each character.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from vico_lens.tracing.running_call import RunningCall
from vico_lens.vocabulary.alignment import Rewritten, Span, with_vectors

__all__ = ["glyphs_of", "rewrites_of"]

_QUOTED = re.compile(r"\"(.*?)\"|“(.*?)”")


def rewrites_of(pipe: Any, tokenizer: Any, prompt: str, call: RunningCall | None = None) -> list[Rewritten]:
    """Texts that a pipeline may have handed to its tokenizer for a prompt, the likeliest first.

    Parameters
    ----------
    pipe : object
        The pipeline.
    tokenizer : object
        One of its tokenizers.
    prompt : str
        As its user wrote it.
    call : RunningCall or None
        Its running call, whose arguments say whether a caption is to be cleaned.

    Returns
    -------
    list of Rewritten
        Different texts. Texts that a pipeline puts around a prompt (templates) are not part of them.
    """
    texts = [*_cleaned(pipe, prompt, call), prompt]
    found = [with_vectors(tokenizer, Rewritten.of(prompt, text)) for text in texts]
    return list({rewritten.text: rewritten for rewritten in found}.values())


def _cleaned(pipe: Any, prompt: str, call: RunningCall | None) -> Iterator[str]:
    for kind in type(pipe).__mro__:
        clean = getattr(sys.modules.get(kind.__module__), "prompt_clean", None)
        if callable(clean):
            yield str(clean(prompt))
            break
    preprocess: Callable[..., list[str]] | None = getattr(pipe, "_text_preprocessing", None)
    if callable(preprocess):
        asked = bool(call.locals.get("clean_caption", False)) if call is not None else False
        yield from (str(text) for text in preprocess(prompt, clean_caption=asked))


def glyphs_of(prompt: str) -> Rewritten | None:
    """The text of HunyuanVideo 1.5 for its second encoder: what stands in quotes. None without quotes: it is not asked then.

    >>> glyphs_of('a sign "stop" and "go"').text
    'Text "stop". Text "go". '
    """
    found: dict[str, int] = {}
    for match in _QUOTED.finditer(prompt):
        group = 1 if match[1] else 2
        found.setdefault(match[group] or "", match.start(group))
    if not found:
        return None
    text, origins = "", []
    for quoted, start in found.items():
        own: list[Span | None] = [(place, place + 1) for place in range(start, start + len(quoted))]
        text += f'Text "{quoted}". '
        origins += [*[None] * 6, *own, *[None] * 3]
    return Rewritten(text, tuple(origins))
