"""Clips without end: sums of clips of one object.

The latent code is linear with the background subtracted, and the objects of a clip never overlap. So the latent of a clip of two
objects is exactly the sum of two latents of one, and a moderate number of rendered clips of one object gives as many clips of
two or three as training asks for, at the price of an addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from vico_lens.tinyworld.codec import PatchCode
from vico_lens.tinyworld.prompts import TinyObject, TinyPrompt
from vico_lens.tinyworld.render import Layout, draw, fits, sample_path
from vico_lens.tinyworld.training.data import KINDS, Drawn, fit_code, sample_training_prompt
from vico_lens.tinyworld.vocabulary import COLOURS, MOTIONS, RADII, SHAPES, SIZES

__all__ = ["ComposedClips", "make_composed_clips"]

_CANDIDATES, _ROUNDS = 64, 8  # tuples of clips tried at once, and times, before another prompt is drawn
_MEAN_LAYOUTS = 64  # layouts of each object over which the mean clip of a pair is taken


@dataclass(frozen=True, slots=True)
class _Places:
    """Numbers of clips ``[clip]`` of each object that may be in a clip, and which of them fit together ``[first, ...]``."""

    rows: tuple[NDArray[np.int64], ...]
    fit: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ComposedClips:
    """Clips of one object, and clips of several composed from them.

    Attributes
    ----------
    code : PatchCode
        The code that `latents` are in.
    latents : Tensor
        float16 ``[clip, frame, channel, y, x]``; the clips of one object and size stand together.
    centres : ndarray
        float32 ``[clip, frame, (x, y)]`` in pixels.
    radii : ndarray
        float32 ``[clip]`` in pixels.
    layouts : int
        Clips of each object and size.
    seed : int
        With the number of the update it fixes what that update draws.
    """

    code: PatchCode
    latents: Tensor
    centres: NDArray[np.float32]
    radii: NDArray[np.float32]
    layouts: int
    seed: int

    def draw(self, mix: dict[str, float], size: int, *, generator: torch.Generator, step: int, posterior: bool = False) -> Drawn:
        """Draw `size` clips of kinds in the shares of `mix`; all chance comes from the seed and the number of the update.

        With `posterior` every clip of one or two objects is drawn from some clips of each object that could be in its place. So
        the mean of those that its noisy latents may come from is known exactly.
        """
        rng = np.random.default_rng([self.seed, 3, step])
        shares = np.array([mix.get(kind, 0.0) for kind in KINDS])
        kinds = rng.choice(len(KINDS), size=size, p=shares / shares.sum())
        drawn = [self._draw_one(KINDS[kind], rng, posterior) for kind in kinds]
        prompts = [prompt for prompt, _, _ in drawn]
        return Drawn(
            torch.stack([self.latents[chosen].float().sum(0) for _, chosen, _ in drawn]),
            tuple(map(str, prompts)),
            torch.tensor([len(prompt.objects) < 3 for prompt in prompts]),
            lambda clip: self.mean_clip(prompts[clip], np.random.default_rng([self.seed, 4, step, clip])),
            tuple(None if places is None else partial(self.posterior, places) for _, _, places in drawn) if posterior else (),
        )

    def mean_clip(self, prompt: TinyPrompt, rng: np.random.Generator) -> Tensor:
        """Return the mean clip ``[frame, channel, y, x]`` of a prompt of one or two objects.

        For two objects it is the mean over the pairs that fit, of `_MEAN_LAYOUTS` layouts each, drawn with `rng`.
        """
        members = [self._members(item, len(prompt.objects)) for item in prompt.objects]
        if len(members) == 1:
            return self.latents[members[0]].float().mean(0)
        first, second = (rng.choice(rows, size=min(_MEAN_LAYOUTS, len(rows)), replace=False) for rows in members)
        good = self._fits(np.stack(np.broadcast_arrays(first[:, None], second[None])), prompt.relation)
        weights = torch.from_numpy(good).float() / max(1, int(good.sum()))
        return torch.einsum("i,i...->...", weights.sum(1), self.latents[first].float()) + torch.einsum(
            "i,i...->...", weights.sum(0), self.latents[second].float()
        )

    def posterior(self, places: _Places, noisy: Tensor, level: float, frames: Tensor) -> Tensor:
        """Return the mean clip of a caption given a noisy one, over the clips and pairs of clips in `places`.

        Every one weighs ``exp(-|noisy - (1 - level) clip|^2 / (2 level^2))``, the density of the noise that leads to `noisy`.

        Parameters
        ----------
        places : _Places
            Clips of each object, and which of them fit together.
        noisy : Tensor
            ``[frame, channel, y, x]``.
        level : float
            Noise level of `noisy`, above 0.
        frames : Tensor
            Numbers of the frames of `noisy`.

        Returns
        -------
        Tensor
            float32 ``[frame, channel, y, x]``.
        """
        clips = [self.latents[torch.from_numpy(rows)][:, frames].float() for rows in places.rows]
        flat, share = [part.flatten(1) for part in clips], 1 - level
        scores = [share * part @ noisy.flatten() - share**2 * part.square().sum(1) / 2 for part in flat]
        if len(clips) == 1:
            return torch.einsum("i,i...->...", (scores[0] / level**2).softmax(0), clips[0])
        both = scores[0][:, None] + scores[1][None] - share**2 * flat[0] @ flat[1].T
        both = (both / level**2).masked_fill(~torch.from_numpy(places.fit), -torch.inf)
        weights = both.flatten().softmax(0).view_as(both)
        first = torch.einsum("i,i...->...", weights.sum(1), clips[0])
        return first + torch.einsum("i,i...->...", weights.sum(0), clips[1])

    def _draw_one(
        self, kind: str, rng: np.random.Generator, posterior: bool
    ) -> tuple[TinyPrompt, NDArray[np.int64], _Places | None]:
        while True:
            prompt = sample_training_prompt(kind, rng)
            members = [self._members(item, len(prompt.objects)) for item in prompt.objects]
            if posterior and len(members) < 3:
                places = self._places(prompt, members, rng)
                fitting = np.argwhere(places.fit)
                if len(fitting):
                    pick = fitting[rng.integers(len(fitting))]
                    chosen = np.array([rows[place] for rows, place in zip(places.rows, pick, strict=True)])
                    return prompt, chosen, places
                continue
            for _ in range(_ROUNDS):
                chosen = np.stack([rows[rng.integers(len(rows), size=_CANDIDATES)] for rows in members])
                good = np.flatnonzero(self._fits(chosen, prompt.relation))
                if len(good):
                    return prompt, chosen[:, good[0]], None

    def _places(self, prompt: TinyPrompt, members: list[NDArray[np.int64]], rng: np.random.Generator) -> _Places:
        rows = tuple(rng.choice(group, size=min(_MEAN_LAYOUTS, len(group)), replace=False) for group in members)
        if len(rows) == 1:
            return _Places(rows, np.ones(len(rows[0]), bool))
        return _Places(rows, self._fits(np.stack(np.broadcast_arrays(rows[0][:, None], rows[1][None])), prompt.relation))

    def _fits(self, chosen: NDArray[np.int64], relation: str | None) -> NDArray[np.bool_]:
        """Whether clips ``[object, ...]`` can be added up."""
        rows = np.moveaxis(chosen, 0, -1)
        return fits(self.centres[rows], self.radii[rows], relation)

    def _members(self, item: TinyObject, objects: int) -> NDArray[np.int64]:
        """Clips of an object; where the prompt leaves the size open, of both sizes, or of the small one among three."""
        sizes = (item.size,) if item.size else ("small",) if objects == 3 else SIZES
        starts = [_KEYS.index((item.shape, item.colour, item.motion, size)) * self.layouts for size in sizes]
        return np.concatenate([np.arange(start, start + self.layouts) for start in starts])


_KEYS = [(shape, colour, motion, size) for shape in SHAPES for colour in COLOURS for motion in MOTIONS for size in SIZES]


def make_composed_clips(layouts: int, *, seed: int) -> ComposedClips:
    """Render and encode `layouts` clips of every shape, colour, motion and size; the same arguments give the same clips."""
    code = fit_code(np.random.default_rng(seed))
    rng = np.random.default_rng([seed, 2])
    latents, centres, radii = [], [], []
    for shape, colour, motion, size in tqdm(_KEYS, desc="render and encode objects", unit="object", mininterval=5):
        frames = []
        for _ in range(layouts):
            radius = float(rng.uniform(*RADII[size]))
            path = sample_path(motion, radius, rng)
            layout = Layout(path[None], np.array([radius], np.float32))
            frames.append(torch.from_numpy(draw((TinyObject(shape, colour, motion),), layout)[0]).permute(0, 3, 1, 2))
            centres.append(path)
            radii.append(radius)
        latents.append(code.encode(torch.stack(frames)).half())
    return ComposedClips(code, torch.cat(latents), np.stack(centres), np.array(radii, np.float32), layouts, seed)
