"""Intervals for rates and means, so that no figure shows a number without how sure it is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from vico_lens.errors import InputError

__all__ = ["bootstrap_mean", "wilson"]


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval of a rate (Wilson 1927); it stays within 0 and 1 and holds its level in small samples.

    Parameters
    ----------
    successes, trials : int
        Counts, ``0 <= successes <= trials``.
    z : float
        Normal quantile; 1.96 for 95 %.

    Raises
    ------
    InputError
        If the counts are impossible.

    Examples
    --------
    >>> low, high = wilson(46, 48)
    >>> round(low, 3), round(high, 3)
    (0.86, 0.988)
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(f"expected 0 <= successes <= trials and at least one trial, got {successes} of {trials}.")
    rate, part = successes / trials, z * z / trials
    centre = (rate + part / 2) / (1 + part)
    half = z / (1 + part) * math.sqrt(rate * (1 - rate) / trials + part / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_mean(values: ArrayLike, *, confidence: float = 0.95, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean; NaN for fewer than two values.

    Parameters
    ----------
    values : array
        Independent measurements; NaN are left out.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    sample = sample[np.isfinite(sample)]
    if sample.size < 2:
        return math.nan, math.nan
    picks = np.random.default_rng(seed).integers(0, sample.size, size=(draws, sample.size))
    low, high = np.quantile(sample[picks].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
