"""A named table of plug-ins: one decorator to add, one entry-point group to extend from another package.

Attribution methods, balancing objectives and model families are entries, not branches: adding one touches one new file.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from vico_lens.errors import InputError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names mapped to objects, with third-party entries loaded on first use.

    Parameters
    ----------
    noun : str
        What an entry is, for error messages ("attribution method").
    group : str
        Entry-point group read on first look-up. Each entry point names an object, which is registered under the entry point's
        name.
    builtin : str
        Module that registers our own entries, imported before the first look-up: naming a table then loads nothing.

    Examples
    --------
    >>> shapes: Registry[type] = Registry("shape", "example.shapes")
    >>> shapes.add("list", list)
    >>> shapes["list"]
    <class 'list'>
    >>> shapes["lst"]
    Traceback (most recent call last):
    ...
    vico_lens.errors.InputError: unknown shape 'lst': did you mean 'list'? Known: list.
    """

    def __init__(self, noun: str, group: str, builtin: str = "") -> None:
        self.noun = noun
        self.group = group
        self._builtin = builtin
        self._entries: dict[str, T] = {}
        self._loaded = False

    def add(self, name: str, entry: T, *, replace: bool = False) -> None:
        """Register `entry` as `name`; a taken name needs ``replace=True``."""
        self._load_builtin()
        if name in self._entries and not replace:
            raise InputError(f"{self.noun} {name!r} is registered already; pass replace=True to take its place.")
        self._entries[name] = entry

    def register(self, name: str, *, replace: bool = False) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates as `name`."""

        def decorate(entry: T) -> T:
            self.add(name, entry, replace=replace)
            return entry

        return decorate

    def remove(self, name: str) -> None:
        """Forget `name` (tests and notebooks re-register)."""
        self[name]
        del self._entries[name]

    def _load_builtin(self) -> None:
        module, self._builtin = self._builtin, ""
        if module:
            import_module(module)

    def _load(self) -> None:
        self._load_builtin()
        if not self._loaded:
            self._loaded = True
            for point in entry_points(group=self.group):
                if point.name not in self._entries:
                    self._entries[point.name] = point.load()

    def __getitem__(self, name: str) -> T:
        self._load()
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            near = difflib.get_close_matches(str(name), self._entries, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            known = ", ".join(sorted(self._entries)) or "none"
            raise InputError(f"unknown {self.noun} {name!r}:{hint} Known: {known}.") from None

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._load()
        return len(self._entries)
