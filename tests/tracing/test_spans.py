"""Where tokens stand in a prompt with any character in it, cleaned or not, cut anywhere, in all kinds of tokenizer."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import ftfy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vico_lens.testing.pipelines.tokenizers import (
    LEXICON,
    byte_level_tokenizer,
    clip_tokenizer,
    metaspace_tokenizer,
    t5_tokenizer,
    umt5_tokenizer,
)
from vico_lens.tracing.tokens import cut_texts, table_of
from vico_lens.vocabulary.alignment import align, uncovered
from vico_lens.vocabulary.concepts import find_concepts
from vico_lens.vocabulary.schema import TokenTable


def right_padded(tokenizer: Any) -> Any:
    tokenizer.padding_side = "right"
    return tokenizer


TOKENIZERS: dict[str, Any] = {
    "clip": clip_tokenizer(64),
    "t5": t5_tokenizer(64),
    "umt5": umt5_tokenizer(64),
    "qwen": byte_level_tokenizer(64),
    "llama": right_padded(metaspace_tokenizer("LlamaTokenizer", 64)),
    "gemma": right_padded(metaspace_tokenizer("GemmaTokenizer", 64)),
}


def cleaned(prompt: str) -> str:
    """As Wan, SkyReels, Helios, AnyFlow and Kandinsky clean prompts."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()


CLEANINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda prompt: prompt,
    "cleaned": cleaned,
    "lower": lambda prompt: prompt.lower().strip(),
}


def encoded(tokenizer: Any, text: str, length: int) -> tuple[list[int], list[int]]:
    """Ids at a length, and the places of those that are text."""
    found = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_special_tokens_mask=True)
    kept = len(found["input_ids"]) - sum(found["attention_mask"])
    mask = found["special_tokens_mask"][: len(found["input_ids"]) - kept]
    return found["input_ids"], [index for index, special in enumerate(mask) if not special]


def told(prompt: str, words: list[str], begin: int) -> list[tuple[int, int]]:
    """Spans of the pieces of words that stand in `prompt` from `begin` on, by the lexicon alone."""
    spans = []
    for word in words:
        begin = prompt.index(word, begin)
        for piece in LEXICON[word]:
            spans.append((begin, begin + len(piece)))
            begin += len(piece)
    return spans


WORDS = st.lists(st.sampled_from(["a", "red", "blue", "circle", "square", "triangle", "moving", "star"]), min_size=2, max_size=8)
ODD = st.characters(exclude_categories=("Cs",)) | st.sampled_from(
    ["&amp;", "&#39;", "…", "ﬁ", "’", "“", "\u200d", "e\u0301", "👩‍🚀"]
)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=500, deadline=None)
@given(data=st.data(), words=WORDS, odd=ODD, how=st.sampled_from(sorted(CLEANINGS)), length=st.integers(4, 40))
def test_no_token_before_or_after_any_character_is_lost(
    kind: str, data: st.DataObject, words: list[str], odd: str, how: str, length: int
) -> None:
    tokenizer = TOKENIZERS[kind]
    plain = " ".join(words)
    place = data.draw(st.integers(0, len(plain)))
    prompt = plain[:place] + odd + plain[place:]
    text = CLEANINGS[how](prompt)
    ids, places = encoded(tokenizer, text, length)
    table = table_of(tokenizer, prompt, ids)

    # words that the character does not touch: their pieces are known, and so are their places from either end
    touched = {index for index, match in enumerate(re.finditer(r"\S+", plain)) if match.start() <= place <= match.end()}
    before, after = words[: min(touched)], words[max(touched) + 1 :]
    behind = place + len(odd) + (len(plain) - place if not after else plain[place:].index(" "))
    first, last = told(prompt, before, 0), told(prompt, after, behind)
    count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    expected = dict(enumerate(first)) | {count - len(last) + index: span for index, span in enumerate(last)}
    for index, span in expected.items():
        if index < len(places):
            token = places[index]
            assert (table.kind[token], (table.start[token], table.stop[token])) == ("text", span), (prompt, text, index)
            assert prompt[slice(*span)] in table.word[token]


