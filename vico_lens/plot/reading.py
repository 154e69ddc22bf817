"""What figures read out of their inputs, before anything is drawn: checked maps, shares, intervals.

Kept apart from drawing so that every number in a figure can be asked for, tested and printed without plotly.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vico_lens.errors import InputError

__all__ = [
    "concept_names",
    "influence_maps",
    "pick",
    "resampled",
    "shares_over",
    "site_weights",
    "temporal_group",
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


def pick(
    weights: xr.DataArray, *, step: int | None = None, layer: int | None = None, head: int | None = None, prompt: int = 0
) -> xr.DataArray:
    """Select recorded weights by label without reading them; a branch dim gives its conditional half.

    Raises
    ------
    InputError
        If a label is not recorded; the message lists those that are.
    """
    wanted = {"step": step, "layer": layer, "head": head, "prompt": prompt if "prompt" in weights.dims else None}
    for dim, label in wanted.items():
        if label is None:
            continue
        labels = weights[dim].values.tolist() if dim in weights.dims else []
        if label not in labels:
            raise InputError(f"{dim} {label} is not in this trace; recorded: {labels or 'none'}.")
        weights = weights.isel({dim: labels.index(label)})
    if "branch" in weights.dims:
        branches = [str(branch) for branch in weights["branch"].values]
        weights = weights.isel(branch=branches.index("cond") if "cond" in branches else 0)
    return weights


def site_weights(tree: xr.DataTree, site: str, *, by_token: bool) -> tuple[xr.DataArray, str]:
    """Find one site's weights in a trace, by module path or as ``"kind/grid[/layer]"``; returns them with the site's kind.

    A joint site gives its block over text (``video_text``) or over video (``video_video``).

    Raises
    ------
    InputError
        If there is no such site; the message lists the groups.
    """
    groups = [node.path.strip("/") for node in tree.subtree if "layer" in node.dataset.sizes]
    parts = site.strip("/").split("/")
    for group in groups:
        data = tree[group].dataset
        modules = (
            [str(name) for name in np.atleast_1d(data["module"].values)] if "module" in data.coords or "module" in data else []
        )
        layer = modules.index(site) if site in modules else None
        if layer is None and "/".join(parts[:2]) == group and len(parts) <= 3:
            text = parts[2] if len(parts) == 3 else "0"
            if not text.isdecimal() or int(text) >= data.sizes["layer"]:
                raise InputError(f"group {group!r} has the layers 0 to {data.sizes['layer'] - 1}, got {text!r}.")
            layer = int(text)
        if layer is None:
            continue
        kind = group.split("/")[0]
        name = ("video_text" if by_token else "video_video") if kind == "joint" else "weights"
        if name not in data:
            raise InputError(f"{group!r} holds {sorted(map(str, data.data_vars))}; {name!r} was not recorded.")
        return data[name].isel(layer=layer), kind
    raise InputError(
        f"no site {site!r} in this trace; give a module path, or one of: {', '.join(sorted(groups)) or 'none recorded'}."
    )


def temporal_group(tree: xr.DataTree) -> xr.DataArray:
    """Return the weights of the finest group that connects frames: temporal, else space-time, else joint over video."""
    for kind, name in (("temporal", "weights"), ("spacetime", "weights"), ("joint", "video_video")):
        nodes = [node for node in tree.subtree if node.path.strip("/").split("/")[0] == kind and name in node.dataset]
        if nodes:
            return max(nodes, key=lambda node: int(np.prod([node.dataset.sizes[dim] for dim in ("frame", "y", "x")]))).dataset[
                name
            ]
    raise InputError(
        "this trace holds no site that connects frames (temporal, spacetime or joint); capture them with Capture(kinds=None)."
    )
