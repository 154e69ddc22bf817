"""Flow in words: what a value says, what its cut proves, and when it says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vico_lens.plot.wording import level, number, percent
from vico_lens.report.markup import Markup, el, foreign, join

__all__ = ["certificate_words", "flow_headline", "flow_rows"]


def flow_headline(flow: xr.DataArray, names: Sequence[str], colours: Mapping[str, str]) -> Markup:
    """Write what was found: who gets more through, or that the flow is full and tells nothing."""
    totals = _totals(flow)
    top = max(names, key=totals.__getitem__)
    states = _states(flow)
    if states and set(states) <= {"sink"}:
        return join(["Every flow fills the video: it cannot tell the concepts apart"])
    if states and states.count("sink") > len(states) / 2:
        full = percent(states.count("sink") / len(states))
        return join([f"{full} of the flows fill the video, and these values are the same for every concept"])
    whole = sum(totals.values())
    if len(names) == 1 or whole == 0:
        return join([_marked(top, colours), f" sends {number(totals[top])} into the video"])
    if sum(level(total / whole, totals[top] / whole) for total in totals.values()) > 1:
        return join([f"No concept sends more than the others: the largest part is {percent(totals[top] / whole)}"])
    return join([_marked(top, colours), f" sends {percent(totals[top] / whole)} of what reaches the video"])


def certificate_words(flow: xr.DataArray, names: Sequence[str], colours: Mapping[str, str]) -> list[Markup]:
    """Explain value, gap and saturation, one sentence each, and where the cuts lie, one a concept."""
    sentences = []
    if "gap" in flow.coords:
        gap = float(np.abs(flow.coords["gap"].values).max())
        sentences.append(
            join([
                f"Gap {number(gap)}: flow and cut agree" + (" to the last digit" if gap == 0 else "") + ", so the value is exact."
                if gap < 1e-6
                else f"Gap {number(gap)}: the value lies between the flow found and the cut."
            ])
        )  # fmt: skip
    states = _states(flow)
    if "sink" in states:
        sentences.append(join([_FULL]))
    if "source" in states:
        sentences.append(
            join(["Cut at the text means that everything the concept injects arrives: the number is its summed cross-attention."])
        )
    for name in names if "cut_kind" in flow.coords else ():
        sentences += _inside(flow.sel(concept=name), _marked(name, colours))
    return sentences


def _inside(flow: xr.DataArray, name: Markup) -> list[Markup]:
    """Say where the flows of one concept are held back that are neither full nor all that the text gives."""
    free = np.ravel(flow.coords["saturated"].values).astype(str) == "no"
    if not free.any():
        return []
    if "cut_layer" not in flow.coords:
        return [join([f"{free.sum()} of {free.size} flows of ", name, " are held back inside their layer groups."])]
    layers = sorted({str(layer) for layer in np.ravel(flow.coords["cut_layer"].values)[free] if str(layer)})
    most = float(np.ravel(flow.coords["cut_share"].values)[free].max())
    more = f" and {len(layers) - 1} more layers" if len(layers) > 1 else None
    where = [" at ", el("code", foreign(layers[0])), more] if layers else []
    held = f" {'is' if free.sum() == 1 else 'are'} held back inside the network"
    return [
        join(
            [
                f"{free.sum()} of {free.size} flows of ",
                name,
                held,
                *where,
                f" (at most {percent(most)} of a cut).",
            ]
        )
    ]


_FULL = (
    "Cut at the video means saturated: the sink takes in no more than 1 a place, whoever sends it. The number is then the sink's "
    "size, the same for every concept, and no gradient can flow. Take one layer group, or another method."
)


def flow_rows(flow: xr.DataArray, names: Sequence[str]) -> dict[str, Any]:
    """Pair each concept with its total and its part of all."""
    totals = _totals(flow)
    whole = sum(totals.values()) or 1.0
    return {name: f"{number(totals[name])}  ({percent(totals[name] / whole)})" for name in names}


def _totals(flow: xr.DataArray) -> dict[str, float]:
    return {str(name): float(abs(flow.sel(concept=name)).sum()) for name in flow["concept"].values}


def _states(flow: xr.DataArray) -> list[str]:
    return [str(state) for state in np.ravel(flow.coords["saturated"].values)] if "saturated" in flow.coords else []


def _marked(name: str, colours: Mapping[str, str]) -> Markup:
    return foreign(name, class_="concept", style=f"--tint:{colours[name]}")
