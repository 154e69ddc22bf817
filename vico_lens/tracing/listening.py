"""Hear what a method of one object returns, for the time of a ``with``, without changing it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["listening"]

Listener = Callable[[tuple[Any, ...], Mapping[str, Any], Any], None]
"""Takes the arguments of a call, by position and by name, and what it returned."""

_lock = threading.Lock()


@contextmanager
def listening(owner: Any, method: str, listener: Listener) -> Iterator[None]:
    """Tell `listener` of every call of a method in this thread. An object without that method is left alone.

    Traces that overlap share one wrapper on the instance, and the last of them to end takes it off.

    Examples
    --------
    >>> class Encoder:
    ...     def encode(self, text): return text.upper()
    >>> encoder, heard = Encoder(), []
    >>> with listening(encoder, "encode", lambda args, kwargs, result: heard.append((args, result))):
    ...     _ = encoder.encode("red")
    >>> heard, vars(encoder)
    ([(('red',), 'RED')], {})
    """
    if getattr(owner, method, None) is None:
        yield
        return
    entry = threading.get_ident(), listener
    with _lock:
        wrapper = vars(owner).get(method)
        if not isinstance(wrapper, _Wrapper):
            wrapper = _Wrapper(getattr(owner, method), wrapper)
            vars(owner)[method] = wrapper
        wrapper.listeners.append(entry)
    try:
        yield
    finally:
        with _lock:
            wrapper.listeners.remove(entry)
            if not wrapper.listeners:
                del vars(owner)[method]
                if wrapper.before is not None:
                    vars(owner)[method] = wrapper.before


class _Wrapper:
    """Calls a method and tells those who listen in the same thread. `before` is what stood on the instance, if anything did."""

    def __init__(self, method: Callable[..., Any], before: Callable[..., Any] | None) -> None:
        self.method, self.before = method, before
        self.listeners: list[tuple[int, Listener]] = []
        self.__wrapped__ = method  # inspect.signature looks here

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.method(*args, **kwargs)
        for listener in [listener for thread, listener in self.listeners if thread == threading.get_ident()]:
            listener(args, kwargs, result)
        return result
