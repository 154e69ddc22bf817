"""See every softmax attention call of a model, with the module it came from, and change none of them.

Why a `TorchFunctionMode` and not recording attention processors: half of the video transformers have no replaceable processor,
the others need one forked copy a family, and every diffusers release moves them. `scaled_dot_product_attention` is where they all
end, whatever the release, with the query and key exactly as they enter the softmax (after rotary embedding and normalisation). A
mode sees the call through every alias of the function, is confined to the thread that entered it, and nests.

Why forward hooks beside it: the mode knows tensors but not names. Hooks on every module that has children keep a stack of dotted
paths; the innermost one at the time of the call is the attention module.

Eager and sliced attention processors call no fused kernel. Their softmax results are collected instead, in the order in which
they were computed, and put together when the module returns.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vico_lens.errors import TracingError

__all__ = ["Attended", "Editor", "Interception", "Observer", "Operands", "RawCall", "intercept", "suspended"]

_SDPA = torch.nn.functional.scaled_dot_product_attention
_SDPA_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_SOFTMAX = frozenset({torch.softmax, torch.Tensor.softmax, torch.nn.functional.softmax})
_PROJECTIONS = ("to_q", "to_qkv", "q_proj", "qkv")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)  # they attend through their children, which have hooks of their own
_WRAPPER = "_orig_mod"  # what torch.compile puts between a module and its children in dotted paths

_serials = itertools.count(1)


class _Thread(threading.local):
    """Interceptions with a serial below `floor` see nothing in this thread, except `editors`: those that change calls.

    `edited` is whether the call under way has been changed already, so that nested modes do not do it again.
    """

    floor = 0
    editors: tuple[Interception, ...] = ()
    edited = False


_thread = _Thread()


@dataclass(frozen=True, slots=True)
class RawCall:
    """One softmax, as the model computed it.

    Attributes
    ----------
    query, key : Tensor or None
        ``[batch, head, token, channel]``, live: part of the autograd graph, nothing copied. None if only the result was seen.
    mask : Tensor or None
        As passed: boolean (True takes part) or additive, broadcastable to ``[batch, head, query, key]``.
    causal : bool
        The call asked for the lower triangle only.
    scale : float
        What the logits were multiplied with.
    probabilities : Tensor or None
        ``[batch, head, query, key]`` if the model computed its softmax itself.
    """

    query: Tensor | None
    key: Tensor | None
    mask: Tensor | None
    causal: bool
    scale: float
    probabilities: Tensor | None = None


@dataclass(slots=True)
class Attended:
    """One execution of one attention module: its path, and the calls it made.

    Attributes
    ----------
    denoiser : str
        Name under which the root module was given.
    module : str
        Dotted path below the root.
    owner : nn.Module
        The module itself.
    conditioned : bool
        Encoder states reached the module as an argument.
    calls : list of RawCall
        In order of execution; mostly one. Empty until `join` if the module computed its softmax itself.
    pieces : list of Tensor
        Softmax results of a module that called no fused kernel.
    batch : int
        Leading size of the module's input.
    """

    denoiser: str
    module: str
    owner: nn.Module
    conditioned: bool
    calls: list[RawCall] = field(default_factory=list)
    pieces: list[Tensor] = field(default_factory=list)
    batch: int = 0

    def join(self) -> None:
        """Put softmax results together to one call: sliced processors compute batch times head in slices.

        Raises
        ------
        TracingError
            If they do not make up a whole.
        """
        if self.calls or not self.pieces:
            return
        if len({piece.shape[1:] for piece in self.pieces}) == 1 and self.batch:
            whole = self.pieces[0] if len(self.pieces) == 1 else torch.cat(self.pieces)
            if whole.ndim == 3 and whole.shape[0] % self.batch == 0:
                whole = whole.reshape(self.batch, -1, *whole.shape[1:])
            heads = getattr(self.owner, "heads", whole.shape[1])
            if whole.ndim == 4 and tuple(whole.shape[:2]) == (self.batch, heads):
                self.calls.append(RawCall(None, None, None, False, 1.0, whole))
                return
        shapes = ", ".join(str(tuple(piece.shape)) for piece in self.pieces[:4])
        raise TracingError(
            f"{self.denoiser}.{self.module}: expected softmax results that make up [batch * head, query, key] with batch "
            f"{self.batch}, got {len(self.pieces)} of shape {shapes}. Use an attention processor that calls "
            "scaled_dot_product_attention (in diffusers: model.set_default_attn_processor())."
        )


class Observer(Protocol):
    """What an interception reports to. An exception raised here goes through the model to its caller."""

    def enter(self, denoiser: str, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take note that a forward of a root module begins."""

    def attended(self, run: Attended) -> None:
        """Take the calls of one attention module, when it returns."""

    def leave(self, denoiser: str, *, failed: bool) -> None:
        """Take note that the forward has ended."""


