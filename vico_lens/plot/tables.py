"""Method against method in numbers: how far they agree, how faithful they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.colours import ACCENT, alpha_scale
from vico_lens.plot.theme import Theme, finish, new_figure
from vico_lens.plot.wording import join, number, plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["agreement", "agreement_numbers", "faithfulness", "faithfulness_numbers"]


def agreement_numbers(comparison: xr.Dataset | xr.DataArray, value: str = "agreement") -> xr.DataArray:
    """Return the square table of agreement between methods, dims ``method other``; other dims are averaged.

    Parameters
    ----------
    comparison : Dataset or DataArray
        What `vico_lens.compare` returns, or a square table of its own: one dim ``method`` and one dim of as many methods.
    value : str
        Variable of the Dataset.

    Raises
    ------
    InputError
        If there is no such table.

    Examples
    --------
    >>> from vico_lens import compare
    >>> from vico_lens.testing.traces import fake_trace
    >>> comparison = compare(fake_trace(), ["cross_attention", "rollout"])
    >>> agreement_numbers(comparison).shape
    (2, 2)
    """
    if isinstance(comparison, xr.Dataset):
        if value not in comparison:
            raise InputError(f"expected the variable {value!r}, got {sorted(map(str, comparison.data_vars))}.")
        comparison = comparison[value]
    other = [str(dim) for dim in comparison.dims if "method" in str(dim) and dim != "method"]
    if "method" not in comparison.dims or len(other) != 1 or comparison.sizes["method"] != comparison.sizes[other[0]]:
        raise InputError(
            f"expected a square table of methods (dims method and other_method), got the sizes {dict(comparison.sizes)}."
        )
    rest = [dim for dim in comparison.dims if dim not in ("method", other[0])]
    return comparison.mean(rest).rename({other[0]: "other"}).transpose("method", "other")


def agreement(
    comparison: xr.Dataset | xr.DataArray, value: str = "agreement", *, measure: str = "rank correlation", theme: Theme = "light"
) -> Figure:
    """Draw how far each pair of methods agrees.

    Parameters
    ----------
    comparison, value : see `agreement_numbers`
    measure : str
        What the numbers are, for the title.
    theme : {"light", "dark"}

    Examples
    --------
    >>> from vico_lens import compare
    >>> from vico_lens.testing.traces import fake_trace
    >>> comparison = compare(fake_trace(), ["cross_attention", "rollout"])
    >>> type(agreement(comparison)).__name__
    'Figure'
    """
    table = agreement_numbers(comparison, value)
    names = [plain(str(name).replace("_", " ")) for name in table["method"].values]
    values = table.values.astype(np.float64)
    fig = new_figure(theme)
    fig.add_heatmap(
        z=np.round(values, 4),
        x=names,
        y=names,
        zmin=min(0.0, float(np.nanmin(values))),
        zmax=1,
        colorscale=alpha_scale(ACCENT, 0.7),
        showscale=False,
        xgap=2,
        ygap=2,
        text=[[f"{cell:.2f}" if np.isfinite(cell) else "–" for cell in line] for line in values],
        texttemplate="%{text}",
        textfont_size=13,
        hovertemplate="%{y} and %{x}: %{text}<extra></extra>",
    )
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_xaxes(showgrid=False, side="bottom", tickangle=-30 if len(names) > 3 else 0)
    pairs = [(values[i, j], i, j) for i in range(len(names)) for j in range(i) if np.isfinite(values[i, j])]
    if pairs:
        best, worst = max(pairs), min(pairs)
        alone = [sum(round(pair[0], 2) == round(end[0], 2) for pair in pairs) == 1 for end in (best, worst)]
        most = f"{names[best[2]]} and {names[best[1]]} agree most" if alone[0] else "The highest agreement of two methods is"
        least = f"{names[worst[2]]} and {names[worst[1]]} least" if alone[1] else "the lowest is"
        if len(pairs) == 1:
            finding = f"{names[best[2]]} and {names[best[1]]} agree by {best[0]:.2f}"
        elif round(best[0], 2) == round(worst[0], 2):
            finding = f"All methods agree alike ({best[0]:.2f})"
        else:
            finding = f"{most} ({best[0]:.2f}), {least} ({worst[0]:.2f})"
    else:
        finding = "Agreement between methods"
    return finish(
        fig,
        finding[0].upper() + finding[1:],
        f"{measure[0].upper()}{measure[1:]}; 1 = the same picture.",
        theme=theme,
        height=70 + 54 * len(names),
    )


_NOT_SCORES = ("agreement", "share")
_NULLS = ("uniform", "position", "random")  # influences that know nothing of the model, as vico_lens.compare adds them
_LOWER = ("deletion", "infidelity", "seconds", "sensitivity", "shuffled_weights")


def faithfulness_numbers(table: xr.Dataset) -> xr.Dataset:
    """Return the scores by method: every numeric variable over ``method``, other dims averaged.

    Parameters
    ----------
    table : Dataset
        What `vico_lens.compare` returns with a pipeline or masks, or scores of one's own. ``agreement`` and ``share`` are no
        scores and left out, and so are columns without any number.

    Raises
    ------
    InputError
        If no variable is a score.

    Examples
    --------
    >>> import xarray as xr
    >>> table = xr.Dataset({"rank_correlation": ("method", [0.6, 0.1])}, {"method": ["rollout", "random"]})
    >>> list(faithfulness_numbers(table).data_vars)
    ['rank_correlation']
    """
    scores = {}
    for name, values in table.data_vars.items():
        lone = sum("method" in str(dim) for dim in values.dims) == 1 and "method" in values.dims
        if lone and name not in _NOT_SCORES and np.issubdtype(values.dtype, np.number):
            score = values.astype(np.float64).mean([dim for dim in values.dims if dim != "method"])
            if bool(np.isfinite(score).any()):
                scores[str(name)] = score
    if not scores:
        raise InputError(
            f"expected scores over the dim method, got {sorted(map(str, table.data_vars))} over {dict(table.sizes)}."
        )
    return xr.Dataset(scores)


def faithfulness(table: xr.Dataset, *, lower_is_better: tuple[str, ...] = _LOWER, theme: Theme = "light") -> Figure:
    """Draw the faithfulness scores of the methods as a table; in each column, the better the cell the stronger its tint.

    Parameters
    ----------
    table : Dataset
        Scores over ``method``; see `faithfulness_numbers`. The nulls ``uniform``, ``position`` and ``random`` are shown, not
        ranked.
    lower_is_better : tuple of str
        Beginnings of the names of scores where small is good.
    theme : {"light", "dark"}

    Examples
    --------
    >>> import xarray as xr
    >>> table = xr.Dataset({"rank_correlation": ("method", [0.6, 0.1])}, {"method": ["rollout", "random"]})
    >>> type(faithfulness(table)).__name__
    'Figure'
    """
    scores = faithfulness_numbers(table)
    raw = [str(name) for name in scores["method"].values]
    methods, columns = [plain(name.replace("_", " ")) for name in raw], list(map(str, scores.data_vars))
    values = np.stack([scores[name].values for name in columns], axis=1)
    falling = np.array([name.startswith(lower_is_better) for name in columns])
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    tint = np.divide(values - low, high - low, out=np.full_like(values, 0.5), where=high > low)
    tint[:, falling] = 1 - tint[:, falling]
    better = ["lower is better" if down else "higher is better" for down in falling]
    heads = [f"{plain(name.replace('_', ' '))}<br>{side}" for name, side in zip(columns, better, strict=True)]
    fig = new_figure(theme)
    fig.add_heatmap(
        z=np.round(np.nan_to_num(tint), 4),
        x=heads,
        y=methods,
        zmin=-0.15,
        zmax=1.6,
        colorscale=alpha_scale(ACCENT),
        showscale=False,
        xgap=3,
        ygap=3,
        text=[[number(float(cell)) if np.isfinite(cell) else "–" for cell in line] for line in values],
        texttemplate="%{text}",
        textfont_size=14,
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    fig.update_yaxes(autorange="reversed", showgrid=False, tickfont_size=13)
    fig.update_xaxes(showgrid=False, side="top")
    ranked = [i for i, name in enumerate(raw) if name not in _NULLS and np.isfinite(values[i]).any()]
    means = {i: float(np.nanmean(np.where(np.isfinite(values[i]), tint[i], np.nan))) for i in ranked}
    best = [methods[i] for i in ranked if means[i] >= max(means.values()) - 0.005]
    over = f", on average over {len(columns)} scores" if len(columns) > 1 else ""
    finding = f"{join(best)} {'score' if len(best) > 1 else 'scores'} best{over}" if best else "Faithfulness of the methods"
    finding = finding[0].upper() + finding[1:]
    nulls = [name for name in raw if name in _NULLS]
    note = "Tint: place between the worst and the best of the column." + (
        f" {join(nulls).capitalize()} know nothing of the model." if nulls else ""
    )
    return finish(fig, finding, note, theme=theme, height=60 + 42 * len(methods), top=40)
