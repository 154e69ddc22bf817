"""What every attention graph has, whether its edges are in memory or not: levels of nodes, links between them, sources, sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from vico_lens.errors import InputError
from vico_lens.vocabulary.schema import Grid

__all__ = ["Joined", "Levels", "Passes"]

Joined = Literal["sum", "max"]
"""How several tokens are one source: flows along parallel edges add, a path takes the widest."""


class Passes(Protocol):
    """What a pass over the levels asks of a link, whether its edges are in memory or not; see `Link`."""

    def carry(self, mass: Tensor) -> Tensor:
        """Products added."""

    def widest(self, width: Tensor) -> Tensor:
        """(max, min)."""

    def narrow_sum(self, values: Tensor, *, back: bool = False) -> Tensor:
        """(+, min)."""

    def push(self, share: Tensor, reach: Tensor) -> Tensor:
        """Greedy."""

    def injected(self, sources: Sequence[Sequence[int]], joined: Joined = "sum") -> Tensor | None:
        """From the text."""


class Levels:
    """What all attention graphs have: levels of nodes, sources that are text tokens, sinks that are output video tokens.

    Attributes
    ----------
    links : sequence of Passes
        In execution order.
    grid : tuple of int
        Frames, rows and columns of the video tokens.
    tokens : int
        Text tokens that can be sources.
    text : int
        Text nodes at the head of every level: `tokens` if text lives through the layers, else 0.
    """

    links: Sequence[Passes]
    grid: Grid
    tokens: int
    text: int

    def supply(self, sources: Sequence[Sequence[int]] | None = None, *, at_text: float = torch.inf) -> list[Tensor]:
        """Capacity from each source into the nodes of each level: one ``[source, node]`` a level."""
        raise NotImplementedError

    @property
    def video(self) -> int:
        """Video tokens of a level."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def widths(self) -> tuple[int, ...]:
        """Nodes of each level."""
        return (self.text + self.video,) * (len(self.links) + 1)

    @property
    def like(self) -> Tensor:
        """Any tensor with the graph's dtype and device."""
        raise NotImplementedError

    def chosen(self, sources: Sequence[Sequence[int]] | None) -> list[list[int]]:
        """Tokens of each source, checked; ``None`` makes every token a source."""
        chosen = [[token] for token in range(self.tokens)] if sources is None else [list(tokens) for tokens in sources]
        for tokens in chosen:
            if not tokens or not all(0 <= token < self.tokens for token in tokens) or len(set(tokens)) < len(tokens):
                raise InputError(f"sources: expected distinct tokens in 0..{self.tokens - 1}, at least one each; got {tokens}.")
        if not chosen:
            raise InputError("sources: expected at least one; got none.")
        return chosen

    def start(self, sources: Sequence[Sequence[int]], at_text: float) -> Tensor:
        """Capacity from each source into level 0, ``[source, node]``: into its tokens where text lives through the layers."""
        first = self.like.new_zeros(len(sources), self.widths[0])
        for row, tokens in enumerate(sources if self.text else ()):
            first[row, list(tokens)] = at_text
        return first

    def sink(self, sinks: str | Tensor) -> Tensor:
        """Capacity from each last-level node into each sink, ``[sink, node]``; an output video token gives each at most 1.

        Parameters
        ----------
        sinks : {"video", "frame", "token"} or Tensor
            One sink for the whole video, for each frame, for each video token; or masks (bool, or capacities not below 0), shaped
            ``[N]``, ``[frames, rows, columns]``, or either with a leading axis of sinks.
        """
        frames, rows, columns = self.grid
        video = self.video
        if isinstance(sinks, str):
            ones, device = self.like.new_ones, self.like.device
            masks = {"video": lambda: ones(1, video),
                     "frame": lambda: torch.eye(frames, device=device).repeat_interleave(rows * columns, 1),
                     "token": lambda: torch.eye(video, device=device)}  # fmt: skip
            if sinks not in masks:
                raise InputError(f"sinks: expected 'video', 'frame', 'token' or a mask; got {sinks!r}.")
            mask = masks[sinks]()
        else:
            shape = tuple(sinks.shape)
            if shape[-3:] != self.grid and shape[-1:] != (video,):
                raise InputError(f"sinks: expected a mask of shape {self.grid} or ({video},), or several stacked; got {shape}.")
            mask = sinks.reshape(-1, video)
            if not bool(torch.isfinite(mask).all()) or bool((mask < 0).any()) or not bool((mask > 0).any(-1).all()):
                raise InputError("sinks: expected finite capacities that are not negative, and no empty sink. Check the mask.")
        mask = mask.to(self.like)
        return torch.cat([mask.new_zeros(len(mask), self.text), mask], -1)