Operands = dict[str, Any]
"""Arguments of a fused call by name, or the ``logits`` of a softmax that the model computes itself."""


class Editor(Observer, Protocol):
    """An observer that changes what an attention module computes; interceptions entered inside or outside see it changed."""

    def edit(self, run: Attended, operands: Operands) -> Operands | None:
        """Return other operands for the call that `run` is about to make, or None to leave it as it is."""


class _Mode(TorchFunctionMode):
    def __init__(self, interception: Interception) -> None:
        super().__init__()
        self._interception = interception

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not _SDPA and func not in _SOFTMAX:
            return func(*args, **kwargs)
        innermost = not _thread.edited
        if innermost:
            for editor in _thread.editors:
                args, kwargs = editor.edited(func is _SDPA, args, kwargs)
        _thread.edited = True
        try:
            if func is _SDPA:
                self._interception.fused(args, kwargs)
            out = func(*args, **kwargs)
        finally:
            _thread.edited = not innermost
        if func is not _SDPA:
            self._interception.softmax(out)
        return out


class Interception:
    """Hooks and mode of one `with`; see `intercept`."""

    def __init__(self, roots: Mapping[str, nn.Module], observer: Observer, *, exclusive: bool) -> None:
        self._roots = roots
        self._observer = observer
        self._exclusive = exclusive
        self._serial = next(_serials)
        self._owner_thread = threading.get_ident()
        self._stack: list[Attended] = []
        self._cleanup = ExitStack()
        self.executed: set[str] = set()
        """Paths of the modules that ran in the current forward."""
        self.elsewhere = 0
        """Forwards of a root that ran in another thread, where the mode does not reach."""
        self.forced: list[str] = []
        """What was switched off for the time of the trace, in words."""

    def __enter__(self) -> Interception:
        with ExitStack() as undo:  # a failure half-way through must not leave the first hooks behind
            for name, root in self._roots.items():
                undo.enter_context(_native_backend(root, self.forced))
                for path, module in root.named_modules():
                    if module is root or (next(module.children(), None) is not None and not isinstance(module, _CONTAINERS)):
                        self._hook(undo, name, path.replace(f"{_WRAPPER}.", ""), module, is_root=module is root)
            undo.enter_context(_eager_stance(self._roots.values(), self.forced))
            if self._exclusive:
                undo.enter_context(_floor(self._serial))
            if hasattr(self._observer, "edit"):
                undo.enter_context(_editing(self))
            undo.enter_context(_Mode(self))
            self._cleanup = undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.clear()
        self._cleanup.close()

    def _hook(self, undo: ExitStack, name: str, path: str, module: nn.Module, *, is_root: bool) -> None:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._deaf():
                self.elsewhere += is_root and threading.get_ident() != self._owner_thread
                return
            if is_root:
                self._stack.clear()  # entries left by an interrupt that no hook saw
                self.executed.clear()
                self._observer.enter(name, module, args, kwargs)
            elif not self._stack:
                return  # a checkpointed block recomputed by the backward pass: recorded in its forward
            self.executed.add(path)
            states = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
            first = next((x for x in itertools.chain(args, kwargs.values()) if isinstance(x, Tensor)), None)
            run = Attended(name, path, module, isinstance(states, Tensor), batch=0 if first is None else first.shape[0])
            self._stack.append(run)

        def after(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            if self._deaf() or not self._stack or self._stack[-1].owner is not module:
                return
            run = self._stack.pop()
            failed = output is None
            if not failed and (run.calls or run.pieces):
                self._observer.attended(run)
            if is_root:
                self._observer.leave(name, failed=failed)

        undo.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        undo.callback(module.register_forward_hook(after, always_call=True).remove)

    def _deaf(self) -> bool:
        hidden = self._serial < _thread.floor and self not in _thread.editors
        return hidden or threading.get_ident() != self._owner_thread

    def fused(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Note a fused call under the innermost module."""
        if not self._stack or self._deaf():
            return
        given = dict(zip(_SDPA_ARGUMENTS, args, strict=False)) | dict(kwargs)
        query, key, mask = (_autocast(given.get(name)) for name in ("query", "key", "attn_mask"))
        scale = given.get("scale")
        if key.shape[-3] != query.shape[-3] and given.get("enable_gqa"):
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
        self._stack[-1].calls.append(
            RawCall(
                query=query,
                key=key,
                mask=mask,
                causal=bool(given.get("is_causal", False)),
                scale=1 / math.sqrt(query.shape[-1]) if scale is None else float(scale),
            )
        )

    def edited(self, fused: bool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Let the editor of this interception change the operands of a call."""
        if not self._stack or self._deaf():
            return args, kwargs
        run = self._stack[-1]
        if fused:
            operands = dict(zip(_SDPA_ARGUMENTS, args, strict=False)) | dict(kwargs)
            changed = self._observer.edit(run, operands)  # type: ignore[attr-defined]  # only editors are asked
            return (args, kwargs) if changed is None else ((), changed)
        if not args or not any(hasattr(run.owner, name) for name in _PROJECTIONS) or args[0].ndim < 3:
            return args, kwargs
        changed = self._observer.edit(run, {"logits": args[0]})  # type: ignore[attr-defined]
        return (args, kwargs) if changed is None else ((changed["logits"], *args[1:]), kwargs)

    def softmax(self, out: object) -> None:
        """Keep a softmax result if it can be the attention of the innermost module."""
        if not self._stack or self._deaf():
            return
        run = self._stack[-1]
        if isinstance(out, Tensor) and out.ndim >= 3 and any(hasattr(run.owner, name) for name in _PROJECTIONS):
            run.pieces.append(out)


def _autocast(x: Any) -> Any:
    """An operand in the precision that the kernel will get it in: autocast rounds it behind this mode, and a mask with it."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dtype == torch.float64:
        return x
    kind = x.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return x
    return x.to(torch.get_autocast_dtype(kind))


@contextmanager
def _floor(serial: int) -> Iterator[None]:
    before = _thread.floor
    _thread.floor = max(before, serial)
    try:
        yield
    finally:
        _thread.floor = before


@contextmanager
def _editing(interception: Interception) -> Iterator[None]:
    before = _thread.editors
    _thread.editors = (*before, interception)
    try:
        yield
    finally:
        _thread.editors = before


@contextmanager
def suspended() -> Iterator[None]:
    """Hide what happens inside from every interception entered before, in this thread.

    Examples
    --------
    >>> with suspended():
    ...     pass  # denoiser calls made here appear in no enclosing trace
    """
    with _floor(next(_serials)):
        yield


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
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield before
    finally:
        setattr(owner, name, before)


@contextmanager
def _native_backend(root: nn.Module, forced: list[str]) -> Iterator[None]:
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
    processors = {id(p): p for m in root.modules() if (p := getattr(m, "processor", None)) is not None}
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
def _eager_stance(roots: Iterable[nn.Module], forced: list[str]) -> Iterator[None]:
    """Run compiled modules eagerly, for a compiled graph calls neither hooks nor modes."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, _WRAPPER)
        for root in roots
        for module in root.modules()
    )
    if not compiled:
        yield
        return
    forced.append("torch.compile -> eager")
    with _shared.entered("stance", lambda: torch.compiler.set_stance("force_eager")):
        yield


def intercept(roots: Mapping[str, nn.Module], observer: Observer, *, exclusive: bool = False) -> Interception:
    """Report every softmax attention inside `roots` to `observer` for the time of a ``with``.

    Parameters
    ----------
    roots : mapping of str to nn.Module
        Denoisers by name. Only calls made while one of them runs its forward are reported.
    observer : Observer
        Told when a root's forward begins, when an attention module inside it returns, and when the forward ends.
    exclusive : bool
        Hide what happens inside from interceptions entered before (balancing runs the denoiser more often than the pipeline
        does).

    Returns
    -------
    Interception
        A context manager. On exit, whatever the reason, no hook, mode, stance or backend setting remains.

    Examples
    --------
    >>> class Print:
    ...     def enter(self, denoiser, root, args, kwargs): print("enter", denoiser)
    ...     def attended(self, run): print("softmax of", tuple(run.calls[0].query.shape))
    ...     def leave(self, denoiser, *, failed): print("leave", denoiser)
    >>> class Attention(nn.Module):
    ...     def forward(self, x): return nn.functional.scaled_dot_product_attention(x, x, x)
    >>> layer = Attention()
    >>> with intercept({"layer": layer}, Print()):
    ...     _ = layer(torch.zeros(1, 2, 3, 4))
    enter layer
    softmax of (1, 2, 3, 4)
    leave layer
    """
    return Interception(roots, observer, exclusive=exclusive)
