"""A pretended device: CPU tensors that report another device, and a log of the operations that would fail or wait on a GPU.

A machine without a GPU cannot run code on one, and torch's `FakeTensorMode` has no numbers: the first ``.item()`` ends the run. A
`PretendTensor` has numbers. It wraps a CPU tensor and reports the device ``meta``, the one device that autograd knows in every
build of torch. Each operation on it runs on the wrapped CPU tensor, after a look at where its arguments lie.

>>> with pretend_device() as log:
...     total = to_pretend_device(torch.ones(3)).sum().item()
>>> [(event.kind, event.times) for event in log.events()], total
([('sync', 1)], 3.0)
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["DEVICE", "DeviceEvent", "DeviceLog", "PretendTensor", "move_to_pretend_device", "pretend_device", "to_pretend_device"]

DEVICE = torch.device("meta")
"""The device that pretended tensors report."""

EventKind = Literal["mixed", "numpy", "sync", "down", "up"]

_aten = torch.ops.aten
_MAY_MIX = {
    _aten.copy_.default,
    _aten._to_copy.default,
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
}
_WAITING = {
    _aten._local_scalar_dense.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.equal.default,
    _aten.is_nonzero.default,
}
_THIS_FILE = str(Path(__file__))


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """What happened at one line of the watched package.

    Attributes
    ----------
    kind : str
        ``mixed``: an operation between a pretended and a CPU tensor of at least one dimension, an error on a GPU. ``numpy``: a
        pretended tensor turned into an array, an error on a GPU. ``sync``: a number or a shape read from values, so that a GPU's
        queue is waited for. ``down``: a copy to the CPU. ``up``: a copy from the CPU.
    line : str
        ``file.py:12`` below the watched package, or the innermost line elsewhere in brackets.
    operation : str
        Name of the torch operation.
    times : int
        How often.
    bytes : int
        Bytes copied in all; 0 for events that copy nothing.
    """

    kind: EventKind
    line: str
    operation: str
    times: int
    bytes: int


class DeviceLog:
    """Events of a run by kind, line and operation.

    Parameters
    ----------
    package : str
        Folder name of the package whose lines are reported.
    """

    def __init__(self, package: str) -> None:
        self._folder = f"/{package}/"
        self._times: Counter[tuple[EventKind, str, str]] = Counter()
        self._bytes: Counter[tuple[EventKind, str, str]] = Counter()

    def add(self, kind: EventKind, operation: object, size: int = 0) -> None:
        """Count an event at the line that runs now."""
        key = (kind, self._line(), str(operation).removeprefix("aten."))
        self._times[key] += 1
        self._bytes[key] += size

    def events(self, *kinds: EventKind) -> list[DeviceEvent]:
        """Return the events of these kinds (of all kinds without arguments), most bytes first within a kind."""
        rows = [DeviceEvent(*key, times, self._bytes[key]) for key, times in self._times.items() if not kinds or key[0] in kinds]
        return sorted(rows, key=lambda event: (event.kind, -event.bytes, -event.times, event.line))

    def in_package(self, *kinds: EventKind) -> list[DeviceEvent]:
        """Return the events of these kinds that a line of the watched package caused."""
        return [event for event in self.events(*kinds) if not event.line.startswith("(")]

    def _line(self) -> str:
        frame: FrameType | None = sys._getframe(1)
        outside = ""
        while frame is not None:
            name = frame.f_code.co_filename
            # Modes of the package (such as the interception's) are in the stack of every operation, and cause none of them.
            if name != _THIS_FILE and not frame.f_code.co_name.startswith("__torch_"):
                if self._folder in name:
                    return f"{name.rpartition(self._folder)[2]}:{frame.f_lineno}"
                outside = outside or f"({Path(name).name}:{frame.f_lineno})"
            frame = frame.f_back
        return outside


_log: DeviceLog | None = None


def _note(kind: EventKind, operation: object, tensor: Tensor | None = None) -> None:
    if _log is not None:
        _log.add(kind, operation, 0 if tensor is None else tensor.numel() * tensor.element_size())


class PretendTensor(Tensor):
    """A CPU tensor, `wrapped`, that reports the device `DEVICE`."""

    wrapped: Tensor

    @staticmethod
    def __new__(cls, wrapped: Tensor) -> PretendTensor:  # noqa: D102
        wrapper: PretendTensor = Tensor._make_wrapper_subclass(
            cls,
            wrapped.size(),
            strides=wrapped.stride(),
            storage_offset=wrapped.storage_offset(),
            dtype=wrapped.dtype,
            device=DEVICE,
        )
        wrapper.wrapped = wrapped
        return wrapper

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        return f"PretendTensor({self.wrapped!r})"

    def tolist(self) -> Any:
        """Return the values as Python numbers, which a GPU's queue is waited for."""
        _note("sync", "tolist")
        return self.wrapped.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as a tensor on a GPU does."""
        _note("numpy", "numpy")
        raise TypeError("can't convert a tensor of the pretended device to numpy. Copy it to the CPU first.")

    def __array__(self, dtype: object = None) -> Any:
        return self.numpy()

    # An index that is a list becomes a tensor below every dispatcher; on ``meta`` that one would have no numbers.
    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_with_tensors(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_with_tensors(key), value)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """Catches the operations in which no pretended tensor takes part: factories on `DEVICE`, and copies to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Catches `torch.tensor(.., device=DEVICE)` and `x.new_tensor(..)`, which torch carries out below every dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device).type == DEVICE.type:
            made = func(*args, **{**kwargs, "device": "cpu"})
            _note("up", "torch.tensor", made)
            return made if isinstance(made, PretendTensor) else PretendTensor(made)
        if func is torch.Tensor.new_tensor and isinstance(args[0], PretendTensor) and device is None:
            made = torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs})
            _note("up", "new_tensor", made)
            return PretendTensor(made)
        return func(*args, **kwargs)


