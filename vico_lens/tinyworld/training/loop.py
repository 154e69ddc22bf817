"""The training loop: fixed steps, one seed, a checkpoint every few minutes, and the same result however often it is resumed."""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vico_lens.errors import ModelError
from vico_lens.tinyworld.training.data import KINDS, TrainingData
from vico_lens.tinyworld.training.model import build_denoiser, build_text_encoder, frame_positions
from vico_lens.tinyworld.training.optimiser import BatchedMuon
from vico_lens.tinyworld.training.probe import swapped_direction_loss
from vico_lens.tinyworld.training.recipe import Recipe, Stage
from vico_lens.tinyworld.vocabulary import FRAMES

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

__all__ = ["Networks", "predict", "train"]

_LEAST_MUON_SIDE = 32  # smaller matrices are embeddings and norms in disguise
_PROBE_EVERY, _LOG_EVERY = 500, 50
_CLIP_NORM = 1.0


@dataclass(slots=True)
class Networks:
    """The two networks that are trained together."""

    denoiser: nn.Module
    text_encoder: nn.Module

    def parameters(self) -> list[nn.Parameter]:
        """Return all parameters, in a fixed order."""
        return [*self.denoiser.parameters(), *self.text_encoder.parameters()]

    def state_dict(self) -> dict[str, Any]:
        """Return both state dicts."""
        return {"denoiser": self.denoiser.state_dict(), "text_encoder": self.text_encoder.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load both state dicts."""
        self.denoiser.load_state_dict(state["denoiser"])
        self.text_encoder.load_state_dict(state["text_encoder"])


def predict(networks: Networks, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
    """Return the velocity (noise minus clip) for latents ``[clip, channel, frame, y, x]`` at noise levels ``[clip]`` in 0..1."""
    text = networks.text_encoder(tokens).last_hidden_state.repeat_interleave(noisy.shape[2], dim=0)
    velocity: Tensor = networks.denoiser(noisy, level * 1000, text, return_dict=False)[0]
    return velocity


@dataclass(slots=True)
class _Training:
    recipe: Recipe
    data: TrainingData
    networks: Networks
    average: Networks
    optimisers: list[torch.optim.Optimizer]
    generator: torch.Generator
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    def update(self) -> float:
        stage = self.recipe.stage_at(self.step)
        self._set_rates()
        clips, level, tokens, frames = self._batch(stage)
        noise = torch.randn(clips.shape, generator=self.generator)
        at = level.view(-1, 1, 1, 1, 1)
        with frame_positions(self.networks.denoiser, frames):
            velocity = predict(self.networks, (1 - at) * clips + at * noise, level, tokens)
            loss = (velocity - (noise - clips)).square().mean()
            for optimiser in self.optimisers:
                optimiser.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), _CLIP_NORM)
        for optimiser in self.optimisers:
            optimiser.step()
        self._follow()
        self.step += 1
        return loss.item()

    def _set_rates(self) -> None:
        factor = self.recipe.rate_at(self.step)
        for optimiser, rate in zip(self.optimisers, (self.recipe.muon_rate, self.recipe.adam_rate), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor

    def _batch(self, stage: Stage) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw clips ``[clip, channel, frame, y, x]``, noise levels ``[clip]``, tokens ``[clip, token]`` and frame numbers."""
        generator, recipe, data = self.generator, self.recipe, self.data
        whole = float(torch.rand(1, generator=generator)) < stage.full_share
        frames = (
            torch.arange(FRAMES)
            if whole or stage.frames == FRAMES
            else torch.randperm(FRAMES, generator=generator)[: stage.frames].sort().values
        )
        size = max(2, stage.batch * stage.frames // FRAMES + 1) if whole else stage.batch
        shares = torch.tensor([stage.mix.get(kind, 0.0) for kind in KINDS])
        kinds = torch.multinomial(shares, size, replacement=True, generator=generator)
        pick = torch.rand(size, generator=generator)
        index = torch.stack(
            [self._members(int(kind))[int(u * len(self._members(int(kind))))] for kind, u in zip(kinds, pick, strict=True)]
        )
        # Stratified noise levels: one from each of `size` equal slices, in random order.
        uniform = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
        level = recipe.shift * uniform / (1 + (recipe.shift - 1) * uniform)
        drop = torch.rand(size, generator=generator) < recipe.caption_dropout
        to_mean = (torch.rand(size, generator=generator) < recipe.mean_share) & (data.caption[index] >= 0) & ~drop
        clips = data.latents[index].float()
        clips[to_mean] = data.means[data.caption[index[to_mean]]]
        level[to_mean] = 1.0
        tokens = data.tokens[index].clone()
        tokens[drop] = data.null
        return clips[:, frames].permute(0, 2, 1, 3, 4).contiguous(), level, tokens, frames

    def _members(self, kind: int) -> Tensor:
        starts = torch.searchsorted(self.data.kind, torch.tensor([kind, kind + 1]))
        return torch.arange(int(starts[0]), int(starts[1]))

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_([*self.average.parameters()], [*self.networks.parameters()], 1 - keep)

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "networks": self.networks.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "generator": self.generator.get_state(),
            "recipe": self.recipe.as_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.step, self.seconds = state["step"], state["seconds"]


def train(
    recipe: Recipe,
    data: TrainingData,
    tokenizer: CLIPTokenizer,
    folder: Path,
    *,
    stop_at: int | None = None,
    save_every: float = 180.0,
) -> Networks:
    """Train, or go on from ``folder/checkpoint.pt``, and return the averaged networks.

    Parameters
    ----------
    recipe : Recipe
        What to do. A checkpoint made with another seed or other widths is refused.
    data : TrainingData
        From `data.make_training_data` with the same seed.
    tokenizer : CLIPTokenizer
        Gives the text encoder its vocabulary.
    folder : Path
        Takes ``checkpoint.pt`` (written whole, then renamed) and ``log.jsonl``.
    stop_at : int, optional
        Stop after this many updates in all.
    save_every : float
        Seconds between checkpoints.

    Raises
    ------
    ModelError
        If the checkpoint belongs to another recipe, or the loss is not finite.
    """
    torch.manual_seed(recipe.seed)
    networks = Networks(build_denoiser(recipe.widths), build_text_encoder(tokenizer))
    average = copy.deepcopy(networks)
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    training = _Training(
        recipe, data, networks, average, _optimisers(recipe, networks), torch.Generator().manual_seed(recipe.seed)
    )
    checkpoint = folder / "checkpoint.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        if any(state["recipe"][key] != recipe.as_dict()[key] for key in ("seed", "widths", "clips")):
            raise ModelError(f"{checkpoint} was made with another seed, width or data: move it away, or use its recipe.")
        training.load(state)
    last_save = time.monotonic()
    end = min(recipe.steps, stop_at or recipe.steps)
    with tqdm(total=end, initial=training.step, desc="train", unit="step", mininterval=10) as bar:
        while training.step < end:
            start = time.monotonic()
            loss = training.update()
            training.seconds += time.monotonic() - start
            training.losses.append(loss)
            bar.update()
            if loss != loss or loss == float("inf"):
                raise ModelError(
                    f"the loss is {loss} at step {training.step}: the last checkpoint is kept; lower the learning rates."
                )
            if training.step % _LOG_EVERY == 0:
                _log(folder, training)
            if time.monotonic() - last_save > save_every or training.step == end:
                _save(checkpoint, training.state())
                last_save = time.monotonic()
    return training.average


def _optimisers(recipe: Recipe, networks: Networks) -> list[torch.optim.Optimizer]:
    matrices = [
        p
        for name, p in networks.denoiser.named_parameters()
        if p.ndim == 2 and "block" in name and min(p.shape) >= _LEAST_MUON_SIDE
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for p in networks.parameters() if id(p) not in chosen]
    return [
        BatchedMuon(matrices, lr=recipe.muon_rate),
        torch.optim.AdamW(rest, lr=recipe.adam_rate, betas=(0.9, 0.97), weight_decay=1e-3),
    ]


def _log(folder: Path, training: _Training) -> None:
    entry: dict[str, Any] = {
        "step": training.step,
        "seconds": round(training.seconds, 1),
        "stage": training.recipe.stage_at(training.step - 1).name,
        "loss": round(sum(training.losses) / len(training.losses), 5),
        "rate": round(training.recipe.rate_at(training.step - 1), 4),
    }
    training.losses.clear()
    if training.step % _PROBE_EVERY == 0:
        entry |= swapped_direction_loss(training.average, training.data)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)
