"""Did balancing help, what did it cost, did it do harm: one dataset about a plain and a balanced call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vico_lens.balancing.balance import Balance
from vico_lens.balancing.quality import clipped, distance, flicker, sharpness
from vico_lens.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["balance_report", "report_summary", "report_table"]

RUNS = ["plain", "balanced"]


def balance_report(plain: Any, balanced: Balance) -> xr.Dataset:
    """Compare a plain with a balanced call of the same prompt and seed.

    Parameters
    ----------
    plain : Balance or frames
        The plain call: its frames; or, to have its influences too, the session ``with balance(pipe, concepts, preset="observe")``
        in which it ran. That session costs one denoiser forward a step, which is not counted as the plain call's.
    balanced : Balance
        The session of the balanced call.

    Returns
    -------
    Dataset
        Over ``run`` (plain, balanced) and ``concept``: ``share (run, concept)``, the mean over denoising steps of each concept's
        share of the influence before that step's update, and its ``evenness (run)`` (1: all equal, 0: one has all), over the
        steps that both logs have; NaN for a plain call given as frames. ``sharpness, flicker, clipped (run)`` and ``distance``
        (root mean square between the two videos), in units of full range, see `vico_lens.balancing.quality`. ``forwards (run)``,
        denoiser forwards of one row, a backward pass counted as one; ``seconds (run)``, and the ratios ``cost_ratio`` and
        ``time_ratio``. ``stops (reason)``, how many steps ended for which reason.

    Raises
    ------
    InputError
        If `balanced` is no session, or the videos differ in shape.
    BalanceError
        If a session generated no video.
    """
    import numpy as np
    import xarray as xr

    from vico_lens.dominance import evenness

    if not isinstance(balanced, Balance):
        raise InputError(
            f"expected the session of the balanced call (`with vl.balance(...) as balance`), got {type(balanced).__name__}."
        )
    watched = isinstance(plain, Balance)
    videos = {"plain": plain.video if watched else plain, "balanced": balanced.video}
    log = balanced.log
    shares = xr.DataArray(
        np.full((2, log.sizes["concept"]), np.nan), {"run": RUNS, "concept": log.concept.values}, ("run", "concept")
    )
    steps: list[int] = []
    if watched:
        before = plain.log
        steps = sorted(set(before.step.values.tolist()) & set(log.step.values.tolist()))
        for run, source in zip(RUNS, (before, log), strict=True):
            first = source.where((source.iteration == 0) & source.step.isin(steps), drop=True)
            shares.loc[{"run": run}] = first.share.mean("update").reindex(concept=log.concept).values
    cost = balanced.cost
    spent = cost.rows + cost.extra_rows * (1 + cost.backwards / max(1, cost.extra_forwards))
    own_seconds = cost.seconds - cost.update_seconds
    reasons, counts = np.unique([reason for reason in log.stop.values if reason], return_counts=True)
    report = xr.Dataset(
        {
            "share": shares.assign_attrs(long_name="share of the concepts' influence", units="1"),
            "evenness": evenness(shares).assign_attrs(long_name="normalised entropy of the shares", units="1"),
            "sharpness": ("run", [sharpness(frames) for frames in videos.values()]),
            "flicker": ("run", [flicker(frames) for frames in videos.values()]),
            "clipped": ("run", [clipped(frames) for frames in videos.values()]),
            "distance": ((), distance(*videos.values())),
            "forwards": (
                "run",
                [float(cost.rows), float(spent)],
                {"long_name": "denoiser forwards of one row, a backward as one"},
            ),
            "seconds": ("run", [own_seconds, cost.seconds], {"units": "s"}),
            "cost_ratio": ((), spent / cost.rows),
            "time_ratio": ((), cost.seconds / own_seconds),
            "updates": ((), int((log.latent_change > 0).sum())),
            "stops": ("reason", counts),
        },
        {"run": RUNS, "reason": reasons.astype(str)},
    )
    settings = {name: log.attrs[name] for name in ("objective", "flow", "step", "schedule")}
    return report.assign_attrs(settings, compared_steps=steps)


def report_summary(report: xr.Dataset) -> dict[str, Any]:
    """Flatten a report to plain numbers and strings that JSON takes; NaN becomes None.

    Returns
    -------
    dict
        Names as in the report; those over ``run`` hold a dict by run, ``share`` one by run and concept, ``stops`` one by reason.
    """

    def plain(values: Any) -> Any:
        if values.ndim == 0:
            value = values.item()
            return None if value != value else value
        dim = values.dims[0]
        return {str(key): plain(values.sel({dim: key})) for key in values[dim].values}

    return {str(name): plain(variable) for name, variable in report.data_vars.items()} | dict(report.attrs)


def report_table(report: xr.Dataset) -> pd.DataFrame:
    """One row a measure, one column a run, and what changed between them.

    Returns
    -------
    pandas.DataFrame
        Index: measures, with ``share of NAME`` for each concept; columns ``plain``, ``balanced``, ``change``.
    """
    import pandas as pd

    rows = {f"share of {name}": report.share.sel(concept=name).values for name in report.concept.values}
    rows |= {name: report[name].values for name in ("evenness", "sharpness", "flicker", "clipped", "forwards", "seconds")}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=RUNS)
    return table.assign(change=table["balanced"] - table["plain"])
