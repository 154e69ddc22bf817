"""Settings outside of the model for the time of a trace: the attention kernel, and eager execution of compiled modules."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn

__all__ = ["WRAPPER", "eager_stance", "native_backend"]

WRAPPER = "_orig_mod"
"""What torch.compile puts between a module and its children in dotted paths."""


class _Shared:
    """Contexts that hold for the whole process, shared by traces that overlap, in threads or one inside another.

    The first trace enters a context, the last leaves it. Were each to put back what it found, the first to end would take the
    setting from under the others, and the last would leave it changed for good.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._held: dict[object, tuple[AbstractContextManager[Any], Any, list[None]]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._held

    @contextmanager
    def entered(self, key: object, make: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
        """Be in the context of this key, and yield what it gave to whoever entered it first."""
        with self.lock:
            if key not in self._held:
                context = make()
                self._held[key] = context, context.__enter__(), []
            context, given, holders = self._held[key]
            holders.append(None)
        try:
            yield given
        finally:
            with self.lock:
                holders.pop()
                if not holders:
                    del self._held[key]
                    context.__exit__(None, None, None)


_shared = _Shared()


@contextmanager
def _changed(owner: Any, name: str, value: object) -> Iterator[Any]:
    """Hold an attribute at `value`, and yield what it was."""
    own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield before
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)  # what the class says holds again


@contextmanager
def native_backend(root: nn.Module, forced: list[str]) -> Iterator[None]:
    """Have diffusers dispatch to the fused kernel of torch, and put every setting back.

    Both the processors' own backend and the process-wide one must go: resetting the former leaves the latter where it was.
    """
    if "diffusers" not in sys.modules:
        yield
        return
    try:
        dispatch = import_module("diffusers.models.attention_dispatch")
    except ModuleNotFoundError:  # diffusers before 0.35 has no backends to choose from
        yield
        return
    registry, native = dispatch._AttentionBackendRegistry, dispatch.AttentionBackendName.NATIVE
    every = {id(p): p for m in root.modules() if (p := getattr(m, "processor", None)) is not None}
    # a processor that is written for other kernels refuses this one: its sites say that they were not seen
    only = "_SUPPORTED_BACKENDS"
    processors = {key: p for key, p in every.items() if "native" in getattr(p, only, ("native",))}
    with ExitStack() as undo:
        with _shared.lock:  # one look at all of them: another trace may be about to end
            found = [undo.enter_context(_shared.entered(id(registry), partial(_changed, registry, "_active_backend", native)))]
            for place, processor in processors.items():
                if place in _shared or getattr(processor, "_attention_backend", None) is not None:
                    own = partial(_changed, processor, "_attention_backend", None)  # keeps the processor, and so its id
                    found.append(undo.enter_context(_shared.entered(place, own)))
        asked = {f"attention backend {getattr(backend, 'value', backend)} -> native" for backend in found}
        forced += sorted(asked - {"attention backend native -> native", *forced})
        yield


@contextmanager
def eager_stance(roots: Iterable[nn.Module], forced: list[str]) -> Iterator[None]:
    """Run compiled modules eagerly, for a compiled graph calls neither hooks nor modes."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(module, WRAPPER)
        or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")  # module.forward = torch.compile(module.forward)
        for root in roots
        for module in root.modules()
    )
    if not compiled:
        yield
        return
    forced.append("torch.compile -> eager")
    with _shared.entered("stance", lambda: torch.compiler.set_stance("force_eager")):
        yield
