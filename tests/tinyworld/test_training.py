"""The parts that trained the bundled models, on a scale of seconds."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from benchmarks.tinyworld import summarise
from vico_lens.errors import InputError, ModelError
from vico_lens.tinyworld import is_held_out, judge, render
from vico_lens.tinyworld.codec import CHANNELS, fit_patch_code
from vico_lens.tinyworld.pipeline import MODEL_FOLDER
from vico_lens.tinyworld.training.architecture import architecture_of
from vico_lens.tinyworld.training.autoencoder import build_causal_autoencoder, build_frame_autoencoder, train_autoencoder
from vico_lens.tinyworld.training.card import write_card
from vico_lens.tinyworld.training.data import (
    KINDS,
    TrainingData,
    make_training_data,
    make_training_frames,
    sample_training_prompt,
)
from vico_lens.tinyworld.training.loop import load_average, train
from vico_lens.tinyworld.training.optimiser import BatchedMuon, orthogonalise
from vico_lens.tinyworld.training.recipe import Gate, Recipe, Stage, load_recipe, recipe_names
from vico_lens.tinyworld.training.tokenizer import MAX_TOKENS, SPLIT_WORDS, build_tokenizer
from vico_lens.tinyworld.training.unet import build_denoiser, frame_positions
from vico_lens.tinyworld.training.validation import Validation, make_validation
from vico_lens.tinyworld.vocabulary import WORDS

MIX = {"one": 0.6, "two": 0.4}
TINY = Recipe(
    model="unet",
    seed=3,
    network={"widths": [16, 32]},
    clips={"one": 60, "two": 20},
    stages=(Stage("frames", 3, 4, 1, 0.0, MIX), Stage("clips", 3, 2, 4, 0.5, MIX)),
    rates=((0, 0.0), (2, 1.0), (4, 1.0), (6, 0.1)),
)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return make_training_data(TINY.clips, seed=TINY.seed)


@pytest.fixture(scope="module")
def validation(data) -> Validation:
    return make_validation(data.code, seed=TINY.seed, shift=TINY.shift, clips=4)


def test_every_word_is_known_and_some_are_split():
    tokenizer = build_tokenizer()
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


def test_data_is_repeatable_and_means_are_means(data):
    again = make_training_data(TINY.clips, seed=TINY.seed)
    assert torch.equal(again.latents, data.latents) and again.prompts == data.prompts
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


def test_a_resumed_training_ends_where_an_unbroken_one_does(tmp_path, data, validation):
    whole = train(TINY, data, tmp_path / "whole", validation=validation)
    train(TINY, data, tmp_path / "broken", validation=validation, stop_at=4)
    resumed = train(TINY, data, tmp_path / "broken", validation=validation)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    _, loaded = load_average(TINY, tmp_path / "broken")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), loaded.parameters(), strict=True))


def test_a_training_told_to_stop_saves_first(tmp_path, data, validation):
    train(TINY, data, tmp_path, validation=validation, interrupted=lambda: True)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=False)["step"] == 1


def test_only_what_is_still_to_come_may_change(tmp_path, data, validation):
    train(TINY, data, tmp_path, validation=validation, stop_at=4)
    with pytest.raises(ModelError, match="seed = 3"):
        train(dataclasses.replace(TINY, seed=4), data, tmp_path, validation=validation)
    first, second = TINY.stages
    with pytest.raises(ModelError, match="update 0"):
        changed = (dataclasses.replace(first, batch=5), second)
        train(dataclasses.replace(TINY, stages=changed), data, tmp_path, validation=validation)
    with pytest.raises(ModelError, match="update 3"):
        later = (dataclasses.replace(first, steps=4), second)
        train(dataclasses.replace(TINY, stages=later), data, tmp_path, validation=validation)
    rest = dataclasses.replace(second, steps=1), dataclasses.replace(second, name="more pairs", steps=1, mix={"two": 1.0})
    train(dataclasses.replace(TINY, stages=(first, *rest)), data, tmp_path, validation=validation)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=False)["step"] == 5


def test_a_model_that_ignores_the_direction_word_is_stopped(tmp_path, data, validation, monkeypatch):
    monkeypatch.setattr("vico_lens.tinyworld.training.loop._LOG_EVERY", 1)
    monkeypatch.setattr("vico_lens.tinyworld.training.loop._VALIDATE_EVERY", 2)
    with pytest.raises(ModelError, match="at update 2 when the direction word is swapped"):
        train(dataclasses.replace(TINY, gate=Gate(2, 10.0)), data, tmp_path, validation=validation)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=False)["step"] == 2
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert "torch" in lines[0]["machine"]
    assert [("probe" in line) for line in lines[1:]] == [False, True]


def test_a_log_forgets_what_is_done_again(tmp_path, data, validation, monkeypatch):
    monkeypatch.setattr("vico_lens.tinyworld.training.loop._LOG_EVERY", 1)
    train(TINY, data, tmp_path, validation=validation, stop_at=2)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "loss": 0.5}) + "\n")
    train(TINY, data, tmp_path, validation=validation, stop_at=3)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], "machine" in line) for line in lines] == [(0, True), (1, False), (2, False), (2, True), (3, False)]
    assert lines[-1]["loss"] != 0.5


def test_the_probe_reads_the_direction_word(validation):
    """A denoiser that knows every clip by its caption loses nothing; with the words swapped it gives the wrong clips."""
    architecture = architecture_of(TINY)
    clips, prompts = validation.moving
    spoken: list[str] = []

    def captions(texts):
        spoken[:] = texts
        return torch.arange(len(texts))

    def velocity(networks, noisy, level, tokens):
        right = torch.tensor([spoken[i] == str(prompts[i]) for i in tokens.tolist()])
        return validation.noise[tokens] - clips[tokens] * right.view(-1, 1, 1, 1, 1)

    architecture.velocity = velocity
    found = validation.measure(architecture, None, captions)
    assert found["probe"] == 0
    assert found["probe_rise"] == pytest.approx(float(clips.square().mean()), abs=1e-3)


def test_validation_is_repeatable_and_of_unseen_layouts(data, validation):
    again = make_validation(data.code, seed=TINY.seed, shift=TINY.shift, clips=4)
    assert torch.equal(again.one[0], validation.one[0]) and torch.equal(again.noise, validation.noise)
    seen = data.latents.float().transpose(1, 2)
    for clips, prompts in (validation.one, validation.two, validation.moving):
        assert all(float((seen - clip).abs().amax((1, 2, 3, 4)).min()) > 0.01 for clip in clips)
        assert all(prompt.objects for prompt in prompts)
    assert all(prompt.objects[0].motion != "still" for prompt in validation.moving[1])
    assert (validation.levels > 0).all() and (validation.levels < 1).all()


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_plain_data_that_builds_a_model(name):
    recipe = load_recipe(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe
    assert recipe.rate_at(0) < 0.1
    assert recipe.stage_at(0) is recipe.stages[0] and recipe.stage_at(recipe.steps) is recipe.stages[-1]
    assert architecture_of(recipe).name == recipe.model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float8"}, "precision"),
        ({"source": "the hub"}, "source"),
        ({"stages": []}, "at least one stage"),
        ({"rates": [[5, 1.0], [0, 0.0]]}, "order"),
        ({"colour": "red"}, "got also colour"),
        ({"stages": [{"name": "a", "steps": 1, "batch": 1, "frames": 8, "full_share": 0.0, "mix": {"one": -1.0}}]}, "shares"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        Recipe.from_dict(TINY.as_dict() | change)


def test_unknown_recipes_and_models_are_refused_by_name():
    with pytest.raises(InputError, match="cosmos, joint, unet"):
        load_recipe("sora")
    with pytest.raises(InputError, match="'sora'"):
        architecture_of(dataclasses.replace(TINY, model="sora"))
    with pytest.raises(InputError, match="no patch"):
        architecture_of(dataclasses.replace(TINY, stages=(Stage("a", 1, 1, 8, 0.0, MIX, patch=2),)))


@pytest.mark.parametrize("build", [build_frame_autoencoder, build_causal_autoencoder])
def test_a_resumed_autoencoder_ends_where_an_unbroken_one_does(tmp_path, data, build):
    frames = make_training_frames(np.random.default_rng(1), clips=2)
    options = {"seed": 1, "steps": 3}
    (tmp_path / "whole").mkdir()
    whole = train_autoencoder(build, data.code, frames, tmp_path / "whole", **options)
    train_autoencoder(build, data.code, frames, tmp_path, interrupted=lambda: True, **options)
    assert torch.load(tmp_path / "autoencoder.pt", weights_only=False)["step"] == 1
    resumed = train_autoencoder(build, data.code, frames, tmp_path, **options)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_causal_autoencoder_begins_as_one_of_frames(data):
    """Whole clips through it come out as every frame does alone through the bundled UNet's autoencoder, but for shared norms."""
    causal, single = build_causal_autoencoder().eval(), AutoencoderKL.from_pretrained(MODEL_FOLDER, subfolder="vae").eval()
    frames = make_training_frames(np.random.default_rng(2), clips=1)[:8].float() / 255
    code = data.code.encode(frames)
    pixels, codes = 2 * frames.transpose(0, 1)[None] - 1, code.transpose(0, 1)[None]
    with torch.no_grad():
        moments, decoded = causal.encode(pixels).latent_dist, causal.decode(codes).sample
        alone = single.decode(code).sample
        assert moments.mean.shape == codes.shape and decoded.shape == pixels.shape
        assert (moments.mean - single.encode(2 * frames - 1).latent_dist.mean.transpose(0, 1)).abs().mean() < 0.05
    assert (decoded[0].transpose(0, 1) - alone).square().mean() < 1e-3
    later = pixels.clone()
    later[:, :, 5:] = -1
    with torch.no_grad():  # nothing flows back in time, except through the norms
        assert (causal.encode(later).latent_dist.mean - moments.mean)[:, :, :5].abs().mean() < 0.05


