"""The parts that trained the bundled model, on a scale of seconds."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from vico_lens.errors import ModelError
from vico_lens.tinyworld import is_held_out
from vico_lens.tinyworld.codec import CHANNELS, fit_patch_code
from vico_lens.tinyworld.training.data import (
    KINDS,
    TrainingData,
    make_training_data,
    make_training_frames,
    sample_training_prompt,
)
from vico_lens.tinyworld.training.loop import train
from vico_lens.tinyworld.training.model import build_denoiser, frame_positions
from vico_lens.tinyworld.training.optimiser import BatchedMuon, orthogonalise
from vico_lens.tinyworld.training.probe import swapped_direction_loss
from vico_lens.tinyworld.training.recipe import RECIPE, Recipe, Stage
from vico_lens.tinyworld.training.tokenizer import MAX_TOKENS, SPLIT_WORDS, build_tokenizer
from vico_lens.tinyworld.vocabulary import WORDS

MIX = {"one": 0.6, "two": 0.4}
TINY = Recipe(
    seed=3,
    widths=(16, 32),
    clips={"one": 60, "two": 20},
    stages=(Stage("frames", 3, 4, 1, 0.0, MIX), Stage("clips", 3, 2, 4, 0.5, MIX)),
    rates=((0, 0.0), (2, 1.0), (4, 1.0), (6, 0.1)),
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def data(tokenizer) -> TrainingData:
    return make_training_data(TINY.clips, tokenizer, seed=TINY.seed)


def test_every_word_is_known_and_some_are_split(tokenizer):
    for word in sorted(WORDS):
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(word, add_special_tokens=False).input_ids)
        assert "".join(pieces) == f"{word}</w>"
        assert len(pieces) == len(SPLIT_WORDS.get(word, (word,)))
    longest = (
        "a small yellow triangle moving right and a small purple triangle moving left and a small white triangle staying still"
    )
    assert len(tokenizer(longest).input_ids) <= MAX_TOKENS


def test_training_prompts_are_unequal_and_skip_held_out_pairs():
    rng = np.random.default_rng(0)
    pairs = [sample_training_prompt("two", rng) for _ in range(400)]
    assert not any(is_held_out(*prompt.objects) for prompt in pairs)
    colours = [item.colour for prompt in pairs for item in prompt.objects]
    assert colours.count("red") > 2 * colours.count("white")
    trios = [sample_training_prompt("three", rng) for _ in range(50)]
    assert not any(is_held_out(a, b) for prompt in trios for a, b in itertools.combinations(prompt.objects, 2))


def test_data_is_repeatable_and_means_are_means(tokenizer, data):
    again = make_training_data(TINY.clips, tokenizer, seed=TINY.seed)
    assert torch.equal(again.latents, data.latents) and torch.equal(again.tokens, data.tokens)
    assert data.latents.shape == (80, 8, CHANNELS, 8, 8)
    assert [int((data.kind == KINDS.index(kind)).sum()) for kind in ("one", "two")] == [60, 20]
    members = [i for i, caption in enumerate(data.caption.tolist()) if caption == 0]
    torch.testing.assert_close(data.means[0], data.latents[members].float().mean(0))
    assert (data.caption[data.kind == KINDS.index("two")] == -1).all()


def test_the_patch_code_keeps_what_the_judge_needs():
    frames = make_training_frames(np.random.default_rng(1), clips=20).float() / 255
    code = fit_patch_code(frames)
    latents = code.encode(frames)
    assert latents.shape[1:] == (CHANNELS, 8, 8)
    assert latents.std() == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(code.basis.T @ code.basis, torch.eye(CHANNELS), atol=1e-5, rtol=0)
    error = (code.decode(latents) - frames).square().mean()
    assert -10 * torch.log10(error) > 28


def test_orthogonalise_evens_singular_values():
    matrices = torch.randn(3, 20, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.6 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(orthogonalise(matrices).flatten(1), (left @ right).flatten(1))
    assert (cosine > 0.97).all()


def test_muon_treats_tall_and_wide_matrices_alike():
    weights = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    tall, wide = torch.nn.Parameter(weights.clone()), torch.nn.Parameter(weights.T.clone())
    optimiser = BatchedMuon([tall, wide], lr=0.1, weight_decay=0.0)
    gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    tall.grad, wide.grad = gradient, gradient.T.contiguous()
    optimiser.step()
    torch.testing.assert_close((tall - weights) / (6 / 4) ** 0.5, (wide - weights.T).T)


def test_frame_positions_are_the_true_ones_and_are_put_back():
    torch.manual_seed(0)
    denoiser = build_denoiser((8, 16)).eval()
    tables = [m.pe.clone() for m in denoiser.modules() if hasattr(m, "pe")]
    assert tables
    frames = torch.tensor([1, 4, 6])
    with frame_positions(denoiser, frames):
        for module, table in zip((m for m in denoiser.modules() if hasattr(m, "pe")), tables, strict=True):
            assert torch.equal(module.pe[:, :3], table[:, frames])
    assert all(torch.equal(m.pe, t) for m, t in zip((m for m in denoiser.modules() if hasattr(m, "pe")), tables, strict=True))


def test_a_resumed_training_ends_where_an_unbroken_one_does(tmp_path, tokenizer, data):
    whole = train(TINY, data, tokenizer, tmp_path / "whole")
    train(TINY, data, tokenizer, tmp_path / "broken", stop_at=4)
    resumed = train(TINY, data, tokenizer, tmp_path / "broken")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_foreign_checkpoint_is_refused(tmp_path, tokenizer, data):
    train(TINY, data, tokenizer, tmp_path, stop_at=1)
    with pytest.raises(ModelError, match="another seed"):
        train(dataclasses.replace(TINY, seed=4), data, tokenizer, tmp_path)


def test_the_probe_reads_the_direction_word(tmp_path, tokenizer, data):
    networks = train(TINY, data, tokenizer, tmp_path, stop_at=1)
    found = swapped_direction_loss(networks, data)
    assert set(found) == {"probe", "probe_rise"}
    assert found["probe"] > 0


def test_the_recipe_is_plain_data_and_its_rates_fall():
    assert json.loads(json.dumps(RECIPE.as_dict()))["seed"] == RECIPE.seed
    assert RECIPE.rate_at(0) < RECIPE.rate_at(500) == 1.0
    assert RECIPE.rate_at(RECIPE.steps - 1) <= 0.05
    assert RECIPE.stage_at(0) is RECIPE.stages[0] and RECIPE.stage_at(RECIPE.steps) is RECIPE.stages[-1]
