"""See every softmax attention call of a model, with the module it came from, and change none of them.

Why a `TorchFunctionMode` and not recording attention processors: half of the video transformers have no replaceable processor,
the others need one forked copy a family, and every diffusers release moves them. `scaled_dot_product_attention` is where they all
end, whatever the release, with the query and key exactly as they enter the softmax (after rotary embedding and normalisation). A
mode sees the call through every alias of the function, is confined to the thread that entered it, and nests.

Why forward hooks beside it: the mode knows tensors but not names. Hooks on every module that has children keep a stack of dotted
paths; the innermost one at the time of the call is the attention module.

Eager and sliced attention processors call no fused kernel. Their softmax results are collected instead, in the order in which
they were computed, and put together when the module returns (`vico_lens.tracing.raw_calls`).
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vico_lens.tracing.multihead import FUSED, Projected, encoder_call, projected
from vico_lens.tracing.process_settings import WRAPPER, eager_stance, native_backend
from vico_lens.tracing.raw_calls import Attended, RawCall

__all__ = ["Editor", "Interception", "Observer", "Operands", "intercept", "suspended"]

_SDPA = torch._C._nn.scaled_dot_product_attention  # what torch.nn.functional names, unless someone put a wrapper there
_SDPA_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_SOFTMAX = frozenset({torch.softmax, torch.Tensor.softmax, torch.nn.functional.softmax})
_PROJECTIONS = ("to_q", "to_qkv", "q_proj", "qkv")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)  # they attend through their children, which have hooks of their own

_serials = itertools.count(1)


class _Thread(threading.local):
    """Interceptions with a serial below `floor` see nothing in this thread, except `editors`: those that change calls.

    `edited` is whether the call under way has been changed already, so that nested modes do not do it again.
    """

    floor = 0
    editors: tuple[Interception, ...] = ()
    edited = False


_thread = _Thread()


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
                undo.enter_context(native_backend(root, self.forced))
                for path, module in root.named_modules():
                    if module is root or (next(module.children(), None) is not None and not isinstance(module, _CONTAINERS)):
                        self._hook(undo, name, path.replace(f"{WRAPPER}.", ""), module, is_root=module is root)
            undo.enter_context(eager_stance(self._roots.values(), self.forced))
            if self._exclusive:
                undo.enter_context(_floor(self._serial))
            if hasattr(self._observer, "edit"):
                undo.enter_context(_editing(self))
            undo.enter_context(_Mode(self))
            self._cleanup = undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._clear()
        self._cleanup.close()

    def _clear(self) -> None:
        while self._stack:
            if (hidden := self._stack.pop().hidden) is not None:
                hidden.__exit__(None, None, None)

    def _hook(self, undo: ExitStack, name: str, path: str, module: nn.Module, *, is_root: bool) -> None:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._deaf():
                self.elsewhere += is_root and threading.get_ident() != self._owner_thread
                return
            if is_root:
                self._clear()  # entries left by an interrupt that no hook saw
                self.executed.clear()
                self._observer.enter(name, module, args, kwargs)
            elif not self._stack:
                return  # a checkpointed block recomputed by the backward pass: recorded in its forward
            self.executed.add(path)
            states = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
            first = next((x for x in itertools.chain(args, kwargs.values()) if isinstance(x, Tensor)), None)
            run = Attended(name, path, module, isinstance(states, Tensor), batch=0 if first is None else first.shape[0])
            self._stack.append(run)
            if isinstance(module, FUSED):
                self._hide(run, module, args, kwargs)

        def after(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            if self._deaf() or not self._stack or self._stack[-1].owner is not module:
                return
            run = self._stack.pop()
            failed = output is None
            if run.hidden is not None:
                run.hidden.__exit__(None, None, None)
                run.hidden = None
                self._show_fused_layer(run, failed)
            if not failed and (run.calls or run.pieces):
                self._observer.attended(run)
            if is_root:
                self._observer.leave(name, failed=failed)

        undo.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        undo.callback(module.register_forward_hook(after, always_call=True).remove)

    def _hide(self, run: Attended, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Let a module run without function modes, see `vico_lens.tracing.multihead`, and note its call from its inputs."""
        run.hidden = torch._C.DisableTorchFunction()
        run.hidden.__enter__()
        if isinstance(module, nn.MultiheadAttention):
            run.calls.append(_from_projections(projected(module, args, kwargs)))
        elif isinstance(module, nn.TransformerEncoderLayer):
            run.fused = encoder_call(module, args, kwargs)

    def _show_fused_layer(self, run: Attended, failed: bool) -> None:
        """Report the attention of an encoder layer whose attention module did not run by itself."""
        path = f"{run.module}.self_attn"
        if run.fused is None or failed or path in self.executed:
            return
        self.executed.add(path)
        call = _from_projections(run.fused)
        inner = Attended(run.denoiser, path, run.owner.self_attn, False, [call], batch=run.batch)  # type: ignore[arg-type]
        self._observer.attended(inner)

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


def _from_projections(operands: Projected) -> RawCall:
    query, key, mask, scale = operands
    return RawCall(_autocast(query), _autocast(key), _autocast(mask), False, scale)


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