@pytest.mark.parametrize("name", recipe_names())
def test_a_card_says_what_the_files_say(tmp_path, name):
    recipe = load_recipe(name)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.as_dict()))
    line = {"step": 1234, "seconds": 7200.0, "loss": 0.5, "probe": 0.77, "probe_rise": 0.21}
    fresh = {} if name == "unet" else {"loss_one": 0.161, "high_one": 0.2, "loss_two": 0.312, "high_two": 0.4}
    started = {"step": 0, "seconds": 0.0, "machine": "an abacus, torch 0"}
    (tmp_path / "training_log.jsonl").write_text(f"{json.dumps(started)}\n{json.dumps(line | fresh)}\n")
    verdicts = [judge(render("a red circle moving up", seed=0).frames, "a red circle moving up")] * 20
    measured = {"steps": 25, "guidance": 2.5, "classes": {"one object": summarise(verdicts)}}
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    card = write_card(tmp_path).read_text()
    assert f"# tiny-{name}: " in card and f'vl.load_pipeline("tiny-{name}")' in card
    assert "| one object | 100.0 % [83.9, 100.0] of 20 |" in card  # Wilson's interval: 20 / (20 + 1.96^2)
    assert "1,234 updates, 2.00 hours of one core (an abacus, torch 0)" in " ".join(card.split())
    assert all(f"| {stage.name} | {stage.steps:,} | {stage.batch} |" in card for stage in recipe.stages)
    assert ("| 0.161 | 0.312 | 0.77 | 0.21 |" in card) == (name != "unet")
