"""From words to tokens: real tokenizers of four kinds, traces, repeated words, padding, and messages that help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from vico_lens.errors import ConceptError, InputError
from vico_lens.testing import fake_trace
from vico_lens.testing.pipelines.tokenizers import PROMPT, byte_level_tokenizer, clip_tokenizer, metaspace_tokenizer, t5_tokenizer
from vico_lens.tinyworld import sample_prompts
from vico_lens.tinyworld.training.tokenizer import build_tokenizer
from vico_lens.vocabulary.concepts import Concept, find_concepts
from vico_lens.vocabulary.phrases import Phrase, words_of
from vico_lens.vocabulary.schema import TokenTable

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "clip": clip_tokenizer,
    "t5": t5_tokenizer,
    "byte level": byte_level_tokenizer,
    "metaspace": lambda: right_padded(metaspace_tokenizer()),  # Llama pads in front by default
}


def right_padded(tokenizer: Any) -> Any:
    tokenizer.padding_side = "right"
    return tokenizer


def trained_bpe() -> Tokenizer:
    """A byte-level BPE trained on a few prompts, with a start and an end token."""
    tokenizer = Tokenizer(BPE(unk_token=None))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=["[S]", "[E]"], initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([PROMPT, "a crab DJing at a beach party during sunset"], trainer)
    tokenizer.post_processor = TemplateProcessing(single="[S] $A [E]", special_tokens=[("[S]", 0), ("[E]", 1)])
    return tokenizer


BPE_TOKENIZER = trained_bpe()


def trace_of(prompt: str, tokenizer: Any, *, offsets: bool = True, padding: int = 3) -> xr.DataTree:
    """The root of a trace: its token coordinates, as a recording leaves them, padded."""
    encoded = tokenizer(prompt, return_offsets_mapping=True, return_special_tokens_mask=True)
    count = len(encoded["input_ids"])
    kind = ["special" if mark else "text" for mark in encoded["special_tokens_mask"]] + ["padding"] * padding
    spans = np.array([*encoded["offset_mapping"], *[(0, 0)] * padding])
    spans[[index for index, value in enumerate(kind) if value != "text"]] = -1
    text = tokenizer.convert_ids_to_tokens(encoded["input_ids"]) + ["[PAD]"] * padding
    coords = {"token": np.arange(count + padding), "token_text": ("token", text), "token_kind": ("token", kind)}
    if offsets:
        coords |= {"token_start": ("token", spans[:, 0]), "token_stop": ("token", spans[:, 1])}
    return xr.DataTree(xr.Dataset(coords=coords, attrs={"prompt": prompt}))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_pieces_of_a_concept_spell_its_words(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    ids = tokenizer(PROMPT)["input_ids"]
    found = find_concepts(PROMPT, tokenizer=tokenizer)
    assert [concept.name for concept in found] == ["red circle", "blue square"]
    for concept in found:
        assert tokenizer.decode([ids[token] for token in concept.tokens]).strip() == concept.name
        assert len(concept.tokens) == {"red circle": 3, "blue square": 2}[concept.name]
        assert PROMPT[slice(*concept.span)] == concept.name


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("offsets", [True, False], ids=["with offsets", "without offsets"])
def test_a_trace_gives_the_same_tokens_as_its_tokenizer(kind: str, offsets: bool) -> None:
    tokenizer = TOKENIZERS[kind]()
    trace = trace_of(PROMPT, tokenizer, offsets=offsets)
    assert find_concepts(trace) == find_concepts(PROMPT, tokenizer=tokenizer)
    assert find_concepts(trace, ["circle", "moving"]) == find_concepts(PROMPT, ["circle", "moving"], tokenizer)


def test_the_token_table_of_a_running_call() -> None:
    table = TokenTable(
        text=("[S]", "a", "red", "cir", "cle", "[E]", "[E]"),
        kind=("special", "text", "text", "text", "text", "special", "padding"),
        word=("", "a", "red", "circle", "circle", "", ""),
        id=tuple(range(7)),
        start=(-1, 0, 2, 6, 9, -1, -1),
        stop=(-1, 1, 5, 9, 12, -1, -1),
    )
    assert find_concepts("a red circle", tokenizer=table) == [Concept("red circle", (2, 3, 4), (2, 12))]
    assert find_concepts("a red circle", ["circle"], table)[0].tokens == (3, 4)


def test_motions_on_request() -> None:
    found = find_concepts(PROMPT, tokenizer=clip_tokenizer(), kinds=("noun", "motion"))
    assert [concept.name for concept in found] == ["red circle", "moving right", "blue square", "moving up"]


def test_explicit_names_win_over_rules() -> None:
    found = find_concepts(PROMPT, ["moving up", "A RED  circle", "and"], clip_tokenizer())
    assert [concept.name for concept in found] == ["moving up", "A RED  circle", "and"]
    assert [len(concept.tokens) for concept in found] == [3, 4, 1]
    assert find_concepts(PROMPT, "blue square", clip_tokenizer()) == find_concepts(PROMPT, ["blue square"], clip_tokenizer())


def test_repeated_words() -> None:
    prompt = "a red circle and a red square and a red circle"
    tokenizer = clip_tokenizer()
    (red,) = find_concepts(prompt, ["red"], tokenizer)
    assert len(red.tokens) == 3
    first, second, third = find_concepts(prompt, ["red", "red", "Red"], tokenizer)
    assert [first.name, second.name, third.name] == ["red", "red (2)", "Red (3)"]
    assert first.tokens + second.tokens + third.tokens == red.tokens
    found = find_concepts(prompt, tokenizer=tokenizer)
    assert [concept.name for concept in found] == ["red circle", "red square", "red circle (2)"]
    assert len({concept.tokens for concept in found}) == 3
    with pytest.raises(ConceptError, match="named 2 times, but occurs 1"):
        find_concepts(prompt, ["square", "square"], tokenizer)


def test_padding_and_special_tokens_are_never_included() -> None:
    tokenizer = clip_tokenizer(length=32)
    padded = tokenizer(PROMPT, padding="max_length", max_length=32)["input_ids"]
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    for concept in find_concepts(PROMPT, [PROMPT, "red", "up"], tokenizer):
        assert not special & {padded[token] for token in concept.tokens}


def test_padding_in_front_moves_the_tokens() -> None:
    tokenizer = t5_tokenizer(length=24)
    (right,) = find_concepts(PROMPT, ["circle"], tokenizer)
    tokenizer.padding_side = "left"
    (left,) = find_concepts(PROMPT, ["circle"], tokenizer)
    shift = 24 - len(tokenizer(PROMPT)["input_ids"])
    assert left.tokens == tuple(token + shift for token in right.tokens)


def test_words_beyond_the_encoder_are_an_error_by_name_and_left_out_by_rule() -> None:
    tokenizer = clip_tokenizer(length=6)
    with pytest.warns(UserWarning, match="reads no token of these phrases of the prompt: blue square"):
        assert [concept.name for concept in find_concepts(PROMPT, tokenizer=tokenizer)] == ["red circle"]
    with pytest.raises(ConceptError, match="beyond the 6 tokens"):
        find_concepts(PROMPT, ["blue square"], tokenizer)


def test_unknown_concept_lists_what_there_is() -> None:
    with pytest.raises(ConceptError, match=r"'crab' is not in the prompt.*'red circle', 'blue square'.*moving"):
        find_concepts(PROMPT, ["crab"], clip_tokenizer())
    with pytest.raises(ConceptError, match="'circ' is not"):  # a part of a word is no word
        find_concepts(PROMPT, ["circ"], clip_tokenizer())


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_empty_prompt(prompt: str) -> None:
    with pytest.raises(ConceptError, match="empty"):
        find_concepts(prompt, tokenizer=clip_tokenizer())


def test_prompt_without_a_noun_asks_for_names() -> None:
    with pytest.raises(ConceptError, match=r"no noun phrase .* name the concepts yourself.*moving, up"):
        find_concepts("moving up", tokenizer=clip_tokenizer())
    with pytest.raises(ConceptError, match="empty list"):
        find_concepts(PROMPT, [], clip_tokenizer())


def test_concepts_made_elsewhere_are_kept_or_refused() -> None:
    mine = Concept("mine", (2, 3), (2, 9))
    assert find_concepts(PROMPT, [mine, "blue"], clip_tokenizer())[0] is mine
    with pytest.raises(ConceptError, match=r"\(0, 99\) are no text tokens"):
        find_concepts(PROMPT, [Concept("wrong", (0, 2, 99), (0, 1))], clip_tokenizer())


def test_one_prompt_of_several() -> None:
    tokenizer = clip_tokenizer()
    rows = [trace_of(prompt, tokenizer, padding=0).to_dataset() for prompt in ("a red circle", "a blue square")]
    both = xr.concat([row.reset_coords(drop=False).isel(token=slice(0, 5)) for row in rows], dim="prompt", combine_attrs="drop")
    both = both.set_coords(list(both.data_vars)).assign_attrs(prompt=["a red circle", "a blue square"])
    assert [concept.name for concept in find_concepts(both, prompt=1)] == ["blue square"]
    with pytest.raises(InputError, match=r"prompt is needed.*one of \[0, 1\]"):
        find_concepts(both)


@pytest.mark.parametrize("tokenizer", [None, 3, type("Slow", (), {"is_fast": False})()])
def test_tokenizer_must_give_offsets(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"tokenizer|fast"):
        find_concepts(PROMPT, tokenizer=tokenizer)


def test_neither_trace_nor_prompt() -> None:
    with pytest.raises(InputError, match="expected a trace"):
        find_concepts(xr.Dataset({"x": 1}))


def test_a_finder_of_ones_own() -> None:
    found = find_concepts(PROMPT, tokenizer=clip_tokenizer(), method=lambda prompt, kinds: [Phrase("a red", 0, 5)])
    assert [(concept.name, len(concept.tokens)) for concept in found] == [("a red", 2)]
    with pytest.raises(InputError, match="'rules', 'spacy' or a function"):
        find_concepts(PROMPT, tokenizer=clip_tokenizer(), method="nltk")  # type: ignore[arg-type]


SENTENCES = st.lists(
    st.sampled_from([*PROMPT.split(), "crab", "DJing", "naïve", "猫", "co-op", "x,"]), min_size=1, max_size=10
).map(" ".join)


@given(SENTENCES)
def test_the_words_of_a_prompt_share_out_its_text_tokens(prompt: str) -> None:
    """With byte-level BPE every word's tokens hold exactly its characters, and different words share none."""
    encoding = BPE_TOKENIZER.encode(prompt)
    taken: set[int] = set()
    for start, stop in words_of(prompt):
        word = prompt[start:stop]
        concept = find_concepts(prompt, [word], BPE_TOKENIZER)[0]
        covered = [encoding.offsets[token] for token in concept.tokens]
        assert all(encoding.special_tokens_mask[token] == 0 for token in concept.tokens)
        inside = [span for span in covered if span[0] < stop and start < span[1]]
        assert min(a for a, _ in inside) <= start and max(b for _, b in inside) >= stop
        assert all(prompt[a:b].strip().lower() in word.lower() for a, b in covered)
        own = {token for token in concept.tokens if encoding.offsets[token] in inside}
        assert not own & taken
        taken |= own
    rest = [span for token, span in enumerate(encoding.offsets) if token not in taken and not encoding.special_tokens_mask[token]]
    assert all(not any(character.isalnum() for character in prompt[a:b]) for a, b in rest)


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_tiny_world_concepts_are_the_pieces_of_their_words(objects: int) -> None:
    tokenizer = build_tokenizer()
    for prompt in sample_prompts(20, objects=objects, seed=4):
        ids = tokenizer(str(prompt))["input_ids"]
        found = find_concepts(str(prompt), tokenizer=tokenizer)
        assert tuple(concept.name for concept in found) == prompt.concepts
        for concept in found:
            assert tokenizer.decode([ids[token] for token in concept.tokens]).strip() == concept.name


