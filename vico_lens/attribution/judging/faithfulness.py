"""Faithfulness: whether influence predicts what happens when words are taken away, and lies where the object is.

Every score has a null to stand beside: `null_influences` gives three influences that know nothing of the model. Scores that ask
the model go through `TokenSwitch`, which turns single text states on and off in one replayed denoiser call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from vico_lens.attribution.methods.captum_methods import PromptEffect
from vico_lens.errors import InputError
from vico_lens.kernels.resampling import resample_axes

__all__ = [
    "NULLS",
    "TokenSwitch",
    "concept_shares",
    "infidelity",
    "localisation",
    "null_influences",
    "removal_curves",
    "settled",
    "spearman",
    "summarise",
]

NULLS = ("uniform", "position", "random")

_PLACES = ("frame", "y", "x")


def spearman(first: Any, second: Any) -> float:
    """Rank correlation of two equally long sequences, ties sharing their mean rank; 0 where one is constant and so ranks nothing.

    Examples
    --------
    >>> spearman([1, 2, 3], [10, 20, 15])
    0.5
    >>> spearman([1, 1, 1], [1, 2, 3])
    0.0
    """
    ranks = [_ranks(np.asarray(values, dtype=np.float64).ravel()) for values in (first, second)]
    if ranks[0].size != ranks[1].size or ranks[0].size < 2:
        raise InputError(f"expected two sequences of one length, at least 2; got {ranks[0].size} and {ranks[1].size}.")
    centred = [rank - rank.mean() for rank in ranks]
    size = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / size) if size > 0 else 0.0


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return ((2 * last - count - 1) / 2.0)[place]


def settled(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values relative to the largest, to nine decimals: what differs by the rounding of a solver alone must not be ranked.

    Examples
    --------
    >>> settled(np.array([2.0, 1.0, 1.0 + 1e-12])).tolist()
    [1.0, 0.5, 0.5]
    """
    largest = np.abs(values).max(initial=0.0)
    return np.round(values / largest, 9) if largest > 0 else values


def concept_shares(influence: xr.DataArray) -> xr.DataArray:
    """Share of each concept in the influence of each step (and run), sizes without sign: ``[concept, step]`` if it has steps.

    Examples
    --------
    >>> maps = xr.DataArray([[3.0, 1.0], [1.0, -1.0]], dims=("concept", "step"))
    >>> concept_shares(maps).values.tolist()
    [[0.75, 0.5], [0.25, 0.5]]
    """
    totals = abs(influence).sum([dim for dim in influence.dims if dim in (*_PLACES, "sink")])
    whole = totals.sum("concept")
    return (totals / whole.where(whole > 0)).fillna(1 / influence.sizes["concept"])


def null_influences(like: xr.DataArray, tokens: Sequence[Sequence[int]], seed: int = 0) -> dict[str, xr.DataArray]:
    """Influences that know nothing of the model, in the shape of `like`: uniform, by token position, and random.

    Parameters
    ----------
    like : DataArray
        Any influence, for its dimensions.
    tokens : sequence of sequence of int
        Tokens of each concept: ``position`` says that earlier words matter more.
    seed : int
        Of the random one.

    Examples
    --------
    >>> like = xr.DataArray(np.zeros((2, 1, 2, 2)), dims=("concept", "frame", "y", "x"))
    >>> nulls = null_influences(like, [[1], [5, 6]])
    >>> sorted(nulls), nulls["uniform"].shape
    (['position', 'random', 'uniform'], (2, 1, 2, 2))
    """
    early = xr.DataArray([1.0 / (1 + min(span)) for span in tokens], dims="concept", coords={"concept": like["concept"]})
    ones = xr.ones_like(like, dtype=np.float64).reset_coords(drop=True)
    noise = ones.copy(data=np.random.default_rng(seed).random(like.shape))
    return {"uniform": ones, "position": ones * early, "random": noise}


