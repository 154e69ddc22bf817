"""Token tables: strings, kinds, words and spans, for every kind of tokenizer, template and crop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vico_lens.testing.pipelines import PROMPT, tiny_pipeline
from vico_lens.testing.pipelines.tokenizers import byte_level_tokenizer, clip_tokenizer, metaspace_tokenizer, t5_tokenizer
from vico_lens.tracing.tokens import seen_ids, table_of
from vico_lens.vocabulary.schema import TokenTable

TOKENIZERS = {
    "clip": clip_tokenizer,
    "t5": t5_tokenizer,
    "metaspace": metaspace_tokenizer,
    "bytes": byte_level_tokenizer,
}


def made(kind: str, prompt: str, length: int = 32) -> TokenTable:
    tokenizer = TOKENIZERS[kind](length=length)
    ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True)["input_ids"]
    return table_of(tokenizer, prompt, ids)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_pieces_spell_their_words_in_order(kind: str) -> None:
    table = made(kind, PROMPT)
    spans = [(a, b) for a, b, k in zip(table.start, table.stop, table.kind, strict=True) if k == "text"]
    assert "".join(PROMPT[a:b] for a, b in spans) == PROMPT.replace(" ", "")
    words = [word for word, k in zip(table.word, table.kind, strict=True) if k == "text"]
    assert [word for i, word in enumerate(words) if i == 0 or word != words[i - 1]] == PROMPT.split()
    assert words.count("circle") == 2
    fill = table.kind.index("padding")
    assert len(table) == 32 and table.word[fill] == "" and table.start[fill] == -1


def test_where_the_end_token_is_the_fill_too_the_first_ends_the_text() -> None:
    table = made("clip", "red star", 8)
    assert table.kind == ("special", "text", "text", "special", "padding", "padding", "padding", "padding")


@given(
    st.sampled_from(sorted(TOKENIZERS)), st.lists(st.sampled_from(["red", "circle", "moving", "star"]), min_size=1, max_size=30)
)
def test_a_truncated_prompt_keeps_the_spans_of_what_is_left(kind: str, words: list[str]) -> None:
    prompt = " ".join(words)
    table = made(kind, prompt, 12)
    for start, stop, word, label in zip(table.start, table.stop, table.word, table.kind, strict=True):
        assert (label == "text") == (start >= 0)
        if label == "text":
            assert prompt[start:stop] and prompt[start:stop] in word


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_prompt_that_the_pipeline_cleaned_is_matched_piece_by_piece(kind: str) -> None:
    tokenizer = TOKENIZERS[kind](length=32)
    ids = tokenizer("a red circle", padding="max_length", max_length=32)["input_ids"]
    table = table_of(tokenizer, "A  Red,   circle", ids)
    found = ["A  Red,   circle"[a:b] for a, b, k in zip(table.start, table.stop, table.kind, strict=True) if k == "text"]
    assert "".join(found) == "ARedcircle"


class Slow:
    """A tokenizer without offsets: its ids are places in a list of pieces."""

    pad_token_id, all_special_ids = None, (0,)

    def __init__(self, *pieces: str) -> None:
        self.pieces = ("<start>", *pieces)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.pieces[i] for i in ids]


def test_a_letter_that_is_two_in_lower_case_moves_no_span() -> None:
    prompt = "\u0130\u0130 red \u0130stanbul star"  # the Turkish capital I, and in lower case an i with a dot of its own
    tokenizer = Slow("i", "\u0307", "i\u0307</w>", "red</w>", "i\u0307stan", "bul</w>", "star</w>")
    table = table_of(tokenizer, prompt, list(range(8)))
    assert [prompt[a:b] for a, b in zip(table.start[1:], table.stop[1:], strict=True)] == [
        *("\u0130", "\u0130", "\u0130", "red", "\u0130stan", "bul", "star")
    ]
    assert table.start[1:4] == (0, 0, 1) and table.kind == ("special", *["text"] * 7)
    assert table.word[4:] == ("red", "\u0130stanbul", "\u0130stanbul", "star")


def test_the_ids_that_the_encoder_was_given_are_seen_and_hooks_go() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    with seen_ids(tiny.pipe) as seen:
        tiny.pipe.encode_prompt(PROMPT, "cpu", 1, True, "still")
    assert len(seen["tokenizer"]) == 2
    assert seen["tokenizer"][0] == tiny.pipe.tokenizer(PROMPT, padding="max_length", max_length=24)["input_ids"]
    tiny.pipe.encode_prompt(PROMPT, "cpu", 1, False)
    assert len(seen["tokenizer"]) == 2
