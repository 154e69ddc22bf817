"""What the numbers of a figure rest on, in one sentence: method, denoising steps, branch, and what a share is of.

Figures, report, dashboards and command line all take the sentence from here, so that one number has one meaning everywhere.
"""

from __future__ import annotations

import json

import xarray as xr

__all__ = ["SHARE", "basis_of", "method_label"]

SHARE = "A share is a concept's part of the influence of all concepts shown; other words of the prompt take no part."
"""What a share is of."""


def method_label(influence: xr.DataArray | xr.Dataset) -> str:
    """Name the attribution method in words, from the attributes; empty when it is not known."""
    return str(influence.attrs.get("method", getattr(influence, "name", "") or "")).replace("_", " ")


def basis_of(influence: xr.DataArray | xr.Dataset, step: int | None = None, *, method: bool = True) -> str:
    """Say by which method, over which denoising steps and in which branch an influence was computed.

    Parameters
    ----------
    influence : DataArray or Dataset
        What `vico_lens.attribute` returned; or shares of it, with this sentence in the attribute ``basis``.
    step : int, optional
        The one step that a figure shows of it.
    method : bool
        Whether to name the method.

    Examples
    --------
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> basis_of(attribute(fake_trace(), "rollout", ["red circle"]))
    'By rollout, over 2 denoising steps (0 to 1), conditional branch.'
    """
    if "basis" in influence.attrs:
        return str(influence.attrs["basis"])
    label = method_label(influence)
    known = bool(influence.attrs.get("method"))
    parts = [f"by {label}" if label and method else "", _steps(influence, step), _branch(influence) if known else ""]
    sentence = ", ".join(part for part in parts if part)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def _steps(influence: xr.DataArray | xr.Dataset, step: int | None) -> str:
    if step is not None:
        return f"denoising step {step} only"
    if "step" not in influence.coords and "step" not in influence.dims:
        return ""
    labels = influence["step"].values.ravel().tolist()
    if len(labels) == 1:
        return f"denoising step {labels[0]} only"
    return f"over {len(labels)} denoising steps ({labels[0]} to {labels[-1]})"


def _branch(influence: xr.DataArray | xr.Dataset) -> str:
    try:
        branch = json.loads(str(influence.attrs.get("settings", "{}"))).get("branch")
    except (ValueError, AttributeError):
        branch = None
    return "unconditional branch" if branch == "uncond" else "conditional branch"