@pytest.mark.parametrize(
    ("prompt", "name", "spans"),
    [
        ("一只螃蟹在打碟", "螃蟹", [(2, 4)]),
        ("红色cat在跑", "cat", [(2, 5)]),
        ("ひらがな猫です", "猫", [(4, 5)]),
        ("a concatenated cat", "cat", [(15, 18)]),
    ],
)
def test_names_in_scripts_without_spaces_begin_and_end_anywhere(prompt: str, name: str, spans: list[tuple[int, int]]) -> None:
    tokenizer = Characters()
    (concept,) = find_concepts(prompt, [name], tokenizer)
    assert concept.span == spans[0]
    assert concept.tokens == tuple(index for start, stop in spans for index in range(start, stop))


@pytest.mark.parametrize("part", ["\u0932", "\u0917", "\u0926"])  # la, ga, da: letters of two words, whose vowel signs follow
def test_a_letter_is_no_word_of_its_own_where_a_mark_belongs_to_it(part: str) -> None:
    prompt = "\u0932\u093e\u0932 \u0917\u0947\u0902\u0926"  # Hindi: red ball
    with pytest.raises(ConceptError, match="is not in the prompt"):
        find_concepts(prompt, [part], Characters())
    assert [concept.span for concept in find_concepts(prompt, prompt.split(), Characters())] == [(0, 3), (4, 8)]


