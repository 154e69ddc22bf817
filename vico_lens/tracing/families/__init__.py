"""The table of pipeline families, and which row a pipeline belongs to.

Another package adds a family through the entry-point group ``vico_lens.families``; its object is a `Family`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vico_lens.errors import TracingError
from vico_lens.tracing.families import joint, separate, unets
from vico_lens.tracing.families.base import Family, Forward, Rule, Unfolded, unwrapped
from vico_lens.vocabulary.registry import Registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FAMILIES", "Family", "Forward", "Rule", "Unfolded", "denoisers", "family_of", "follows_conventions", "rule_for"]

FAMILIES: Registry[Family] = Registry("model family", "vico_lens.families")
"""All rows by name."""

_BUILT_IN = (*unets.FAMILIES, *separate.FAMILIES, *joint.FAMILIES)
for _family in _BUILT_IN:
    FAMILIES.add(_family.name, _family)


def family_of(pipe: object) -> Family:
    """Return the row of the table for a pipeline.

    The class names of the pipeline and of its bases are looked up first, then those of its denoisers, so that a pipeline of one's
    own around a known denoiser is known.

    Parameters
    ----------
    pipe : object
        A pipeline.

    Returns
    -------
    Family
        The row, or one made up from the pipeline's components if none fits: its sites are then classified by what is seen.

    Raises
    ------
    TracingError
        If the pipeline has no component that looks like a video denoiser.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> family_of(tiny.pipe).name
    'animatediff'
    """
    rows = [FAMILIES[name] for name in FAMILIES]
    for cls in type(pipe).__mro__:
        for row in rows:
            if cls.__name__ in row.pipelines:
                return row
    for row in rows:
        roots = [getattr(pipe, name, None) for name in row.denoisers]
        if any(cls.__name__ in row.models for root in roots for cls in type(unwrapped(root)).__mro__):
            return row
    from vico_lens.tracing.families.unknown import made_up

    return made_up(pipe)


def follows_conventions(pipe: object, family: Family, stock: bool) -> bool:
    """Whether the running code of a pipeline keeps to the conventions of its row (order of branches and passes).

    The code of diffusers does, and a class that a row of another package names. A class of one's own may do otherwise, though
    its base class is in the table.
    """
    return stock or (family not in _BUILT_IN and type(pipe).__name__ in family.pipelines)


def denoisers(pipe: object, family: Family | None = None) -> dict[str, nn.Module]:
    """Return the denoisers of a pipeline by attribute name, those that are loaded.

    Raises
    ------
    TracingError
        If there is none.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> list(denoisers(tiny.pipe))
    ['unet']
    """
    family = family or family_of(pipe)
    found = {name: root for name in family.denoisers if (root := getattr(pipe, name, None)) is not None}
    if not found:
        names = " or ".join(family.denoisers)
        raise TracingError(
            f"expected {type(pipe).__name__} to have a component {names}, got none: load the pipeline with its denoiser."
        )
    return found


def rule_for(family: Family, path: str) -> Rule | None:
    """Return the first rule of a row that matches a module path below the denoiser, or None.

    Examples
    --------
    >>> rule_for(FAMILIES["animatediff"], "down_blocks.0.motion_modules.0.transformer_blocks.0.attn2").kind
    'temporal'
    """
    for rule in family.rules:
        if re.search(rule.path, path):
            return rule
    return None
