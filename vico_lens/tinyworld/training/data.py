"""Training data of the bundled model: encoded clips and their captions.

Where dominance comes from. Clips of one object draw every word equally often. Clips of several objects do not: some shapes and
colours are several times as frequent as others, every shape has a colour that it usually comes in, and a fifth of the pairs
never occurs. No weight, loss or sampler treats a concept specially.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vico_lens.errors import InputError
from vico_lens.tinyworld.codec import PatchCode, fit_patch_code
from vico_lens.tinyworld.prompts import TinyObject, TinyPrompt, is_held_out
from vico_lens.tinyworld.render import draw, sample_layout
from vico_lens.tinyworld.vocabulary import COLOURS, MOTIONS, RELATIONS, SHAPES, SIZES

__all__ = [
    "KINDS",
    "Drawn",
    "TrainingData",
    "draw_clip",
    "fit_code",
    "make_training_data",
    "make_training_frames",
    "sample_training_prompt",
]

KINDS = ("one", "two", "three", "relation")
_OBJECTS = {"one": 1, "two": 2, "three": 3, "relation": 2}

_SHAPE_SHARES = (0.38, 0.30, 0.20, 0.12)  # circle, square, triangle, cross
_COLOUR_SHARES = (0.30, 0.24, 0.18, 0.13, 0.09, 0.06)  # red, blue, green, yellow, purple, white
_USUAL_COLOUR = {"circle": "red", "square": "blue", "triangle": "green", "cross": "yellow"}
_USUAL_SHARE = 0.4
_CODE_CLIPS = 1000


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Encoded clips.

    Attributes
    ----------
    code : PatchCode
        The code that `latents` are in.
    latents : Tensor
        float16 ``[clip, frame, channel, y, x]``.
    kind : Tensor
        int64 ``[clip]``, an index into `KINDS`.
    caption : Tensor
        int64 ``[clip]``: an index into `means` for clips of one object, -1 for the others.
    means : Tensor
        float32 ``[caption, frame, channel, y, x]``: the mean clip of every caption of one object. At full noise this is what the
        denoiser must predict; regressing on it rather than on single clips has the same minimum and far less gradient variance.
    prompts : tuple of TinyPrompt
        One a clip.
    """

    code: PatchCode
    latents: Tensor
    kind: Tensor
    caption: Tensor
    means: Tensor
    prompts: tuple[TinyPrompt, ...]

    def draw(self, mix: dict[str, float], size: int, *, generator: torch.Generator, step: int, posterior: bool = False) -> Drawn:
        """Draw `size` clips of kinds in the shares of `mix`; all chance comes from `generator`.

        Raises
        ------
        InputError
            If `posterior` is asked for: only `composed.ComposedClips` know which clips a noisy one may come from.
        """
        if posterior:
            raise InputError("expected a recipe without posterior for rendered clips, got one: only composed clips know it.")
        shares = torch.tensor([mix.get(kind, 0.0) for kind in KINDS])
        kinds = torch.multinomial(shares, size, replacement=True, generator=generator)
        pick = torch.rand(size, generator=generator)
        members = [self._members(int(kind)) for kind in kinds]
        index = torch.stack([group[int(u * len(group))] for group, u in zip(members, pick, strict=True)])
        row = self.caption[index]
        return Drawn(
            self.latents[index].float(),
            tuple(str(self.prompts[i]) for i in index.tolist()),
            row >= 0,
            lambda clip: self.means[row[clip]],
        )

    def _members(self, kind: int) -> Tensor:
        starts = torch.searchsorted(self.kind, torch.tensor([kind, kind + 1]))
        return torch.arange(int(starts[0]), int(starts[1]))


@dataclass(frozen=True, slots=True)
class Drawn:
    """Clips of one update.

    Attributes
    ----------
    latents : Tensor
        float32 ``[clip, frame, channel, y, x]``.
    captions : tuple of str
        One a clip.
    has_mean : Tensor
        bool ``[clip]``: whether the mean clip of its caption is known.
    mean_of : callable
        Takes the number of a clip and returns the mean clip of its caption.
    posteriors : tuple of callable or None
        One a clip, where the source knows it: takes the noisy latents ``[frame, channel, y, x]``, their noise level and the
        numbers of their frames, and returns the mean of the clips of this caption that they may come from.
    """

    latents: Tensor
    captions: tuple[str, ...]
    has_mean: Tensor
    mean_of: Callable[[int], Tensor]
    posteriors: tuple[Callable[[Tensor, float, Tensor], Tensor] | None, ...] = ()