def _with_tensors(key: Any) -> Any:
    """Turn the lists of an index into pretended tensors, as torch would copy them to the device."""
    parts = key if isinstance(key, tuple) else (key,)
    if not any(isinstance(part, list) for part in parts):
        return key
    _note("up", "index with a list")
    made = tuple(
        PretendTensor(torch.tensor(part, dtype=None if part else torch.int64)) if isinstance(part, list) else part
        for part in parts
    )
    return made if isinstance(key, tuple) else made[0]


def _check_mixing(func: Any, args: Any, pretended: list[PretendTensor], on_cpu: list[Tensor]) -> None:
    """Note and refuse an operation between devices; note copies that an index causes."""
    if pretended and on_cpu and func not in _MAY_MIX:
        _note("mixed", func)
        raise RuntimeError(f"{func}: expected all tensors to be on one device, but found the pretended device and the CPU.")
    if func is _aten.copy_.default and pretended and on_cpu:
        _note("up" if isinstance(args[0], PretendTensor) else "down", func, args[1])
    if func in (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default) and pretended:
        if not isinstance(args[0], PretendTensor):
            _note("mixed", func)
            raise RuntimeError(f"{func}: expected indices on the device of the indexed tensor, which is the CPU.")
        if any(isinstance(x, Tensor) and x.dtype == torch.bool for x in args[1]):
            _note("sync", "index with a boolean mask")
        if any(isinstance(x, Tensor) and not isinstance(x, PretendTensor) for x in args[1]):
            _note("up", "index with a CPU tensor")


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Carry out one operation on the wrapped tensors, and wrap its results where they would lie on the device."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    pretended = [x for x in tensors if isinstance(x, PretendTensor)]
    if func in _WAITING and pretended:
        _note("sync", func)
    _check_mixing(func, args, pretended, [x for x in tensors if not isinstance(x, PretendTensor) and x.ndim > 0])
    real_args, real_kwargs = tree_map(lambda x: x.wrapped if isinstance(x, PretendTensor) else x, (args, kwargs))
    stays = bool(pretended)
    device = kwargs.get("device")
    if device is not None:
        stays = torch.device(device).type == DEVICE.type
        if func is _aten._to_copy.default and stays and not pretended and tensors[0].ndim > 0:
            _note("up", func, tensors[0])
        elif func is _aten._to_copy.default and not stays and pretended:
            _note("down", func, tensors[0])
        real_kwargs = {**real_kwargs, "device": torch.device("cpu")}
    out = func(*real_args, **real_kwargs)
    if func is _aten.copy_.default:
        return args[0]
    if func is _aten._local_scalar_dense.default or not stays:
        return out
    if args and isinstance(args[0], PretendTensor) and out is args[0].wrapped:  # an operation in place gives its own object back
        return args[0]
    if isinstance(kwargs.get("out"), PretendTensor):
        return kwargs["out"]
    return tree_map(lambda x: PretendTensor(x) if isinstance(x, Tensor) and not isinstance(x, PretendTensor) else x, out)


def to_pretend_device(tensor: Tensor) -> PretendTensor:
    """Return a copy of a CPU tensor on the pretended device, a leaf that requires a gradient if `tensor` does.

    Examples
    --------
    >>> to_pretend_device(torch.zeros(2)).device.type
    'meta'
    """
    made = PretendTensor(tensor.detach().clone())
    return made.requires_grad_(tensor.requires_grad)  # type: ignore[return-value]


def move_to_pretend_device(pipe: Any) -> Any:
    """Put every weight and buffer of a pipeline's modules on the pretended device, in place; returns the pipeline."""
    for part in pipe.components.values():
        for module in part.modules() if isinstance(part, nn.Module) else ():
            for name, weight in list(module._parameters.items()):
                if weight is not None:
                    module._parameters[name] = nn.Parameter(PretendTensor(weight.detach()), requires_grad=False)
            for name, buffer in list(module._buffers.items()):
                if buffer is not None:
                    module._buffers[name] = PretendTensor(buffer)
    return pipe


@contextmanager
def pretend_device(package: str = "vico_lens") -> Iterator[DeviceLog]:
    """Log what happens to pretended tensors inside the ``with``, by the lines of `package`.

    Examples
    --------
    >>> with pretend_device() as log:
    ...     moved = to_pretend_device(torch.ones(2)).to("cpu")
    >>> log.events()[0].kind, moved.device.type
    ('down', 'cpu')
    """
    global _log
    before, _log = _log, DeviceLog(package)
    try:
        with _Operations(), _Literals():
            yield _log
    finally:
        _log = before
