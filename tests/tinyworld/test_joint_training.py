"""The joint model: clips composed from single objects, a CogVideoX transformer trained on them, and its stock pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline, DiffusionPipeline

from vico_lens.tinyworld import is_held_out, parse_prompt
from vico_lens.tinyworld.pipeline import defaults_for, with_defaults
from vico_lens.tinyworld.render import Layout, draw
from vico_lens.tinyworld.training.architecture import architecture_of
from vico_lens.tinyworld.training.autoencoder import build_causal_autoencoder
from vico_lens.tinyworld.training.captions import Captions
from vico_lens.tinyworld.training.composed import ComposedClips, make_composed_clips
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
TINY = Recipe(
    model="joint",
    seed=3,
    network={"width": 32, "layers": 2, "heads": 2},
    source="composed",
    clips={"one": LAYOUTS},
    precision="bfloat16",
    stages=(Stage("coarse", 3, 2, 8, 0.0, MIX, patch=2), Stage("fine", 3, 2, 4, 0.5, MIX, patch=1, mean_share=0.5)),
    rates=((0, 0.0), (2, 1.0), (4, 1.0), (6, 0.1)),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums in another order differ in the last bit: the comparisons below are exact."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source() -> ComposedClips:
    return make_composed_clips(LAYOUTS, seed=TINY.seed)


@pytest.fixture(scope="module")
def validation(source) -> Validation:
    return make_validation(source.code, seed=TINY.seed, shift=TINY.shift, clips=4)


def draw_many(source: ComposedClips, mix: dict[str, float], size: int, step: int = 0):
    return source.draw(mix, size, generator=torch.Generator(), step=step)


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


def test_a_resumed_training_ends_where_an_unbroken_one_does(tmp_path, source, validation):
    """Stopped before, at and after the update that makes patches finer."""
    whole = train(TINY, source, tmp_path / "whole", validation=validation)
    for stop in (2, 3, 4):
        train(TINY, source, tmp_path / "broken", validation=validation, stop_at=stop)
    resumed = train(TINY, source, tmp_path / "broken", validation=validation)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.denoiser.config.patch_size == 1


def test_finer_patches_see_the_same_picture():
    """On a latent whose 2 x 2 cells are alike, a part of a patch is embedded as the patch was, up to the known factor."""
    coarse, fine = architecture_of(TINY, 2), architecture_of(TINY, 1)
    tokenizer = coarse.tokenizer()
    old, new = coarse.networks(tokenizer).denoiser, fine.networks(tokenizer).denoiser
    new.load_state_dict(fine.refined(old.state_dict(), 2))
    latent = torch.randn(1, 16, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    embedded = old.patch_embed.proj(latent).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(new.patch_embed.proj(latent), embedded / 2, atol=1e-5, rtol=1e-5)
    for name, weight in old.transformer_blocks.state_dict().items():
        assert torch.equal(weight, new.transformer_blocks.state_dict()[name])


def test_a_subset_of_frames_stands_at_its_true_places():
    architecture = architecture_of(TINY, 1)
    networks = architecture.networks(architecture.tokenizer())
    embedding = networks.denoiser.patch_embed
    table = embedding.pos_embedding
    frames = torch.tensor([1, 4, 6])
    before = architecture._rotary()[0].view(8, 64, -1)
    with architecture.frame_positions(networks, frames):
        seen = embedding(torch.zeros(1, MAX_TOKENS, 64), torch.zeros(1, 3, 16, 8, 8))
        assert torch.equal(architecture._rotary()[0].view(3, 64, -1), before[frames])
    expected = table[:, MAX_TOKENS:].view(8, 64, -1)[frames].flatten(0, 1)
    torch.testing.assert_close(seen[0, MAX_TOKENS:], expected)
    assert embedding.pos_embedding is table and embedding.sample_frames == 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of an untrained model, whose output is not zero."""
    architecture = architecture_of(TINY)
    tokenizer = architecture.tokenizer()
    networks = architecture.networks(tokenizer)
    torch.nn.init.normal_(networks.denoiser.proj_out.weight, std=0.1)
    path = tmp_path_factory.mktemp("joint")
    save(architecture.assemble(networks, build_causal_autoencoder().eval(), tokenizer), path, TINY)
    return path, architecture, networks


def test_plain_diffusers_loads_the_folder_and_computes_what_was_trained(folder):
    path, architecture, networks = folder
    pipe = DiffusionPipeline.from_pretrained(path)
    assert type(pipe) is CogVideoXPipeline
    assert {part.dtype for part in (pipe.transformer, pipe.vae, pipe.text_encoder)} == {torch.float32}
    caught = []
    handle = pipe.transformer.register_forward_hook(
        lambda module, args, kwargs, output: caught.append((kwargs, output)), with_kwargs=True
    )
    pipe.set_progress_bar_config(disable=True)
    prompt, start = "a red circle moving right", torch.randn(1, 8, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    options = {"num_frames": 8, "num_inference_steps": 1, "guidance_scale": 2.5, "max_sequence_length": MAX_TOKENS}
    clip = pipe(prompt, latents=start, output_type="np", **options).frames
    handle.remove()
    assert clip.shape == (1, 8, 32, 32, 3)
    (kwargs, output), *rest = caught
    assert not rest
    level = kwargs["timestep"].float() / 1000
    with torch.no_grad():
        own = architecture.velocity(
            networks, torch.cat([start, start]).transpose(1, 2), level, Captions(architecture.tokenizer())(["", prompt])
        )
    torch.testing.assert_close(output[0].transpose(1, 2), own, atol=0.02, rtol=0.02)  # weights were rounded to float16


def test_call_defaults_fit_the_model(folder):
    pipe = with_defaults(DiffusionPipeline.from_pretrained(folder[0]))
    assert defaults_for(pipe)["max_sequence_length"] == MAX_TOKENS
    pipe.set_progress_bar_config(disable=True)
    assert len(pipe("a red circle moving right", num_inference_steps=1).frames[0]) == 8
