"""The training loop: fixed steps, one seed, a checkpoint every few minutes, and the same result however often it is resumed."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vico_lens.errors import ModelError
from vico_lens.tinyworld.training.architecture import Architecture, Networks, architecture_of
from vico_lens.tinyworld.training.captions import Captions
from vico_lens.tinyworld.training.composed import make_composed_clips
from vico_lens.tinyworld.training.data import Drawn, make_training_data
from vico_lens.tinyworld.training.machine import machine
from vico_lens.tinyworld.training.optimiser import BatchedMuon
from vico_lens.tinyworld.training.precision import products_in
from vico_lens.tinyworld.training.recipe import Recipe, Stage
from vico_lens.tinyworld.training.validation import Validation
from vico_lens.tinyworld.vocabulary import FRAMES

__all__ = ["ClipSource", "load_average", "make_source", "train"]

_VALIDATE_EVERY, _LOG_EVERY = 500, 50
_CLIP_NORM = 1.0
_SURE = 0.5  # noise level below which a noisy clip tells its clean one for certain


class ClipSource(Protocol):
    """Where clips come from."""

    def draw(self, mix: dict[str, float], size: int, *, generator: torch.Generator, step: int, posterior: bool = False) -> Drawn:
        """Draw `size` clips of kinds in the shares of `mix` for update `step`, with their posteriors if these are wanted."""


def make_source(recipe: Recipe) -> Any:
    """Render what the recipe trains on."""
    if recipe.source == "composed":
        return make_composed_clips(recipe.clips["one"], seed=recipe.seed)
    return make_training_data(recipe.clips, seed=recipe.seed)


@dataclass(slots=True)
class _Training:
    recipe: Recipe
    source: ClipSource
    architecture: Architecture
    captions: Captions
    networks: Networks
    average: Networks
    optimisers: list[torch.optim.Optimizer]
    generator: torch.Generator
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    @classmethod
    def begin(cls, recipe: Recipe, source: ClipSource) -> _Training:
        architecture = architecture_of(recipe, recipe.stages[0].patch)
        tokenizer = architecture.tokenizer()
        networks = architecture.networks(tokenizer)
        generator = torch.Generator().manual_seed(recipe.seed)
        optimisers = _optimisers(architecture, networks)
        return cls(recipe, source, architecture, Captions(tokenizer), networks, _frozen(networks), optimisers, generator)

    def update(self) -> float:
        stage = self.recipe.stage_at(self.step)
        if stage.patch != self.architecture.patch:
            self._refine(stage.patch)
        self._set_rates()
        drawn, clips, level, tokens, frames = self._batch(stage)
        noise = torch.randn(clips.shape, generator=self.generator)
        at = level.view(-1, 1, 1, 1, 1)
        noisy = (1 - at) * clips + at * noise
        wanted = noise - clips
        for clip, posterior in enumerate(drawn.posteriors):
            if posterior is not None and level[clip] > _SURE:
                mean = posterior(noisy[clip].transpose(0, 1), float(level[clip]), frames).transpose(0, 1)
                wanted[clip] = (noisy[clip] - mean) / level[clip]
        with self.architecture.frame_positions(self.networks, frames):
            with products_in(self.recipe.precision):
                velocity = self.architecture.velocity(self.networks, noisy, level, tokens)
            loss = (velocity.float() - wanted).square().mean()
            for optimiser in self.optimisers:
                optimiser.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), _CLIP_NORM)
        for optimiser in self.optimisers:
            optimiser.step()
        self._follow()
        self.step += 1
        return loss.item()

    def _refine(self, patch: int | None) -> None:
        """Go on with finer patches: the blocks stay, the optimisers start afresh."""
        coarse, fine = self.architecture, architecture_of(self.recipe, patch)
        assert coarse.patch is not None
        tokenizer = self.captions.tokenizer
        networks = fine.networks(tokenizer)
        average = _frozen(networks)
        for old, new in ((self.networks, networks), (self.average, average)):
            new.denoiser.load_state_dict(fine.refined(old.denoiser.state_dict(), coarse.patch))
            new.text_encoder.load_state_dict(old.text_encoder.state_dict())
        self.architecture, self.networks, self.average = fine, networks, average
        self.optimisers = _optimisers(fine, networks)

    def _set_rates(self) -> None:
        factor = self.recipe.rate_at(self.step)
        for optimiser, rate in zip(self.optimisers, (self.recipe.muon_rate, self.recipe.adam_rate), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor

    def _batch(self, stage: Stage) -> tuple[Drawn, Tensor, Tensor, Tensor, Tensor]:
        """Draw clips, also as ``[clip, channel, frame, y, x]``, noise levels ``[clip]``, tokens ``[clip, token]``, frame numbers.

        Clips that see the empty caption have no posterior: it would be over all captions.
        """
        generator, recipe = self.generator, self.recipe
        whole = float(torch.rand(1, generator=generator)) < stage.full_share
        frames = (
            torch.arange(FRAMES)
            if whole or stage.frames == FRAMES
            else torch.randperm(FRAMES, generator=generator)[: stage.frames].sort().values
        )
        size = max(2, stage.batch * stage.frames // FRAMES + 1) if whole else stage.batch
        drawn = self.source.draw(stage.mix, size, generator=generator, step=self.step, posterior=stage.posterior)
        # Stratified noise levels: one from each of `size` equal slices, in random order.
        uniform = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
        level = stage.shift * uniform / (1 + (stage.shift - 1) * uniform)
        drop = torch.rand(size, generator=generator) < recipe.caption_dropout
        to_mean = (torch.rand(size, generator=generator) < stage.mean_share) & drawn.has_mean & ~drop
        clips = drawn.latents
        for clip in to_mean.nonzero().flatten().tolist() if not stage.posterior else ():
            clips[clip] = drawn.mean_of(clip)
        drawn = replace(
            drawn,
            posteriors=tuple(None if gone else known for known, gone in zip(drawn.posteriors, drop.tolist(), strict=False)),
        )
        level[to_mean] = 1.0
        tokens = self.captions(["" if gone else caption for caption, gone in zip(drawn.captions, drop.tolist(), strict=True)])
        return drawn, clips[:, frames].permute(0, 2, 1, 3, 4).contiguous(), level, tokens, frames

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_([*self.average.parameters()], [*self.networks.parameters()], 1 - keep)

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "losses": list(self.losses),
            "patch": self.architecture.patch,
            "networks": self.networks.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "generator": self.generator.get_state(),
            "recipe": self.recipe.as_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.recipe.check_continues(Recipe.from_dict(state["recipe"]), state["step"])
        if state["patch"] != self.architecture.patch:
            self.architecture = architecture_of(self.recipe, state["patch"])
            self.networks = self.architecture.networks(self.captions.tokenizer)
            self.average = _frozen(self.networks)
            self.optimisers = _optimisers(self.architecture, self.networks)
        self.networks.load_state_dict(state["networks"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], list(state.get("losses", []))


def train(
    recipe: Recipe,
    source: ClipSource,
    folder: Path,
    *,
    validation: Validation,
    stop_at: int | None = None,
    save_every: float = 180.0,
    interrupted: Callable[[], bool] = lambda: False,
) -> Networks:
    """Train, or go on from ``folder/checkpoint.pt``, and return the averaged networks.

    Parameters
    ----------
    recipe : Recipe
        What to do. It may differ from the checkpoint's in updates that are still to come, and in nothing else.
    source : ClipSource
        From `make_source` with the same recipe.
    folder : Path
        Takes ``checkpoint.pt`` (written whole, then renamed) and ``log.jsonl``.
    validation : Validation
        Measures the averaged networks every 500 updates.
    stop_at : int, optional
        Stop after this many updates in all.
    save_every : float
        Seconds between checkpoints.
    interrupted : callable
        Asked after every update whether to save and stop.

    Raises
    ------
    ModelError
        If the checkpoint belongs to another recipe, the loss is not finite, or the model fails the recipe's gate.
    """
    training = _Training.begin(recipe, source)
    checkpoint = folder / "checkpoint.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        training.load(torch.load(checkpoint, weights_only=False))
        _drop_lines_after(folder / "log.jsonl", training.step)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": training.step, "seconds": round(training.seconds, 1), "machine": machine()}) + "\n")
    last_save = time.monotonic()
    end = min(recipe.steps, stop_at or recipe.steps)
    with tqdm(total=end, initial=training.step, desc="train", unit="step", mininterval=10) as bar:
        while training.step < end:
            start = time.process_time()
            loss = training.update()
            training.seconds += time.process_time() - start
            training.losses.append(loss)
            bar.update()
            if not math.isfinite(loss):
                raise ModelError(
                    f"the loss is {loss} at step {training.step}: the last checkpoint is kept; lower the learning rates."
                )
            entry = _log(folder, training, validation) if training.step % _LOG_EVERY == 0 else {}
            stop = training.step == end or interrupted()
            if time.monotonic() - last_save > save_every or "probe" in entry or stop:
                _save(checkpoint, training.state())
                last_save = time.monotonic()
            if "probe_rise" in entry:
                _check_gate(recipe, training.step, entry["probe_rise"])
            if stop:
                break
    return training.average


def load_average(recipe: Recipe, folder: Path) -> tuple[Architecture, Networks]:
    """Return the averaged networks of ``folder/checkpoint.pt``, finished or not, with their architecture.

    Raises
    ------
    ModelError
        If there is no checkpoint, or it belongs to another recipe.
    """
    checkpoint = folder / "checkpoint.pt"
    if not checkpoint.is_file():
        raise ModelError(f"expected a checkpoint in {folder}, got none: train first.")
    state = torch.load(checkpoint, weights_only=False)
    recipe.check_continues(Recipe.from_dict(state["recipe"]), state["step"])
    architecture = architecture_of(recipe, state["patch"])
    networks = architecture.networks(architecture.tokenizer())
    networks.load_state_dict(state["average"])
    return architecture, networks


def _frozen(networks: Networks) -> Networks:
    average = copy.deepcopy(networks)
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    return average


def _optimisers(architecture: Architecture, networks: Networks) -> list[torch.optim.Optimizer]:
    recipe = architecture.recipe
    matrices = [p for name, p in networks.denoiser.named_parameters() if architecture.takes_muon(name, p)]
    chosen = {id(p) for p in matrices}
    rest = [p for p in networks.parameters() if id(p) not in chosen]
    return [
        BatchedMuon(matrices, lr=recipe.muon_rate, precision=getattr(torch, recipe.precision)),
        torch.optim.AdamW(rest, lr=recipe.adam_rate, betas=(0.9, 0.97), weight_decay=1e-3),
    ]


def _log(folder: Path, training: _Training, validation: Validation) -> dict[str, Any]:
    recipe, step = training.recipe, training.step
    entry: dict[str, Any] = {
        "step": step,
        "seconds": round(training.seconds, 1),
        "stage": recipe.stage_at(step - 1).name,
        "loss": round(sum(training.losses) / len(training.losses), 5),
        "rate": round(recipe.rate_at(step - 1), 4),
    }
    training.losses.clear()
    if step % _VALIDATE_EVERY == 0:
        entry |= validation.measure(training.architecture, training.average, training.captions)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")
    return entry


def _check_gate(recipe: Recipe, step: int, rise: float) -> None:
    if recipe.gate is not None and step == recipe.gate.step and rise < recipe.gate.rise:
        raise ModelError(
            f"the loss rises by only {rise} at update {step} when the direction word is swapped, not by {recipe.gate.rise}: the "
            "model does not learn to move. Change the recipe for the updates to come, or start again."
        )


def _drop_lines_after(log: Path, step: int) -> None:
    """Forget what was logged after the checkpoint, since it is done again."""
    if log.exists():
        kept = [line for line in log.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= step]
        log.write_text("".join(kept))


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)