def localisation(influence: xr.DataArray, masks: Any) -> xr.Dataset:
    """Does influence lie on the object? Intersection over union at the object's own area, and the pointing game.

    Parameters
    ----------
    influence : DataArray
        Dimensions ``concept``, ``frame``, ``y``, ``x``, and ``step`` if any.
    masks : array
        True masks ``[concept, frame, row, column]``, boolean or coverage in 0..1, at any resolution.

    Returns
    -------
    Dataset
        ``iou`` and ``pointing`` (1 if the largest influence of a frame lies on the object; of equal ones, the part that does),
        means over frames in which the object is there, with dimension ``concept`` and ``step`` if any. Equal influence everywhere
        gets what a random choice would get on average, not what the order of places would give.

    Raises
    ------
    InputError
        If influence has no map, or the masks do not fit its concepts and frames.

    Examples
    --------
    >>> maps = xr.DataArray([[[[1.0, 0.0], [0.0, 0.0]]]], dims=("concept", "frame", "y", "x"))
    >>> scores = localisation(maps, [[[[True, False], [False, False]]]])
    >>> float(scores.iou.mean()), float(scores.pointing.mean())
    (1.0, 1.0)
    """
    missing = {"concept", *_PLACES} - set(influence.dims)
    if missing:
        raise InputError(f"expected influence with a map (frame, y, x) for each concept; {sorted(missing)} is missing.")
    values = torch.as_tensor(np.array(getattr(masks, "values", masks)), dtype=torch.float64)
    if values.ndim != 4 or values.shape[0] != influence.sizes["concept"] or values.shape[1] % influence.sizes["frame"]:
        raise InputError(
            f"masks: expected [concept, frame, row, column] for {influence.sizes['concept']} concepts and a multiple of "
            f"{influence.sizes['frame']} frames; got shape {tuple(values.shape)}."
        )
    grid = [influence.sizes[dim] for dim in _PLACES]
    true = (resample_axes(values, [1, 2, 3], grid, "mean") >= 0.5).flatten(2).numpy()
    maps = influence.transpose(..., "concept", *_PLACES)
    flat = settled(maps.values).reshape(*maps.shape[:-3], grid[0], -1)
    area = true.sum(-1)
    # The object's area is taken in order of influence; places of equal influence share what is left for them.
    least = np.take_along_axis(-np.sort(-flat, axis=-1), np.broadcast_to(np.maximum(area - 1, 0), flat.shape[:-1])[..., None], -1)
    above, level = flat > least, flat == least
    chosen = above + level * (area[..., None] - above.sum(-1, keepdims=True)) / level.sum(-1, keepdims=True)
    hit = (chosen * true).sum(-1)
    there = area > 0
    iou = np.where(there, hit / np.maximum(2 * area - hit, 1), np.nan)
    top = flat == flat.max(-1, keepdims=True)
    pointing = np.where(there, (top & true).sum(-1) / top.sum(-1), np.nan)
    dims = maps.dims[:-2]
    result = xr.Dataset(
        {"iou": (dims, iou), "pointing": (dims, pointing.astype(float))}, coords={"concept": influence["concept"].values}
    )
    return result.mean("frame")


class TokenSwitch:
    """The prompt's effect as a function of which text states are the prompt's own: ``switch(z [batch, token]) -> [batch]``.

    A token switched to 1 has the traced prompt's state, at 0 that of the empty prompt; all others keep the prompt's.

    Parameters
    ----------
    effect : PromptEffect
        With a single target.
    text, null : Tensor
        States of the prompt and of the empty prompt, ``[token, channel]``.
    tokens : sequence of int
        The tokens that can be switched.

    Examples
    --------
    >>> def effect(text, *rest):
    ...     return text.sum((1, 2))[:, None]
    >>> switch = TokenSwitch(effect, torch.ones(3, 2), torch.zeros(3, 2), tokens=[0, 2])
    >>> switch(torch.tensor([[1.0, 1.0], [0.0, 1.0]])).tolist()
    [6.0, 4.0]
    """

    def __init__(self, effect: PromptEffect, text: Tensor, null: Tensor, tokens: Sequence[int]) -> None:
        self.effect, self.text, self.null, self.tokens = effect, text, null, list(tokens)

    def __call__(self, switches: Tensor) -> Tensor:
        """Score each row of switches."""
        mixed = self.text.repeat(len(switches), 1, 1)
        own, empty = self.text[self.tokens], self.null[self.tokens]
        mixed[:, self.tokens] = empty + switches[..., None].to(own) * (own - empty)
        return self.effect(mixed)[:, 0]


