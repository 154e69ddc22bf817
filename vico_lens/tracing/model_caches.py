"""Switch the caches of diffusers off for forwards that are no part of sampling.

A cache (first block, pyramid attention broadcast, TaylorSeer, FasterCache, MagCache, SeaCache) counts the forwards of the
denoiser and keeps results from one to the next. A forward that somebody else makes, to measure attention on moved latents, would
be counted too: it would change what the next step of the pipeline reuses, and so the video. Here the hooks of the cache are
passed by for the time of a ``with``: the forward computes every layer, and the cache neither sees it nor changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["has_cache", "without_caches"]


def _cache_hooks(module: nn.Module) -> Iterator[Any]:
    """For every hook of a cache below `module` the functions through which diffusers calls it."""
    for part in module.modules():
        registry = getattr(part, "_diffusers_hook", None)
        if registry is None:
            continue
        hooks = [registry.hooks[name] for name in registry._hook_order]
        for hook, functions in zip(hooks, registry._fn_refs, strict=True):
            # Block hooks of some caches hold no state of their own; all lie in the module of the cache.
            if type(hook)._is_stateful or type(hook).__module__.rpartition(".")[2].endswith("_cache"):
                yield functions


def has_cache(module: nn.Module) -> bool:
    """Whether a cache of diffusers is enabled in a model.

    Examples
    --------
    >>> has_cache(nn.Linear(1, 1))
    False
    """
    return next(_cache_hooks(module), None) is not None


@contextmanager
def without_caches(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Pass the caches of these models by for the time of a ``with``; their state stays as it is.

    Parameters
    ----------
    modules : iterable of nn.Module
        Denoisers, with a cache enabled or without.

    Examples
    --------
    >>> from vico_lens.testing import tiny_pipeline
    >>> from diffusers import FirstBlockCacheConfig
    >>> model = tiny_pipeline("wan21-t2v").pipe.transformer
    >>> model.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    >>> with without_caches([model]):
    ...     pass  # forwards made here compute every layer
    >>> model.is_cache_enabled
    True
    """
    passed_by: list[tuple[Any, tuple[Any, Any, Any]]] = []
    try:
        for module in modules:
            for functions in _cache_hooks(module):
                passed_by.append((functions, (functions.pre_forward, functions.forward, functions.post_forward)))
                functions.pre_forward = lambda _, *args, **kwargs: (args, kwargs)
                functions.forward = functions.original_forward or functions.forward
                functions.post_forward = lambda _, output: output
        yield
    finally:
        for functions, (pre_forward, forward, post_forward) in reversed(passed_by):
            functions.pre_forward, functions.forward, functions.post_forward = pre_forward, forward, post_forward