CASES = {
    "quote": ("a star’s red circle and a blue square", "a star's red circle and a blue square"),
    "quotes": ("“a red circle” and a blue square", '"a red circle" and a blue square'),
    "entity": ("a red circle &amp; a blue square", "a red circle & a blue square"),
    "entity of an entity": ("a red circle &amp;amp; a blue square", "a red circle & a blue square"),
    "ligature": ("a ﬁ red circle and a blue square", "a fi red circle and a blue square"),
    "full width": ("a red circle，a blue square", "a red circle,a blue square"),
    "wrong encoding": ("a starâ€™s red circle and a blue square", "a star's red circle and a blue square"),
    "spaces": ("  a  red \t circle\n and a blue square ", "a red circle and a blue square"),
    "blank without width": ("a red\u200b circle and a blue square", "a red circle and a blue square"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("case", CASES)
def test_a_cleaned_prompt_keeps_every_word(kind: str, case: str) -> None:
    prompt, text = CASES[case]
    tokenizer = TOKENIZERS[kind]
    ids, places = encoded(tokenizer, text, 64)
    table = table_of(tokenizer, prompt, ids)
    lost = [table.text[place] for place in places if table.kind[place] != "text"]
    assert not [piece for piece in lost if piece not in (tokenizer.unk_token, "▁", "Ġ")], lost
    red, blue = find_concepts(prompt, ["circle", "blue square"], table)
    assert [table.text[token].strip("▁Ġ").removesuffix("</w>") for token in red.tokens] == ["cir", "cle"]
    assert [table.text[token].strip("▁Ġ").removesuffix("</w>") for token in blue.tokens] == ["blue", "square"]
    assert cut_texts([prompt], [table]) == [""]


@pytest.mark.parametrize(
    "length", [4, 5, 6, *range(9, 30)]
)  # at 7 and 8 the tiny vocabulary has one token for the letter and the end
def test_a_prompt_cut_anywhere_keeps_all_before_the_cut(length: int) -> None:
    prompt = "a red circle é and a blue square and a green star and a red circle"
    tokenizer = clip_tokenizer(length)
    whole = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ids, _ = encoded(tokenizer, prompt, length)
    table = table_of(tokenizer, prompt, ids)
    kept = min(length - 2, len(whole))
    assert table.kind.count("text") == kept
    assert list(zip(table.start, table.stop, strict=True))[1 : kept + 1] == whole[:kept]
    rest = prompt[whole[kept - 1][1] :].strip()
    assert cut_texts([prompt], [table]) == [rest]


def test_the_issue_s_cut_prompt() -> None:
    prompt = "a red circle é and a blue square and a green star and a red circle"
    tokenizer = clip_tokenizer(12)
    table = table_of(tokenizer, prompt, encoded(tokenizer, prompt, 12)[0])
    assert [prompt[slice(*concept.span)] for concept in find_concepts(prompt, ["circle", "blue square"], table)] == [
        *("circle", "blue square")
    ]
    assert cut_texts([prompt], [table]) == ["and a green star and a red circle"]


@pytest.mark.parametrize("kind", ["qwen", "llama", "gemma"])
@pytest.mark.parametrize("prompt", ["a  red   circle and a blue square", " a red  circle \n\n and  é  a blue\tsquare"])
def test_prompt_and_trace_give_the_same_tokens_with_blanks_that_are_tokens(kind: str, prompt: str) -> None:
    tokenizer = TOKENIZERS[kind]
    table = table_of(tokenizer, prompt, tokenizer(prompt)["input_ids"])
    names = ["red circle", "circle", "blue square", "and"]
    by_prompt, by_table = find_concepts(prompt, names, tokenizer), find_concepts(prompt, names, table)
    assert by_prompt == by_table
    spelled = [prompt[table.start[token] : table.stop[token]] for token in by_prompt[0].tokens]
    assert spelled == ["red", "cir", "cle"]


def test_template_words_are_no_words_of_the_prompt() -> None:
    tokenizer = TOKENIZERS["qwen"]
    prompt = "a red circle’s star"
    ids = tokenizer("a blue star moving: a red circle's star\nstar")["input_ids"]
    table = table_of(tokenizer, prompt, ids)
    spelled = "".join(prompt[a:b] for a, b, kind in zip(table.start, table.stop, table.kind, strict=True) if kind == "text")
    assert spelled == prompt.replace(" ", "")
    assert table.kind.count("text") == len(tokenizer("a red circle's star")["input_ids"])


@given(st.text(max_size=30), st.text(max_size=30))
@example("a\ufffd", "a")
def test_origins_are_in_order_and_equal_text_is_its_own(prompt: str, text: str) -> None:
    origins = [origin for origin in align(prompt, text) if origin is not None]
    assert all(0 <= start < stop <= len(prompt) for start, stop in origins)
    assert origins == sorted(origins)
    own = align(prompt, prompt)
    assert all(origin is None or origin[0] <= place < origin[1] for place, origin in enumerate(own))


@given(st.lists(st.sampled_from(["red", "circle", "é", "日", "star"]), max_size=8), st.data())
def test_what_is_not_covered_is_named_word_by_word(words: list[str], data: st.DataObject) -> None:
    prompt = ", ".join(words)
    spans = [match.span() for match in re.finditer(r"[^\s,]+", prompt)]
    kept = [data.draw(st.booleans()) for _ in spans]
    named = uncovered(prompt, [span for span, keep in zip(spans, kept, strict=True) if keep])
    assert [word for text in named for word in text.split(", ")] == [w for w, keep in zip(words, kept, strict=True) if not keep]


def test_a_table_of_a_prompt_that_fits_is_cut_nowhere() -> None:
    table = TokenTable(("a",), ("text",), ("a",), (1,), (0,), (1,))
    assert cut_texts(["a"], [table]) == [""] and cut_texts(["a cat"], [table]) == ["cat"]