def removal_curves(
    switch: Callable[[Tensor], Tensor], influence: Sequence[float], *, orders: int = 5, seed: int = 0
) -> dict[str, np.ndarray[Any, Any]]:
    """Prompt's effect while tokens are taken away, and put in, from the most influential one on.

    Parameters
    ----------
    switch : callable
        ``switch(z [batch, token]) -> [batch]``, such as a `TokenSwitch`.
    influence : sequence of float
        Influence of each token; its size counts, not its sign.
    orders : int
        Tokens of equal influence are put in a random order, and curves are the mean over so many; by position, a method that says
        nothing would be scored as one that says "earlier words matter more". Without ties there is one order, asked once.
    seed : int
        Of these orders.

    Returns
    -------
    dict
        ``deletion`` and ``insertion``, each one longer than there are tokens. The mean of a curve is its area: low for a faithful
        deletion, high for a faithful insertion.

    Raises
    ------
    InputError
        If no order is asked for.

    Examples
    --------
    >>> def switch(z):
    ...     return z @ torch.tensor([3.0, 1.0, 0.0], dtype=z.dtype)
    >>> curves = removal_curves(switch, [3.0, 1.0, 0.0])
    >>> curves["deletion"].round(2).tolist()
    [4.0, 1.0, 0.0, 0.0]
    """
    if orders < 1:
        raise InputError(f"expected at least one order of the tokens, got orders={orders}.")
    sizes, generator = settled(np.abs(np.asarray(influence, dtype=np.float64))), np.random.default_rng(seed)
    drawn = [np.lexsort((generator.random(sizes.size), -sizes)) for _ in range(orders)]
    found, times = np.unique(drawn, axis=0, return_counts=True)
    curves = []
    for order in found:
        ranks = torch.from_numpy(np.argsort(order))
        there = (ranks >= torch.arange(sizes.size + 1)[:, None]).float()  # [taken away, token]
        curves.append([switch(there).double().numpy(), switch(1 - there).double().numpy()])
    deletion, insertion = np.average(curves, axis=0, weights=times)
    return {"deletion": deletion, "insertion": insertion}


def infidelity(switch: Callable[[Tensor], Tensor], influence: Sequence[float], *, samples: int = 32, seed: int = 0) -> float:
    """Expected squared error of predicting from influence what is lost when random tokens are taken away (arXiv 1901.09392).

    Influence is scaled to fit best, so that methods in different units compare; 0 is perfect.

    Examples
    --------
    >>> def switch(z):
    ...     return z @ torch.tensor([3.0, 1.0, 0.0], dtype=z.dtype)
    >>> exact, wrong = (infidelity(switch, scores) for scores in ([3.0, 1.0, 0.0], [0.0, 1.0, 3.0]))
    >>> round(exact, 6), wrong > exact
    (0.0, True)
    """
    from captum.metrics import infidelity as captum_infidelity

    count = len(influence)
    generator = torch.Generator().manual_seed(seed)

    def take_away(whole: Tensor) -> tuple[Tensor, Tensor]:
        away = (torch.rand(whole.shape, generator=generator) < 0.5).to(whole)
        return away, whole - away

    attributions = torch.as_tensor(np.asarray(influence, dtype=np.float32))[None]
    score = captum_infidelity(switch, take_away, torch.ones(1, count), attributions, n_perturb_samples=samples, normalize=True)
    return float(score[0])


def summarise(tables: Sequence[xr.Dataset], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> xr.Dataset:
    """Mean of every score over several comparisons (prompts, seeds), with a bootstrap interval over them.

    Parameters
    ----------
    tables : sequence of Dataset
        From `vico_lens.compare`, of the same methods.

    Returns
    -------
    Dataset
        Each numeric variable over ``method`` alone: its mean, and the same with ``_low`` and ``_high``; ``comparisons`` counts
        them.

    Examples
    --------
    >>> tables = [xr.Dataset({"iou": ("method", [value])}, {"method": ["rollout"]}) for value in (0.2, 0.4, 0.6)]
    >>> summary = summarise(tables)
    >>> sorted(map(str, summary.data_vars))
    ['iou', 'iou_high', 'iou_low']
    """
    if not tables or len({tuple(table["method"].values) for table in tables}) > 1:
        raise InputError("expected one or more comparisons of the same methods; got none, or of different ones.")
    generator = np.random.default_rng(seed)
    result = xr.Dataset(
        coords={"method": tables[0]["method"].values}, attrs={"comparisons": len(tables), "confidence": confidence}
    )
    chosen = [name for name, values in tables[0].data_vars.items() if values.dims == ("method",) and values.dtype.kind == "f"]
    for name in chosen:
        values = np.stack([table[name].values for table in tables])
        drawn = values[generator.integers(0, len(values), (resamples, len(values)))].mean(1)
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        result[name] = ("method", values.mean(0))
        result[f"{name}_low"], result[f"{name}_high"] = ("method", low), ("method", high)
    return result
