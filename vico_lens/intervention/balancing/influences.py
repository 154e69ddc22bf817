"""Influence of concepts on the running video: live attention calls through the same methods that `vico_lens.attribute`
applies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from vico_lens.attribution import influence_of_stages
from vico_lens.attribution.base import methods
from vico_lens.errors import InputError
from vico_lens.intervention.balancing.objectives import Influences
from vico_lens.intervention.balancing.words import Words
from vico_lens.kernels.stages import Grid, stages_from_calls
from vico_lens.vocabulary.selection import Heads, Layers, matches

if TYPE_CHECKING:
    from vico_lens.vocabulary.schema import AttentionCall, AttentionSite, Kind

__all__ = ["Flow", "site_filter"]


@dataclass(frozen=True, slots=True)
class Flow:
    """Which influence is balanced: an attribution method, the sites it reads, and the grid of its maps.

    Parameters
    ----------
    method : str
        A differentiable attribution method that needs no pipeline.
    options : mapping
        Its own options, and `rho` and `residual`.
    layers : str, int or sequence of them, optional
        As in `vico_lens.attribute`: patterns on the module path or on the group name (``"*8x4x4"``), or places in the execution
        order.
    heads : int or sequence of int, optional
        Heads to average; all by default.
    grid : tuple of int, optional
        Frames, rows, columns of the maps; the finest that reads text by default.

    Raises
    ------
    InputError
        If the method has no gradient, or works by running the model again.

    Examples
    --------
    >>> Flow("subgraph_flow", {"kind": "sum"}, layers="*up_blocks*").kinds
    ('cross', 'temporal', 'spacetime', 'joint')
    """

    method: str = "subgraph_flow"
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    layers: Layers = None
    heads: Heads = None
    grid: Grid | None = None

    def __post_init__(self) -> None:
        known = methods()
        usable = sorted(name for name, method in known.items() if method.differentiable and not method.needs_pipe)
        if self.method not in usable:
            raise InputError(
                f"expected a flow with a gradient in live attention, got {self.method!r}; usable: {', '.join(usable)}."
            )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of attention site the method reads."""
        return methods()[self.method].reads

    @property
    def wanted(self) -> Callable[[AttentionSite], bool] | None:
        """Whether a site is among `layers`; None if all are."""
        return site_filter(self.layers)

    def read(self, calls: Sequence[AttentionCall], words: Words, *, per_token: bool) -> Influences:
        """Influences from the calls of one video.

        Parameters
        ----------
        calls : sequence of AttentionCall
            Of one denoiser forward, one row.
        words : Words
            Its concepts and content tokens.
        per_token : bool
            Whether the influence of every content token is wanted too.

        Returns
        -------
        Influences
            Differentiable in whatever the calls are.
        """
        singles = [(token,) for token in words.content] if per_token else []
        sources = singles + [concept.tokens for concept in words.concepts]
        stages = stages_from_calls(calls, heads=self.heads)
        maps = influence_of_stages(stages, sources, self.method, grid=self.grid, **self.options)  # type: ignore[arg-type]
        return Influences(maps[: len(singles)], words.members, maps[len(singles) :], words.directions)


def site_filter(layers: str | int | Sequence[str | int] | None) -> Callable[[AttentionSite], bool] | None:
    """Whether a site is among `layers`: patterns on its path or group, or places in the execution order; None if all are.

    Examples
    --------
    >>> from vico_lens.vocabulary.schema import AttentionSite
    >>> site = AttentionSite("unet.mid_block.attn2", "cross", (8, 4, 4), 2, 8, 20, 3)
    >>> [site_filter(layers)(site) for layers in ("*mid_block*", "cross/*", [3, 5], "*up_blocks*")]
    [True, True, True, False]
    """
    return None if layers is None else lambda site: matches(site, layers)
