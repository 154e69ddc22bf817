"""The transformers: clips composed from single objects, CogVideoX and Cosmos trained on them, and their stock pipelines."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline, CosmosTextToWorldPipeline, DiffusionPipeline

from vico_lens.errors import InputError
from vico_lens.tinyworld import is_held_out, parse_prompt
from vico_lens.tinyworld.pipeline import defaults_for, with_defaults
from vico_lens.tinyworld.render import Layout, draw
from vico_lens.tinyworld.training.architecture import architecture_of
from vico_lens.tinyworld.training.captions import Captions
from vico_lens.tinyworld.training.composed import ComposedClips, make_composed_clips
from vico_lens.tinyworld.training.data import make_training_data
from vico_lens.tinyworld.training.export import save
from vico_lens.tinyworld.training.loop import train
from vico_lens.tinyworld.training.precision import products_in
from vico_lens.tinyworld.training.recipe import Recipe, Stage
from vico_lens.tinyworld.training.t5 import MAX_TOKENS, build_t5_tokenizer
from vico_lens.tinyworld.training.tokenizer import SPLIT_WORDS
from vico_lens.tinyworld.training.validation import Validation, make_validation
from vico_lens.tinyworld.vocabulary import WORDS

LAYOUTS = 12
MIX = {"one": 0.5, "two": 0.3, "three": 0.1, "relation": 0.1}
JOINT = Recipe(
    model="joint",
    seed=3,
    network={"width": 32, "layers": 2, "heads": 2},
    source="composed",
    clips={"one": LAYOUTS},
    precision="bfloat16",
    stages=(Stage("coarse", 3, 2, 8, 0.0, MIX, patch=2), Stage("fine", 3, 2, 4, 0.5, MIX, patch=1, mean_share=0.5)),
    rates=((0, 0.0), (2, 1.0), (4, 1.0), (6, 0.1)),
)
COSMOS = dataclasses.replace(JOINT, model="cosmos", network={"width": 32, "layers": 2, "heads": 2, "ratio": 2, "rank": 8})
both = pytest.mark.parametrize("recipe", [JOINT, COSMOS], ids=lambda recipe: recipe.model)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums in another order differ in the last bit: the comparisons below are exact."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source() -> ComposedClips:
    return make_composed_clips(LAYOUTS, seed=JOINT.seed)


@pytest.fixture(scope="module")
def validation(source) -> Validation:
    return make_validation(source.code, seed=JOINT.seed, shift=JOINT.shift, clips=4)


def draw_many(source: ComposedClips, mix: dict[str, float], size: int, **options):
    return source.draw(mix, size, generator=torch.Generator(), **{"step": 0} | options)


def test_a_sum_of_clips_is_the_clip_of_all_objects(source):
    """The independent way: draw both objects into one picture and encode that."""
    prompt = parse_prompt("a red circle moving left and a blue square moving right")
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows = [source._members(item, 2) for item in prompt.objects]
        pairs = np.stack([rng.choice(members, 200) for members in rows])
        pair = pairs[:, source._fits(pairs, None)][:, 0]
        frames, _ = draw(prompt.objects, Layout(source.centres[pair], source.radii[pair]))
        rendered = source.code.encode(torch.from_numpy(frames).permute(0, 3, 1, 2))
        torch.testing.assert_close(source.latents[pair].float().sum(0), rendered, atol=0.02, rtol=0.01)


def test_composed_clips_follow_the_rules_of_training(source):
    drawn = draw_many(source, MIX, 60)
    prompts = [parse_prompt(caption) for caption in drawn.captions]
    assert {len(prompt.objects) for prompt in prompts} == {1, 2, 3}
    assert any(prompt.relation for prompt in prompts)
    assert not any(is_held_out(*prompt.objects) for prompt in prompts if len(prompt.objects) == 2)
    assert drawn.latents.shape == (60, 8, 16, 8, 8)
    again = draw_many(source, MIX, 60)
    assert again.captions == drawn.captions and torch.equal(again.latents, drawn.latents)
    assert draw_many(source, MIX, 60, step=1).captions != drawn.captions


def test_objects_of_a_composed_clip_keep_apart_and_related(source):
    for text, axis in (("a red circle left of a blue square", 0), ("a green cross above a white triangle", 1)):
        prompt = parse_prompt(text)
        rng = np.random.default_rng(1)
        tried = np.stack([rng.choice(source._members(item, 2), 500) for item in prompt.objects])
        first, second = tried[:, source._fits(tried, prompt.relation)]
        assert len(first) > 5
        offset = source.centres[second, 0] - source.centres[first, 0]
        assert (offset[:, axis] >= np.abs(offset[:, 1 - axis])).all()
        gap = np.abs(source.centres[second] - source.centres[first]).max(-1).min(-1)
        assert (gap > source.radii[first] + source.radii[second]).all()


def test_sizes_and_means_of_composed_clips(source):
    small = source._members(parse_prompt("a small red circle moving up").objects[0], 1)
    free = source._members(parse_prompt("a red circle moving up").objects[0], 1)
    assert len(small) == LAYOUTS and len(free) == 2 * LAYOUTS and set(small) < set(free)
    assert (source.radii[small] < 3.71).all() and (source.radii[free] > 4.8).sum() == LAYOUTS
    prompt = parse_prompt("a small red circle moving up")
    torch.testing.assert_close(source.mean_clip(prompt, np.random.default_rng(0)), source.latents[small].float().mean(0))
    pair = parse_prompt("a small red circle moving left and a small blue square moving right")
    left, right = (source._members(item, 2) for item in pair.objects)
    fitting = [(a, b) for a in left for b in right if source._fits(np.array([a, b]), None)]
    exact = sum((source.latents[a].float() + source.latents[b].float()) / len(fitting) for a, b in fitting)
    torch.testing.assert_close(source.mean_clip(pair, np.random.default_rng(0)), exact, atol=1e-3, rtol=1e-3)


def test_t5_knows_every_word_in_its_pieces():
    tokenizer = build_t5_tokenizer()
    for word in sorted(WORDS):
        pieces = tokenizer.tokenize(word)
        assert "".join(pieces) == f"\u2581{word}"
        assert len(pieces) == len(SPLIT_WORDS.get(word, (word,)))
    longest = (
        "a small yellow triangle moving right and a small purple triangle moving left and a small white triangle staying still"
    )
    assert len(tokenizer(longest).input_ids) <= MAX_TOKENS
    assert Captions(tokenizer)([longest, ""]).shape == (2, MAX_TOKENS)


def test_products_in_bfloat16_are_close_and_leave_nothing_behind():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 10, 16)
    fused = torch.nn.functional.scaled_dot_product_attention
    exact = fused(query, key, value)
    with products_in("bfloat16"):
        assert torch.nn.functional.scaled_dot_product_attention is not fused
        rough = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.03, rtol=0.03)
    with products_in("float32"):
        assert torch.nn.functional.scaled_dot_product_attention is fused
    assert torch.nn.functional.scaled_dot_product_attention is fused


@both
def test_a_resumed_training_ends_where_an_unbroken_one_does(recipe, tmp_path, source, validation):
    """Stopped before, at and after the update that makes patches finer."""
    whole = train(recipe, source, tmp_path / "whole", validation=validation)
    for stop in (2, 3, 4):
        train(recipe, source, tmp_path / "broken", validation=validation, stop_at=stop)
    resumed = train(recipe, source, tmp_path / "broken", validation=validation)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.denoiser.config.patch_size in (1, (1, 1, 1))


@both
def test_finer_patches_see_the_same_picture(recipe):
    """On a latent whose 2 x 2 cells are alike, a part of a patch is embedded as the patch was, up to the known factor."""
    coarse, fine = architecture_of(recipe, 2), architecture_of(recipe, 1)
    tokenizer = coarse.tokenizer()
    old, new = coarse.networks(tokenizer).denoiser, fine.networks(tokenizer).denoiser
    torch.nn.init.normal_(old.proj_out.weight)
    new.load_state_dict(fine.refined(old.state_dict(), 2))
    latent = torch.randn(1, 16, 1, 4, 4).repeat_interleave(2, 3).repeat_interleave(2, 4)
    embedded = _embedded(old, latent).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(_embedded(new, latent), embedded / 2, atol=1e-5, rtol=1e-5)
    parts = old.proj_out.weight.view(16, 4, -1).mean(1) if recipe is JOINT else old.proj_out.weight.view(4, 16, -1).mean(0)
    torch.testing.assert_close(new.proj_out.weight, parts)
    for name, weight in old.transformer_blocks.state_dict().items():
        assert torch.equal(weight, new.transformer_blocks.state_dict()[name])


def _embedded(denoiser, latent):
    """Tokens before positions, ``[clip, channel, y, x]``, of a latent ``[clip, channel, frame, y, x]`` of one frame."""
    if denoiser.config.get("max_text_seq_length"):
        return denoiser.patch_embed.proj(latent[:, :, 0])
    return denoiser.patch_embed(latent)[:, 0].movedim(-1, 1)


@both
def test_all_frames_are_a_subset_of_themselves_and_nothing_is_left_behind(recipe):
    architecture = architecture_of(recipe, 1)
    networks = architecture.networks(architecture.tokenizer())
    torch.nn.init.normal_(networks.denoiser.proj_out.weight)
    names = [name for name, _ in networks.denoiser.named_parameters()]
    tokens = Captions(architecture.tokenizer())(["a red circle moving right"])
    noisy, level = torch.randn(1, 16, 8, 8, 8), torch.tensor([0.7])
    with torch.no_grad():
        plain = architecture.velocity(networks, noisy, level, tokens)
        with architecture.frame_positions(networks, torch.arange(8)):
            assert torch.equal(architecture.velocity(networks, noisy, level, tokens), plain)
        frames = torch.tensor([1, 4, 6])
        with architecture.frame_positions(networks, frames):
            seen = architecture.velocity(networks, noisy[:, :, frames], level, tokens)
        with architecture.frame_positions(networks, torch.tensor([0, 1, 2])):
            elsewhere = architecture.velocity(networks, noisy[:, :, frames], level, tokens)
        assert seen.shape == (1, 16, 3, 8, 8) and not torch.allclose(seen, elsewhere, atol=1e-3)
        assert torch.equal(architecture.velocity(networks, noisy, level, tokens), plain)
    assert [name for name, _ in networks.denoiser.named_parameters()] == names


def test_a_subset_of_frames_stands_at_its_true_places():
    frames = torch.tensor([1, 4, 6])
    joint = architecture_of(JOINT, 1)
    networks = joint.networks(joint.tokenizer())
    embedding = networks.denoiser.patch_embed
    table, before = embedding.pos_embedding, joint._rotary()[0].view(8, 64, -1)
    with joint.frame_positions(networks, frames):
        seen = embedding(torch.zeros(1, MAX_TOKENS, 64), torch.zeros(1, 3, 16, 8, 8))
        assert torch.equal(joint._rotary()[0].view(3, 64, -1), before[frames])
    torch.testing.assert_close(seen[0, MAX_TOKENS:], table[:, MAX_TOKENS:].view(8, 64, -1)[frames].flatten(0, 1))
    cosmos = architecture_of(COSMOS, 1)
    networks = cosmos.networks(cosmos.tokenizer())
    whole = torch.zeros(1, 16, 8, 8, 8)
    learned, rotary = networks.denoiser.learnable_pos_embed, networks.denoiser.rope
    positions, angles = learned(whole).view(8, 64, -1), rotary(whole, fps=30)[0].view(8, 64, -1)
    with cosmos.frame_positions(networks, frames):
        torch.testing.assert_close(learned(whole[:, :, :3]).view(3, 64, -1), positions[frames], atol=1e-6, rtol=1e-5)
        assert torch.equal(rotary(whole[:, :, :3], fps=30)[0].view(3, 64, -1), angles[frames])


@pytest.fixture(scope="module", params=[JOINT, COSMOS], ids=lambda recipe: recipe.model)
def made(request, tmp_path_factory):
    """The folder of an untrained model whose output is not zero, its architecture and its networks."""
    architecture = architecture_of(request.param)
    tokenizer = architecture.tokenizer()
    networks = architecture.networks(tokenizer)
    torch.nn.init.normal_(networks.denoiser.proj_out.weight, std=0.1)
    path = tmp_path_factory.mktemp(architecture.name)
    autoencoder = type(architecture).build_autoencoder().eval()
    save(architecture.assemble(networks, autoencoder, tokenizer), path, request.param)
    return path, architecture, networks


def test_plain_diffusers_loads_the_folder_and_computes_what_was_trained(made):
    """The clip that the stock pipeline predicts at its first step is the one that the trained velocity leads to."""
    path, architecture, networks = made
    pipe = DiffusionPipeline.from_pretrained(path)
    assert type(pipe) is (CogVideoXPipeline if architecture.name == "joint" else CosmosTextToWorldPipeline)
    assert {part.dtype for part in (pipe.transformer, pipe.vae, pipe.text_encoder)} == {torch.float32}
    calls = []
    keep = pipe.transformer.register_forward_hook(lambda *call: calls.append(call[2:]), with_kwargs=True)
    pipe.set_progress_bar_config(disable=True)
    prompt = "a red circle moving right"
    options = defaults_for(pipe) | {"num_inference_steps": 2, "output_type": "np"}
    clip = pipe(prompt, generator=torch.Generator().manual_seed(1), **options).frames
    keep.remove()
    assert clip.shape == (1, 8, 32, 32, 3)
    kwargs, (output, *_) = calls[0]
    tokens = Captions(architecture.tokenizer())(["", prompt] if architecture.name == "joint" else [prompt])
    hidden = kwargs["hidden_states"]
    if architecture.name == "joint":  # the network gives the velocity itself
        noisy, level, stock = hidden.transpose(1, 2), kwargs["timestep"] / 1000, output.transpose(1, 2)
    else:  # the scheduler scales the input by its deviation and makes a clip of the output
        sigma = (4 * kwargs["timestep"]).exp().view(-1, 1, 1, 1, 1)
        level = (sigma / (1 + sigma)).flatten()
        at, noisy = level.view(-1, 1, 1, 1, 1), hidden * (sigma**2 + 1).sqrt() / (1 + sigma)
        sample = hidden * (sigma**2 + 1).sqrt()
        stock = (noisy - pipe.scheduler.precondition_outputs(sample, output, sigma)) / at
    with torch.no_grad():
        own = architecture.velocity(networks, noisy, level, tokens)
    torch.testing.assert_close(stock, own, atol=0.02, rtol=0.02)  # weights were rounded to float16


def test_call_defaults_fit_the_model(made):
    pipe = with_defaults(DiffusionPipeline.from_pretrained(made[0]))
    assert defaults_for(pipe)["max_sequence_length"] == MAX_TOKENS
    assert inspect.signature(pipe.__call__).parameters["num_frames"].default == 8
    pipe.set_progress_bar_config(disable=True)
    short = pipe("a red circle moving right", num_inference_steps=1)
    assert len(short.frames[0]) == 8 and short.frames[0][0].size == (32, 32)


@pytest.mark.parametrize(("kind", "level"), [("one", 0.97), ("two", 0.97), ("relation", 0.99), ("two", 1.0)])
def test_the_posterior_mean_is_that_of_the_noise_density(source, kind, level):
    """Against the definition in float64: every possible clip, weighed by the density of the noise that it would need."""
    drawn = draw_many(source, {kind: 1.0}, 1, posterior=True)
    (posterior,) = drawn.posteriors
    places = posterior.args[0]
    frames = torch.tensor([0, 3, 7])
    noise = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy = (1 - level) * drawn.latents[0, frames] + level * noise
    possible = [
        sum(source.latents[rows[i]].double() for rows, i in zip(places.rows, place, strict=True))[frames]
        for place in np.argwhere(places.fit)
    ]
    log = torch.stack([-((noisy.double() - (1 - level) * clip) ** 2).sum() / (2 * level**2) for clip in possible])
    exact = torch.einsum("i,i...->...", log.softmax(0), torch.stack(possible))
    torch.testing.assert_close(posterior(noisy, level, frames).double(), exact, atol=2e-3, rtol=1e-3)
    assert any(torch.equal(clip.float(), drawn.latents[0, frames]) for clip in possible)


def test_posteriors_change_the_target_at_high_noise_alone(source, validation, tmp_path):
    """Where nothing is in doubt the training is the same with and without; the clips it draws are its own, all the same."""
    drawn = draw_many(source, MIX, 40, posterior=True)
    kinds = [len(parse_prompt(caption).objects) for caption in drawn.captions]
    assert all((posterior is None) == (kind == 3) for posterior, kind in zip(drawn.posteriors, kinds, strict=True))
    sure = 0
    for clip, posterior in zip(drawn.latents, drawn.posteriors, strict=True):
        if posterior is not None:
            noisy = 0.5 * clip + 0.5 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(sure))
            torch.testing.assert_close(posterior(noisy, 0.5, torch.arange(8)), clip, atol=1e-4, rtol=1e-4)
            sure += 1
    assert sure > 20
    first, second = JOINT.stages
    recipe = dataclasses.replace(JOINT, stages=(dataclasses.replace(first, posterior=True), second))
    networks = train(recipe, source, tmp_path, validation=validation, stop_at=2)
    assert all(parameter.isfinite().all() for parameter in networks.parameters())


def test_only_composed_clips_know_their_posterior():
    data = make_training_data({"one": 4}, seed=1)
    with pytest.raises(InputError, match="only composed clips"):
        data.draw({"one": 1.0}, 2, generator=torch.Generator(), step=0, posterior=True)
