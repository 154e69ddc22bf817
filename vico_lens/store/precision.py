"""Numbers as they are stored: float32, or float16 with its range rescued by a power of two.

bfloat16 has no common type outside torch, and float16 has three more bits of fraction but ends at 65504. A tensor that would
leave the range of float16 is multiplied by a power of two before it is narrowed, and the power is kept beside it: exact for every
bfloat16 value that is not 2**20 times smaller than the largest of its call.
"""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from vico_lens.vocabulary.schema import Precision

__all__ = ["PRECISIONS", "narrow", "stored_dtype"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_LARGE, _SMALL = 2.0**15, 2.0**-4


def stored_dtype(precision: Precision, model: torch.dtype) -> torch.dtype:
    """Return the dtype in which values of a model's dtype are kept.

    >>> stored_dtype("model", torch.bfloat16)
    torch.float16
    """
    if precision == "model":
        return torch.float16 if model in (torch.float16, torch.bfloat16) else torch.float32
    return torch.float16 if precision == "float16" else torch.float32


def narrow(values: Tensor, dtype: torch.dtype) -> tuple[np.ndarray, float]:
    """Copy `values` to an array of `dtype` in main memory; return it with the factor that gives the values back.

    Examples
    --------
    >>> narrow(torch.tensor([1e5, 3.0], dtype=torch.bfloat16), torch.float16)
    (array([2.496e+04, 7.500e-01], dtype=float16), 4.0)
    """
    values = values.detach()
    factor = 1.0
    if dtype == torch.float16 and values.dtype != torch.float16 and values.numel():
        low, high = torch.aminmax(values)  # one pass and no copy, unlike the maximum of the absolute values
        largest = max(-float(low), float(high))
        if math.isfinite(largest) and largest > 0 and not _SMALL <= largest <= _LARGE:
            factor = 2.0 ** (math.frexp(largest)[1] - 15)
            values = values.float() / factor
    copy = torch.empty(values.shape, dtype=dtype, device="cpu")
    copy.copy_(values)
    return copy.numpy(), factor
