"""How loops are compiled and spread over threads: one place, so that every kernel has the same floating-point rules.

Only modules named ``*_loops.py`` import this one at their top, and they are imported at first use: `import vico_lens` never
pays for numba. No ``fastmath``: a sum in the order of its index is part of the definitions, and an infinity is a value.
Gradients alone may be summed in another order, which lets a reduction use vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar, cast

import numba
import torch

__all__ = ["compiled", "compiled_any_order", "over_threads"]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile `function` to machine code at its first call, cached on disk, without the interpreter lock."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def compiled_any_order(function: Function) -> Function:
    """As `compiled`, and the terms of a sum may be added in any order."""
    free = {"reassoc", "nsz", "contract"}
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=free)(function))


def over_threads(task: Callable[[slice], None], count: int, least: int = 1) -> None:
    """Run `task` on slices that cover ``range(count)``, in as many threads as torch is allowed to use.

    `task` must release the interpreter lock to gain anything. Slices are no shorter than `least`: small work stays in one.
    """
    threads = max(1, min(torch.get_num_threads(), count // max(1, least)))
    if threads == 1:
        task(slice(0, count))
        return
    edges = [count * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(task, [slice(low, high) for low, high in pairwise(edges)]))
