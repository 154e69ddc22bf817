"""Concept dominance: which concept drives the video, which is starved, and whether several runs agree on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vico_lens.errors import AttributionError, InputError

__all__ = ["dominance", "evenness", "gini"]

# Dimensions over which shares are also given one by one, where the influence has them.
_DETAILS = ("frame", "step", "layer")
_RUN = "run"


def evenness(share: xr.DataArray) -> xr.DataArray:
    """Normalised entropy of shares over ``concept``: 1 when all are equal, 0 when one has everything; 1 for a single concept.

    Examples
    --------
    >>> float(evenness(xr.DataArray([0.5, 0.5], dims="concept")))
    1.0
    >>> float(evenness(xr.DataArray([1.0, 0.0], dims="concept")))
    0.0
    """
    count = share.sizes["concept"]
    if count == 1:
        return xr.ones_like(share.isel(concept=0, drop=True))
    safe = share.where(share > 0, 1.0)
    entropy: xr.DataArray = (safe * np.log(1 / safe)).sum("concept")
    normalised: xr.DataArray = (entropy / np.log(count)).where(share.sum("concept") > 0)
    return normalised


def gini(share: xr.DataArray) -> xr.DataArray:
    """Gini coefficient of shares over ``concept``: 0 when all are equal, ``1 - 1/K`` when one of K has everything.

    Examples
    --------
    >>> float(gini(xr.DataArray([1.0, 0.0], dims="concept")))
    0.5
    """
    count = share.sizes["concept"]
    spread = abs(share - share.rename(concept="other")).sum(("concept", "other"))
    result: xr.DataArray = spread / (2 * count * share.sum("concept"))
    return result


def dominance(
    influence: xr.DataArray | Sequence[xr.DataArray],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Say who dominates and who starves: shares, their evenness, and how sure several runs make us.

    Parameters
    ----------
    influence : DataArray or sequence of DataArray
        Influence of concepts from `vico_lens.attribute`, with at least the dimension ``concept``. Several runs (other seeds, or
        prompts with the same concepts), as a sequence or along a dimension ``run``, add intervals and a null. Negative influence
        counts by its size.
    confidence : float
        Level of the bootstrap intervals.
    resamples : int
        Bootstrap resamples, and permutations of the null.
    seed : int
        Seed of both.

    Returns
    -------
    Dataset
        ``influence`` and ``share`` (concept), ``evenness``, ``gini``, ``weakest`` and ``dominant`` (concept names); the same with
        the suffix ``_by_frame``, ``_by_step``, ``_by_layer`` where the influence has these dimensions (NaN and an empty name in a
        frame, step or layer in which no concept has any). With several runs,
        ``share`` is the mean over runs of each run's shares, with ``share_low`` and ``share_high`` (percentile bootstrap over
        runs), ``share_by_run``, and ``p_dominant`` and ``p_weakest``: the probability of a top (bottom) mean share as extreme as
        this when concept labels are shuffled within each run, so that a dominant concept is not read into noise.

    Raises
    ------
    InputError
        If there is no ``concept`` dimension, runs name different concepts, or an option is out of range.
    AttributionError
        If influence is not finite, or nothing in a run has any.

    Examples
    --------
    >>> maps = xr.DataArray([[3.0, 1.0], [1.0, 1.0]], dims=("concept", "frame"), coords={"concept": ["circle", "square"]})
    >>> result = dominance(maps)
    >>> result["share"].values.round(3).tolist()
    [0.667, 0.333]
    >>> str(result["dominant"].item()), result["dominant_by_frame"].values.tolist()
    ('circle', ['circle', 'circle'])
    """
    if not 0.0 < confidence < 1.0 or resamples < 1:
        raise InputError(f"expected 0 < confidence < 1 and resamples >= 1; got {confidence} and {resamples}.")
    runs = _stack(influence)
    if not bool(np.isfinite(runs).all()):
        raise AttributionError(
            "expected finite influence; got NaN or infinity. Check the trace, or choose steps that were captured."
        )
    sizes = abs(runs)
    rest = [dim for dim in sizes.dims if dim not in ("concept", _RUN)]
    totals = sizes.sum(rest)
    if bool((totals.sum("concept") == 0).any()):
        raise AttributionError(
            "expected some influence; every concept has none. The method saw no path from these tokens to the video."
        )
    by_run = totals / totals.sum("concept")
    share = by_run.mean(_RUN)
    result = xr.Dataset({"influence": totals.mean(_RUN), "share": share, **_describe(share)})
    for dim in _DETAILS:
        if dim in rest:
            part = sizes.sum([other for other in rest if other != dim])
            # A frame (step, layer) in which no concept has influence has no shares: NaN, not a tie.
            whole = part.sum("concept")
            detail = (part / whole.where(whole > 0)).mean(_RUN)
            result[f"share_by_{dim}"] = detail
            result = result.assign({f"{name}_by_{dim}": value for name, value in _describe(detail).items()})
    count = runs.sizes[_RUN]
    result.attrs = {
        "method": runs.attrs.get("method", ""),
        "runs": count,
        "signed": int(bool((runs < 0).any())),
        "note": "intervals and p values need several runs"
        if count == 1
        else f"{confidence:.0%} percentile bootstrap over {count} runs",
    }
    if count > 1:
        result["share_by_run"] = by_run.transpose("concept", _RUN)
        result = result.assign(_uncertainty(by_run, confidence, resamples, np.random.default_rng(seed)))
    return result


