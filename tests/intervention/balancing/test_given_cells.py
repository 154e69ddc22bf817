"""Image-to-video: latents of the image that the call was given stay bit for bit, whatever is balanced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch

from vico_lens.errors import BalanceError
from vico_lens.intervention.balancing import FixedRms, RandomDirection, Schedule, balance
from vico_lens.intervention.balancing.given_cells import given_cells
from vico_lens.testing.pipelines import TinyPipeline, tiny_pipeline
from vico_lens.testing.pipelines.parts import clip_of_images
from vico_lens.vocabulary.concepts import Concept

NAMES = ["red circle", "blue square"]


def _remade(name: str, pipeline: str, rows: int, columns: int, without: tuple[str, ...] = (), **call: Any) -> TinyPipeline:
    """An image-to-video pipeline of the components of a text-to-video one."""
    tiny = tiny_pipeline(name)
    parts = {part: module for part, module in tiny.pipe.components.items() if part not in without}
    if "expand_timesteps" in tiny.pipe.config:
        parts["expand_timesteps"] = True
    pipe = getattr(diffusers, pipeline)(**parts)
    pipe.set_progress_bar_config(disable=True)
    kwargs = {word: value for word, value in tiny.kwargs.items() if word not in without}
    image = {"image": clip_of_images(1, rows, columns)[0]}
    return TinyPipeline(pipe, kwargs | image | call, tiny.shape, context=tiny.context)


def _sana() -> TinyPipeline:
    tiny = _remade("sana-t2v", "SanaImageToVideoPipeline", 32, 64)
    tiny.pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return tiny


def _kandinsky(pipeline: str) -> TinyPipeline:
    tiny = tiny_pipeline("kandinsky5-t2v")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = dict(tiny.pipe.transformer.config) | {"visual_cond": True}
        model = diffusers.Kandinsky5Transformer3DModel(**{k: v for k, v in config.items() if not k.startswith("_")})
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    pipe = getattr(diffusers, pipeline)(**tiny.pipe.components | {"transformer": model.eval().requires_grad_(False)})
    pipe.set_progress_bar_config(disable=True)
    pipe.prompt_template = tiny.pipe.prompt_template
    pipe.prompt_template_encode_start_idx = tiny.pipe.prompt_template_encode_start_idx
    # Its decoder divides by the spread of very few frames, which is zero here.
    image = {"image": clip_of_images(1, 32, 48)[0], "output_type": "latent"} if "I2V" in pipeline else {}
    return TinyPipeline(pipe, tiny.kwargs | image, tiny.shape)


GIVEN: dict[str, Callable[[], TinyPipeline]] = {
    "ltx-i2v": lambda: tiny_pipeline("ltx-i2v"),
    "ltx2-i2v": lambda: _remade("ltx2-t2v", "LTX2ImageToVideoPipeline", 32, 64, image_crf=0),
    "sana-i2v": _sana,
    "skyreels-v2-df-i2v": lambda: _remade(
        "skyreels-v2-df", "SkyReelsV2DiffusionForcingImageToVideoPipeline", 32, 48, ar_step=0, causal_block_size=None
    ),
    "wan22-5b-i2v": lambda: _remade("wan22-5b-t2v", "WanImageToVideoPipeline", 64, 96),
    "kandinsky5-i2v": lambda: _kandinsky("Kandinsky5I2VPipeline"),
}


def denoiser_inputs(tiny: TinyPipeline) -> tuple[list[torch.Tensor], list[torch.Tensor], Callable[[], None]]:
    """What the denoiser of a call is given: its latents and its timesteps, of the stock calls only."""
    from vico_lens.intervention.balancing.session import is_extra

    inputs: list[torch.Tensor] = []
    times: list[torch.Tensor] = []

    def keep(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if not is_extra():
            inputs.append((kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]).detach().clone())
            times.append(kwargs["timestep"].detach().clone())

    handle = next(iter(tiny.denoisers.values())).register_forward_pre_hook(keep, with_kwargs=True)
    return inputs, times, handle.remove


@pytest.mark.filterwarnings("ignore:std..:UserWarning")  # Kandinsky normalises a clip of one latent frame by its spread
@pytest.mark.parametrize("rule", [FixedRms(0.05), RandomDirection(FixedRms(0.05))], ids=["gradient", "random"])
@pytest.mark.parametrize("config", GIVEN)
def test_the_given_image_stays_and_the_rest_moves(config: str, rule: Any) -> None:
    plain, tiny = GIVEN[config](), GIVEN[config]()
    before, _, stop = denoiser_inputs(plain)
    plain.call()
    stop()
    settings = {"objective": "equal", "flow": "cross_attention", "schedule": Schedule(stop=1.0, iterations=1), "step": rule}
    with balance(tiny.pipe, NAMES, **settings) as session:
        after, _, stop = denoiser_inputs(tiny)
        tiny.call()
        stop()
    assert session.log.sizes["update"] >= 3
    torch.testing.assert_close(torch.tensor(session.log.latent_change.values), torch.full((3,), 0.05).double(), rtol=1e-3, atol=0)
    for old, new in zip(before, after, strict=True):
        old, new = _by_frame(old, config), _by_frame(new, config)
        assert torch.equal(old[:, 0], new[:, 0]), "the given frame moved"
        assert not torch.equal(old[:, 1:], new[:, 1:])


def _by_frame(inputs: torch.Tensor, config: str) -> torch.Tensor:
    """Model input as ``[row, frame, ...]``; packed frames have 8 x 16 tokens."""
    if inputs.dim() == 3:
        return inputs.unflatten(1, (-1, 8 * 16))
    return inputs if config.startswith("kandinsky") else inputs.movedim(2, 1)


def test_condition_channels_of_kandinsky_stay() -> None:
    tiny = _kandinsky("Kandinsky5T2VPipeline")
    with balance(tiny.pipe, NAMES, objective="equal", flow="cross_attention", schedule=Schedule(stop=1.0)):
        inputs, _, stop = denoiser_inputs(tiny)
        tiny.call()
        stop()
    assert all(not bool(step[..., 4:].any()) for step in inputs) and bool(inputs[0][..., :4].any())


@pytest.mark.parametrize("name", ["cogvideox-i2v", "consisid-i2v", "wan21-i2v"])
def test_an_image_in_channels_of_its_own_stays(name: str) -> None:
    plain, tiny = tiny_pipeline(name), tiny_pipeline(name)
    before, _, stop = denoiser_inputs(plain)
    plain.call()
    stop()
    encoded = tiny.kwargs.get("prompt") is not None
    concepts: Any = NAMES if encoded else [Concept("red circle", (2, 3), (0, 0)), Concept("blue square", (7, 8), (0, 0))]
    with balance(tiny.pipe, concepts, objective="equal", flow="cross_attention", schedule=Schedule(steps=[0])):
        after, _, stop = denoiser_inputs(tiny)
        tiny.call()
        stop()
    axis = 2 if name != "wan21-i2v" else 1
    latents = 16 if name == "wan21-i2v" else before[0].shape[axis] // 2
    image = (slice(None),) * axis + (slice(latents, None),)
    moved = (slice(None),) * axis + (slice(0, latents),)
    assert torch.equal(before[0][image], after[0][image]) and not torch.equal(before[0][moved], after[0][moved])


def test_frames_that_the_scheduler_leaves_alone_for_unknown_reasons_are_refused() -> None:
    """A pipeline that puts back what it keeps of the first frame, and tells nobody."""
    tiny = tiny_pipeline("wan21-t2v")
    step = tiny.pipe.scheduler.step

    def forgetful(prediction: torch.Tensor, t: Any, sample: torch.Tensor, **rest: Any) -> Any:
        (out,) = step(prediction, t, sample, **rest)
        return (torch.cat([sample[:, :, :1], out[:, :, 1:]], 2),)

    tiny.pipe.scheduler.step = forgetful
    with pytest.raises(BalanceError, match=r"frames \[0\] are as the update left them"), balance(tiny.pipe, NAMES):
        tiny.run()


def test_timesteps_that_fit_nothing_are_refused() -> None:
    with pytest.raises(BalanceError, match="got 5 a video that differ"):
        given_cells(torch.zeros(1, 4, 3, 2, 2), "BCFHW", torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]]), {})


def test_given_cells_of_every_kind() -> None:
    latents = torch.zeros(2, 4, 3, 4, 4)
    tokens = torch.cat([torch.zeros(2, 4), torch.full((2, 8), 700.0)], 1)  # 2 x 2 tokens a frame
    by_token = given_cells(latents, "BCFHW", tokens, {})
    assert by_token is not None and by_token.expand_as(latents)[:, :, 0].all() and not by_token.expand_as(latents)[:, :, 1:].any()
    table = torch.tensor([[True, True, True], [False, True, True]])
    assert given_cells(latents, "BCFHW", tokens, {"step_update_mask": table, "i": 0}) is None
    later = given_cells(latents, "BCFHW", tokens, {"step_update_mask": table, "i": 1})
    assert later is not None and later.flatten().tolist() == [True, False, False]
    replaced = given_cells(latents, "BCFHW", 5.0, {"image_condition_type": "token_replace"})
    assert replaced is not None and replaced.flatten().tolist() == [True, False, False]
    packed = given_cells(torch.zeros(1, 3, 8), "packed", torch.tensor([[0.0, 3.0, 3.0]]), {})
    assert packed is not None and packed.shape == (1, 3, 1)
