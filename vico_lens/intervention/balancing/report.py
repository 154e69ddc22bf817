"""Did balancing help, what did it cost, did it do harm: one dataset about a plain and a balanced call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vico_lens.errors import InputError
from vico_lens.intervention.balancing.quality import clipped, distance, flicker, sharpness
from vico_lens.intervention.balancing.session import Session

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["balance_report", "report_summary", "report_table"]

RUNS = ["plain", "balanced"]


def balance_report(plain: Any, balanced: Session) -> xr.Dataset:
    """Compare a plain with a balanced call of the same prompt and seed.

    Parameters
    ----------
    plain : Session or frames
        The plain call: its frames; or, to have its influences too, the session ``with balance(pipe, concepts, preset="observe")``
        in which it ran. That session costs one denoiser forward a step, which is not counted as the plain call's.
    balanced : Session
        The session of the balanced call, or of a baseline's (then without influences).

    Returns
    -------
    Dataset
        Over ``run`` (plain, balanced) and ``concept``: ``share (run, concept)``, the mean over denoising steps of each concept's
        share of the influence before that step's update, and its ``evenness (run)`` (1: all equal, 0: one has all), over the
        steps that both logs have; NaN for a plain call given as frames. ``sharpness, flicker, clipped (run)`` and ``distance``
        (root mean square between the two videos), in units of full range, see
        `vico_lens.intervention.balancing.quality`. ``forwards (run)``,
        denoiser forwards of one row, a backward pass counted as one; ``seconds (run)``, and the ratios ``cost_ratio`` and
        ``time_ratio``. ``stops (reason)``, how many steps ended for which reason.

    Raises
    ------
    InputError
        If `balanced` is no session, or the videos differ in shape.
    BalanceError
        If a session generated no video.

    Examples
    --------
    >>> from vico_lens.intervention.balancing import balance
    >>> from vico_lens.testing import tiny_pipeline
    >>> tiny = tiny_pipeline("animatediff-t2v")
    >>> with balance(tiny.pipe, ["circle", "square"], preset="observe") as plain:
    ...     _ = tiny.run(seed=0)
    >>> with balance(tiny.pipe, ["circle", "square"]) as balanced:
    ...     _ = tiny.run(seed=0)
    >>> report = balance_report(plain, balanced)
    >>> report.share.dims, bool(report.cost_ratio > 1)
    (('run', 'concept'), True)
    """
    import numpy as np
    import xarray as xr

    from vico_lens.attribution.dominance import evenness

    if not isinstance(balanced, Session):
        raise InputError(
            f"expected the session of the balanced call (`with vl.balance(...) as balance`), got {type(balanced).__name__}."
        )
    watched = isinstance(plain, Session)
    videos = {"plain": plain.video if watched else plain, "balanced": balanced.video}
    log = balanced.log
    shares, steps = _shares(plain.log if watched else None, log)
    cost = balanced.cost
    spent = cost.row_forwards
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
    return report.assign_attrs({name: log.attrs[name] for name in balanced.settings}, compared_steps=steps)


def _shares(plain: xr.Dataset | None, balanced: xr.Dataset) -> tuple[xr.DataArray, list[int]]:
    """Mean shares before each step's update (run, concept), and the steps they are over: those that both logs have."""
    import numpy as np
    import xarray as xr

    logs = {run: log for run, log in zip(RUNS, (plain, balanced), strict=True) if log is not None and log.sizes["update"]}
    names = list(dict.fromkeys(name for log in logs.values() for name in log.concept.values.tolist())) or [""]
    shares = xr.DataArray(np.full((2, len(names)), np.nan), {"run": RUNS, "concept": names}, ("run", "concept"))
    if plain is None:
        return shares, []
    steps = sorted(set.intersection(*(set(log.step.values.tolist()) for log in logs.values()))) if logs else []
    for run, log in logs.items():
        first = log.where((log.iteration == 0) & log.step.isin(steps), drop=True)
        shares.loc[{"run": run}] = first.share.mean("update").reindex(concept=names).values
    return shares, steps


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
