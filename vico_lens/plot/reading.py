"""What figures read out of their inputs, before anything is drawn: checked maps, shares, intervals.

Kept apart from drawing so that every number in a figure can be asked for, tested and printed without plotly.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vico_lens.errors import InputError
from vico_lens.store.selection import Record, records

__all__ = [
    "concept_names",
    "influence_maps",
    "resampled",
    "shares_over",
    "site_weights",
]

_DIMS = ("concept", "step", "frame", "y", "x")


def influence_maps(influence: xr.DataArray, step: int | None = None) -> xr.DataArray:
    """Check an influence and reduce it to one map a frame.

    Parameters
    ----------
    influence : DataArray, dims ``concept [step] frame y x``
    step : int, optional
        Denoising step to look at, by its label; the mean over steps when None.

    Returns
    -------
    DataArray of float64, dims ``concept frame y x``

    Raises
    ------
    InputError
        If a dim is missing or unknown, the array is empty, a value is not finite, or `step` is not in it.
    """
    dims = tuple(str(dim) for dim in getattr(influence, "dims", ()))
    missing, unknown = set(_DIMS) - {"step"} - set(dims), set(dims) - set(_DIMS)
    if not isinstance(influence, xr.DataArray) or missing or unknown or "concept" not in influence.coords:
        came = f"dims {dims}" if isinstance(influence, xr.DataArray) else type(influence).__name__
        raise InputError(
            "expected an influence with the dims (concept, [step], frame, y, x) and named concepts, "
            f"got {came}; select or reduce the others first."
        )
    if influence.size == 0:
        raise InputError(f"expected an influence with values, got sizes {dict(influence.sizes)}.")
    values = influence.astype(np.float64)
    if not bool(np.isfinite(values).all()):
        raise InputError(
            "expected finite influence values, got NaN or infinity; "
            "a run that was cut short may hold empty steps: select the written ones."
        )
    if "step" in dims:
        if step is not None and step not in values["step"].values:
            raise InputError(f"step {step} is not in this influence; it has {values['step'].values.tolist()}.")
        values = values.mean("step", keep_attrs=True) if step is None else values.sel(step=step, drop=True)
    elif step is not None:
        raise InputError("this influence is summed up over steps already; attribute with steps kept to look at one.")
    return values.transpose("concept", "frame", "y", "x")


def concept_names(data: xr.DataArray | xr.Dataset) -> list[str]:
    """Return the concepts' names in order."""
    return [str(name) for name in np.atleast_1d(data["concept"].values)]


def shares_over(influence: xr.DataArray, keep: tuple[str, ...] = ()) -> xr.DataArray:
    """Return each concept's part of the total absolute influence, dims ``concept`` and those kept.

    Absolute, because gradient methods give signed values and a strong negative influence is influence. Where nothing
    arrives at all the parts are NaN: no concept takes anything of nothing.
    """
    lost = [dim for dim in influence.dims if dim != "concept" and dim not in keep]
    mass: xr.DataArray = abs(influence.astype(np.float64)).sum(lost)
    total = mass.sum("concept")
    return mass / total.where(total > 0)


def resampled(mass: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap shares: `mass` is ``concept unit``; units are drawn with replacement, shares ``draw concept`` come back."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, mass.shape[1], size=(draws, mass.shape[1]))
    sums = mass[:, picks].sum(axis=2).T
    return np.asarray(sums / sums.sum(axis=1, keepdims=True))


def site_weights(tree: xr.DataTree, site: str, *, by_token: bool) -> tuple[Record, str]:
    """Find one site of a trace, by module path or as ``"kind/grid[/layer]"``, and the variable that holds its weights.

    Of a joint site that is its block over text (``video_text``) or over video (``video_video``).

    Raises
    ------
    InputError
        If there is no such site; the message lists the groups.
    """
    sites = records(tree)
    name = site.strip("/")
    group, _, layer = name.rpartition("/") if name.count("/") > 1 else (name, "", "0")
    for record in sites:
        if record.module == site or (record.group == group and str(record.layer) == layer):
            if record.kind != "joint":
                return record, "weights"
            return record, "video_text" if by_token else "video_video"
    layers = [record.layer for record in sites if record.group == group]
    if layers:
        raise InputError(f"group {group!r} has the layers 0 to {max(layers)}, got {layer!r}.")
    groups = ", ".join(sorted({record.group for record in sites}))
    raise InputError(f"no site {site!r} in this trace; give a module path, or one of: {groups}.")