class Characters:
    """A tokenizer of single characters, without special tokens."""

    def __call__(self, text: str, **options: object) -> dict[str, list[object]]:
        return {"offset_mapping": [(at, at + 1) for at in range(len(text))], "special_tokens_mask": [0] * len(text)}


def test_a_row_of_several_videos_a_prompt_belongs_to_its_prompt() -> None:
    tree = fake_trace(prompt=["a red circle", "a red circle", "a dog", "a dog"])
    tree.attrs |= {"prompt": ["a red circle", "a dog"], "videos_per_prompt": 2}
    assert [concept.name for concept in find_concepts(tree, prompt=3)] == ["dog"]
    assert [concept.name for concept in find_concepts(tree, prompt=1)] == ["red circle"]
    with pytest.raises(InputError, match=r"prompt: expected one or more of \[0, 1, 2, 3\].*got 4"):
        find_concepts(tree, prompt=4)


def test_a_word_that_the_encoder_was_not_given_is_told_from_one_beyond_its_end() -> None:
    table = TokenTable(("a", "cat"), ("text", "text"), ("a", "cat"), (1, 2), (0, 8), (1, 11))  # nothing of "red"
    with pytest.raises(ConceptError, match="'red' has no token: its text was changed"):
        find_concepts("a red   cat", ["red"], table)


