"""One HTML file that tells a run's story: opens offline, prints, and carries its videos, figures, numbers and origin inside.

The page declares a content policy that allows no network address at all and only the two scripts whose hashes it names. A
string from a prompt that got past the escaping could therefore still not run, and nobody who opens the file is reported
anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from vico_lens.errors import InputError
from vico_lens.plot.export import place_of, write_whole
from vico_lens.plot.theme import library
from vico_lens.report.markup import Markup, el, join
from vico_lens.report.media import Figures
from vico_lens.report.outcome import Outcome
from vico_lens.report.sections import Material, body
from vico_lens.report.story import Run, Story

if TYPE_CHECKING:
    import networkx as nx

    from vico_lens.attribution.graph import AttentionGraph

__all__ = ["LIMIT", "build_report"]

LIMIT = 8_000_000
"""Bytes a report may have: what mail servers and chat programs still pass on."""


def build_report(
    path: str | os.PathLike[str],
    *,
    prompt: str,
    before: Outcome,
    after: Outcome | None = None,
    log: xr.Dataset | None = None,
    temporal: xr.DataArray | None = None,
    methods: Mapping[str, xr.DataArray] | None = None,
    comparison: xr.Dataset | None = None,
    faithfulness: xr.Dataset | None = None,
    flow: xr.Dataset | xr.DataArray | None = None,
    graph: AttentionGraph | nx.DiGraph | Mapping[str, nx.DiGraph] | None = None,
    reliability: Sequence[Mapping[str, Any]] | None = None,
    objects: Sequence[Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    command: str = "",
    fps: float = 8.0,
    method: str | None = None,
) -> Path:
    """Write the report of one run, or of a plain and a balanced run, as one HTML file.

    Parameters
    ----------
    path : path
        The file, ending in ``.html``; it appears whole or not at all.
    prompt : str
        What was asked for.
    before, after : Outcome
        The plain run, and the balanced one if there is one.
    log : Dataset, optional
        ``balance.log``.
    temporal : DataArray, optional
        ``frame key_frame``, see `vico_lens.plot.temporal_matrix_numbers`.
    methods : mapping, optional
        Influence by other methods on the plain run, by name.
    comparison, faithfulness : Dataset, optional
        What `vico_lens.compare` found: ``agreement(method, other_method)``, and scores over ``method``.
    flow : Dataset or DataArray, optional
        Exact flow by concept with its certificate.
    graph : AttentionGraph, nx.DiGraph or mapping, optional
        For the Sankey diagram: the graph of one step, or solved graphs as `vico_lens.plot.sankey` takes them.
    reliability : sequence of mappings, optional
        How often such prompts come out right: rows ``{"label", "successes", "trials"[, "group"]}``.
    objects : sequence, optional
        What was asked for, object by object: mappings or dataclasses with ``shape``, ``colour``, ``motion``.
    provenance : mapping, optional
        Attributes of the trace.
    command : str
        Command that makes this report again.
    fps : float
        Frames a second of the videos.
    method : str, optional
        Attribution method; read from the influence when None.

    Returns
    -------
    Path
        Where the report lies.

    Raises
    ------
    InputError
        If an input is not usable, the folder is missing or cannot be written, or the page would be larger than `LIMIT`.

    Examples
    --------
    >>> import tempfile
    >>> from vico_lens.testing.traces import fake_trace
    >>> from vico_lens import attribute
    >>> influence = attribute(fake_trace(), "cross_attention")
    >>> import numpy as np
    >>> video = np.zeros((4, 16, 16, 3), np.uint8)
    >>> page = build_report(f"{tempfile.mkdtemp()}/page.html", prompt="a red circle", before=Outcome(video, influence))
    >>> page.read_text(encoding="utf-8").startswith("<!doctype html>")
    True
    """
    place = place_of(path, ".html", ".htm")
    first, second = Run.of(before), None if after is None else Run.of(after)
    story = Story(prompt, first, second, reliability)
    if second is not None and list(second.shares["concept"].values) != list(first.shares["concept"].values):
        raise InputError(
            f"both runs must have the concepts {story.names}, the balanced one has {second.shares['concept'].values.tolist()}."
        )
    material = Material(
        log=log,
        temporal=temporal,
        methods=methods or {},
        comparison=comparison,
        faithfulness=faithfulness,
        flow=flow,
        graph=graph,
        objects=objects,
        provenance=dict(provenance or {}),
        command=command,
        fps=fps,
        method=str(method or before.influence.attrs.get("method", "") or before.influence.name or "").replace("_", " "),
    )
    page = _page(story, material).encode()
    for most in (12, 6):
        if len(page) > LIMIT:
            page = _page(story, replace(material, most=most)).encode()
    if len(page) > LIMIT:
        raise InputError(
            f"this report would take {len(page) / 1e6:.1f} MB, the limit is {LIMIT / 1e6:.0f} MB; "
            "give fewer methods, a shorter video or fewer concepts."
        )
    return write_whole(place, lambda partial: partial.write_bytes(page))


def _page(story: Story, material: Material) -> str:
    figures = Figures()
    content = body(story, material, figures)
    scripts = []
    if len(figures):
        # A closing tag inside a string of the library would end the element early; an escaped slash means the same to JavaScript.
        scripts.append(re.sub(r"</(?=script)", r"<\\/", library(), flags=re.IGNORECASE))
    scripts.append(files("vico_lens.report").joinpath("page.js").read_text("utf-8"))
    style = files("vico_lens.report").joinpath("style.css").read_text("utf-8")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; media-src data:; "
        "style-src 'unsafe-inline'; script-src "
        + " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in scripts)
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="generator", content="vico-lens"),
        el("title", story.title()),
        el("style", Markup(style)),
    )
    code = [el("script", Markup(text)) for text in scripts]
    return f"<!doctype html>\n{el('html', head, el('body', content, figures.blocks(), join(code)), lang='en')}\n"