def sample_training_prompt(kind: str, rng: np.random.Generator) -> TinyPrompt:
    """Draw a prompt of one of `KINDS` as training sees them."""
    colours, count = list(COLOURS), _OBJECTS[kind]
    while True:
        items: list[TinyObject] = []
        for _ in range(count):
            if kind == "one":
                shape, colour = SHAPES[rng.integers(len(SHAPES))], colours[rng.integers(len(colours))]
            else:
                shape = SHAPES[rng.choice(len(SHAPES), p=_SHAPE_SHARES)]
                usual = rng.random() < _USUAL_SHARE
                colour = _USUAL_COLOUR[shape] if usual else colours[rng.choice(len(colours), p=_COLOUR_SHARES)]
            motion = "still" if kind == "relation" else list(MOTIONS)[rng.integers(len(MOTIONS))]
            size = None
            if rng.random() < 0.5:
                size = "small" if count == 3 else SIZES[rng.integers(2)]
            items.append(TinyObject(shape, colour, motion, size))
        if len({item.colour for item in items}) == count and not any(is_held_out(a, b) for a, b in combinations(items, 2)):
            return TinyPrompt(tuple(items), list(RELATIONS)[rng.integers(len(RELATIONS))] if kind == "relation" else None)


def make_training_data(counts: dict[str, int], *, seed: int) -> TrainingData:
    """Render, encode and caption ``counts[kind]`` clips of every kind; the same arguments give the same data."""
    rng = np.random.default_rng(seed)
    code = fit_code(rng)
    prompts: list[TinyPrompt] = []
    latents: list[Tensor] = []
    kinds = [index for index, kind in enumerate(KINDS) for _ in range(counts.get(kind, 0))]
    for kind in tqdm(kinds, desc="render and encode clips", unit="clip", mininterval=5):
        prompt, frames = draw_clip(KINDS[kind], rng)
        prompts.append(prompt)
        latents.append(code.encode(frames).half())
    stacked = torch.stack(latents)
    captions, means = _mean_clips(prompts, stacked)
    return TrainingData(code, stacked, torch.tensor(kinds), captions, means, tuple(prompts))


def make_training_frames(rng: np.random.Generator, clips: int = 600) -> Tensor:
    """Return uint8 frames ``[frame, rgb, row, column]`` of ``4 * clips`` clips, most of them with several objects."""
    frames = torch.cat([draw_clip(kind, rng)[1] for kind in ("one", "two", "two", "three") for _ in range(clips)])
    return (frames * 255).round().to(torch.uint8)


def draw_clip(kind: str, rng: np.random.Generator) -> tuple[TinyPrompt, Tensor]:
    """Draw a training prompt of one of `KINDS` and frames ``[frame, rgb, row, column]`` in 0..1 for it."""
    while True:
        prompt = sample_training_prompt(kind, rng)
        layout = sample_layout(prompt, rng)
        if layout is not None:
            frames, _ = draw(prompt.objects, layout)
            return prompt, torch.from_numpy(frames).permute(0, 3, 1, 2)


def fit_code(rng: np.random.Generator) -> PatchCode:
    """Fit the latent code; all bundled models share it, since they share the seed."""
    # Clips of one object are balanced over words: the code must not prefer the colours that training prefers.
    return fit_patch_code(torch.cat([draw_clip("one", rng)[1] for _ in range(_CODE_CLIPS)]))


def _mean_clips(prompts: list[TinyPrompt], latents: Tensor) -> tuple[Tensor, Tensor]:
    members: dict[TinyPrompt, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        if len(prompt.objects) == 1:
            members[prompt].append(index)
    caption = torch.full((len(prompts),), -1)
    means = torch.zeros(len(members), *latents.shape[1:])
    for row, indices in enumerate(members.values()):
        caption[indices] = row
        means[row] = latents[indices].float().mean(0)
    return caption, means