LONG = (
    "A young woman feeds a brown horse beside a wooden fence, a boy paints a boat near the old harbour, "
    "two dogs chase a ball in the sand under a grey sky with white clouds"
)


def test_a_long_prompt_gives_six_concepts_and_says_what_it_left_out() -> None:
    with pytest.warns(
        UserWarning, match=r"11 phrases .* 6 of highest rank .*Left out: .*grey sky, white clouds\. Name the concepts"
    ):
        found = find_concepts(LONG, tokenizer=Characters())
    assert [concept.name for concept in found] == ["young woman", "brown horse", "boy", "boat", "dogs", "ball"]
    every = find_concepts(LONG, tokenizer=Characters(), limit=None)
    assert len(every) == 11 and set(found) < set(every)
    assert [concept.name for concept in find_concepts(LONG, ["sand", "boy"], Characters())] == ["sand", "boy"]
    with pytest.raises(InputError, match="limit must be at least 1"):
        find_concepts(LONG, tokenizer=Characters(), limit=0)


@pytest.mark.parametrize("prompt", ["eine Katze springt auf den Tisch", "un chien court dans le parc", "一只猫在跑", "кот спит"])
def test_a_sentence_in_another_language_is_no_concept_and_asks_for_names(prompt: str) -> None:
    with pytest.raises(ConceptError, match=r"name the concepts yourself\. The rules are made for English"):
        find_concepts(prompt, tokenizer=Characters())
    assert find_concepts(prompt, [prompt.split()[-1]], Characters())
