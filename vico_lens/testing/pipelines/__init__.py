"""Tiny random-initialised instances of the diffusers video pipelines, built offline in code.

Layouts, masks, guidance and hooks are the same in the real pipelines, so tests of them hold there too. The pictures are noise.

Examples
--------
>>> tiny = tiny_pipeline("animatediff-t2v")
>>> tiny.run(seed=0).shape
(1, 4, 16, 24, 3)
"""

from __future__ import annotations

from importlib import import_module

from vico_lens.errors import InputError
from vico_lens.testing.pipelines.releases import too_new
from vico_lens.testing.pipelines.tiny import TINY_PIPELINES, TinyPipeline, build
from vico_lens.testing.pipelines.tokenizers import PROMPT

__all__ = ["PROMPT", "TINY_PIPELINES", "TinyPipeline", "tiny_pipeline", "tiny_pipelines"]

_FAMILIES = (
    "allegro",
    "animatediff",
    "cogvideox",
    "cosmos",
    "easyanimate",
    "hunyuan",
    "kandinsky",
    "latte",
    "ltx",
    "ltx2",
    "mochi",
    "motif",
    "sana",
    "wan",
    "wan_kin",
    "zeroscope",
)
for _module in _FAMILIES:
    import_module(f"{__name__}.{_module}")


def tiny_pipelines() -> tuple[str, ...]:
    """Names of all tiny pipelines, sorted.

    Examples
    --------
    >>> "animatediff-t2v" in tiny_pipelines()
    True
    """
    return tuple(TINY_PIPELINES)


def tiny_pipeline(name: str, seed: int = 0) -> TinyPipeline:
    """Build one tiny pipeline.

    Parameters
    ----------
    name : str
        One of `tiny_pipelines`.
    seed : int
        Of the random weights.

    Returns
    -------
    TinyPipeline
        A new instance: nothing is shared between two calls.

    Raises
    ------
    vico_lens.errors.InputError
        If there is none of this name, or the installed diffusers is older than its classes.

    Examples
    --------
    >>> tiny = tiny_pipeline("wan21-t2v")
    >>> type(tiny.pipe).__name__, list(tiny.denoisers)
    ('WanPipeline', ['transformer'])
    """
    if reason := too_new(name):
        raise InputError(f"{reason}. Install a newer one, or choose another tiny pipeline.")
    return build(name, seed)
