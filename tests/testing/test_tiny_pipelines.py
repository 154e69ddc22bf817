"""Every tiny pipeline builds without a network, runs, and runs the same again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from vico_lens.errors import InputError
from vico_lens.testing.pipelines import PROMPT, TinyPipeline, tiny_pipeline, tiny_pipelines
from vico_lens.testing.pipelines.tokenizers import (
    LEXICON,
    byte_level_tokenizer,
    clip_tokenizer,
    merges_for,
    metaspace_tokenizer,
    t5_tokenizer,
)

FAMILIES = {
    "allegro-t2v",
    "animatediff-t2v",
    "animatediff-v2v",
    "anyflow-t2v",
    "cogvideox-i2v",
    "cogvideox-t2v",
    "cogvideox-v2v",
    "consisid-i2v",
    "cosmos-t2w",
    "easyanimate-t2v",
    "helios-t2v",
    "hunyuan-t2v",
    "hunyuan15-t2v",
    "kandinsky5-t2v",
    "latte-t2v",
    "ltx-i2v",
    "ltx-t2v",
    "ltx2-t2v",
    "mochi-t2v",
    "motif-t2v",
    "sana-t2v",
    "skyreels-v2-df",
    "skyreels-v2-t2v",
    "wan21-i2v",
    "wan21-t2v",
    "wan21-v2v",
    "wan21-vace",
    "wan22-5b-t2v",
    "wan22-t2v",
    "zeroscope-t2v",
    "zeroscope-v2v",
}


def test_every_family_of_the_contract_has_one() -> None:
    assert set(tiny_pipelines()) >= FAMILIES


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(InputError, match="did you mean 'latte-t2v'"):
        tiny_pipeline("latte-t2")


@pytest.mark.parametrize("name", tiny_pipelines())
def test_runs_to_finite_frames_and_reruns_bit_for_bit(name: str) -> None:
    global_state = torch.get_rng_state()
    tiny = tiny_pipeline(name)
    assert torch.equal(torch.get_rng_state(), global_state), "building changed the global random state"
    assert tiny.name == name and tiny.denoisers
    assert type(tiny.pipe).__module__.startswith("diffusers.")

    frames = tiny.run(seed=0)
    assert frames.shape == tiny.shape
    assert np.isfinite(frames).all() and frames.min() >= 0 and frames.max() <= 1
    assert frames.std() > 0.01, "the picture is constant: nothing that happened in the denoiser would show in it"
    np.testing.assert_array_equal(tiny.run(seed=0), frames)
    assert not np.array_equal(tiny.run(seed=1), frames)


@pytest.mark.parametrize("name", ["animatediff-t2v", "hunyuan-t2v", "wan21-t2v"])
def test_two_builds_are_equal_and_share_nothing(name: str) -> None:
    first, second = tiny_pipeline(name), tiny_pipeline(name)
    np.testing.assert_array_equal(first.run(), second.run())
    addresses = [
        {parameter.data_ptr() for module in tiny.denoisers.values() for parameter in module.parameters()}
        for tiny in (first, second)
    ]
    assert not addresses[0] & addresses[1]
    assert not np.array_equal(tiny_pipeline(name, seed=1).run(), first.run())


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_prompt_reaches_the_video(name: str) -> None:
    tiny = tiny_pipeline(name)
    assert tiny.kwargs["prompt"] == tiny.prompt
    other = tiny.run(prompt="a green star moving left and a yellow triangle still")
    assert not np.array_equal(other, tiny.run())


def test_both_experts_of_wan_22_run() -> None:
    tiny = tiny_pipeline("wan22-t2v")
    ran = []
    for name, module in tiny.denoisers.items():
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    tiny.run()
    assert set(ran) == {"transformer", "transformer_2"}


def test_overrides_take_the_place_of_arguments() -> None:
    tiny = tiny_pipeline("animatediff-t2v")
    assert tiny.run(num_frames=2).shape == (1, 2, *tiny.shape[2:])
    assert dataclasses.replace(tiny, kwargs=tiny.kwargs | {"num_frames": 2}).run().shape[1] == 2


TOKENIZERS = {
    "clip": (clip_tokenizer, lambda piece, first, last: piece + ("</w>" if last else "")),
    "t5": (t5_tokenizer, lambda piece, first, last: ("▁" if first else "") + piece),
    "qwen2": (byte_level_tokenizer, lambda piece, first, last: ("Ġ" if first else "") + piece),
    "llama": (metaspace_tokenizer, lambda piece, first, last: ("▁" if first else "") + piece),
    "gemma": (lambda: metaspace_tokenizer("GemmaTokenizer"), lambda piece, first, last: ("▁" if first else "") + piece),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_words_fall_into_the_pieces_of_the_lexicon(kind: str) -> None:
    build, spell = TOKENIZERS[kind]
    tokenizer = build()
    for word, pieces in LEXICON.items():
        expected = [spell(piece, i == 0, i == len(pieces) - 1) for i, piece in enumerate(pieces)]
        assert tokenizer.tokenize(f"red {word}")[1:] == expected
    assert tokenizer.decode(tokenizer(PROMPT).input_ids, skip_special_tokens=True).strip() == PROMPT


def test_pieces_that_cannot_be_had_are_refused() -> None:
    with pytest.raises(ValueError, match="across a border"):
        merges_for([("ab",), ("xa", "bx")])


def test_a_tiny_pipeline_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_pipeline("latte-t2v").name = "other"  # type: ignore[misc]
    assert isinstance(tiny_pipeline("latte-t2v"), TinyPipeline)