def _names(influence: object) -> str:
    if isinstance(influence, list | tuple):
        return f"a {type(influence).__name__} of {sorted({type(part).__name__ for part in influence}) or 'nothing'}"
    return type(influence).__name__


def _stack(influence: xr.DataArray | Sequence[xr.DataArray]) -> xr.DataArray:
    """One array with a leading ``run`` dimension."""
    parts = [influence] if isinstance(influence, xr.DataArray) else list(influence)
    if not parts or not all(isinstance(part, xr.DataArray) for part in parts):
        raise InputError(
            f"expected one or more influence DataArrays; got {_names(influence)}. vico_lens.attribute makes one of a trace."
        )
    for part in parts:
        if "concept" not in part.dims or part.sizes["concept"] == 0:
            raise InputError(f"expected influence with a non-empty concept dimension; got dimensions {dict(part.sizes)}.")
    if len({tuple(part.sizes.items()) for part in parts}) > 1:
        raise InputError(
            f"expected runs of one shape; got {[dict(part.sizes) for part in parts]}. Choose steps and grid they share."
        )
    names = {tuple(str(name) for name in part["concept"].values) for part in parts}
    if len(names) > 1:
        raise InputError(f"expected runs with the same concepts; got {sorted(names)}. Rename the concepts to roles they share.")
    bare = [part.reset_coords(drop=True).assign_coords(concept=part["concept"].values) for part in parts]
    if len(bare) == 1 and _RUN in bare[0].dims:
        return bare[0]
    return xr.concat(bare, dim=_RUN, join="override", combine_attrs="override")


def _describe(share: xr.DataArray) -> dict[str, xr.DataArray]:
    """Evenness, Gini, and the names of the weakest and the dominant concept; no name where nothing has influence."""
    named, known = share.fillna(0).assign_coords(concept=share["concept"].astype(str)), share.notnull().any("concept")
    return {
        "evenness": evenness(share),
        "gini": gini(share),
        "weakest": named.idxmin("concept").drop_vars("concept", errors="ignore").astype(str).where(known, ""),
        "dominant": named.idxmax("concept").drop_vars("concept", errors="ignore").astype(str).where(known, ""),
    }


def _uncertainty(by_run: xr.DataArray, confidence: float, resamples: int, generator: np.random.Generator) -> dict[str, Any]:
    """Bootstrap intervals over runs, and the null of concept labels shuffled within each run."""
    shares = by_run.transpose(_RUN, "concept").values
    count = shares.shape[0]
    drawn = shares[generator.integers(0, count, (resamples, count))].mean(1)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    shuffled = generator.permuted(np.broadcast_to(shares, (resamples, *shares.shape)), axis=2).mean(1)
    top, bottom = shares.mean(0).max(), shares.mean(0).min()
    # One is added to both counts: the observed labelling is one of the permutations.
    tolerance = 1e-12
    p_dominant = (1 + int((shuffled.max(1) >= top - tolerance).sum())) / (1 + resamples)
    p_weakest = (1 + int((shuffled.min(1) <= bottom + tolerance).sum())) / (1 + resamples)
    return {
        "share_low": ("concept", low),
        "share_high": ("concept", high),
        "p_dominant": ((), p_dominant),
        "p_weakest": ((), p_weakest),
    }
