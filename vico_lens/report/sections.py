"""The parts of the page in the order of a reader's questions: what came, who dominates, where, when, what changed, how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import xarray as xr

from vico_lens import plot
from vico_lens.plot.basis import basis_of
from vico_lens.plot.wording import percent
from vico_lens.report.markup import Markup, el, foreign, join
from vico_lens.report.media import Figures, maps_strip, video_element
from vico_lens.report.story import Run, Story, cut_line, mark_prompt
from vico_lens.report.tables import facts, flow_table, rates_table, shares_table, verdict_table

if TYPE_CHECKING:
    from vico_lens.attribution.graph import AttentionGraph

__all__ = ["Material", "body"]

_LIMITS = (
    "Attention is a trace of how the model mixed information, not proof of what caused the picture. "
    "Causal checks (leave-one-out) may disagree.",
    "Shares compare the concepts that were asked about, with each other. A word that is not among them takes no share.",
    "Intervals inside one run tell how steady a share is over its denoising steps or frames, not what another seed would give.",
    "Exact flow that is cut at the text or at the video says nothing about the layers between; such values are marked.",
)


@dataclass(frozen=True, slots=True)
class Material:
    """What a report may tell beside the two runs; parts that are not there are left out of the page."""

    log: xr.Dataset | None
    temporal: xr.DataArray | None
    methods: Mapping[str, xr.DataArray]
    comparison: xr.Dataset | None
    faithfulness: xr.Dataset | None
    flow: xr.Dataset | xr.DataArray | None
    graph: AttentionGraph | nx.DiGraph | Mapping[str, nx.DiGraph] | None
    objects: Sequence[Any] | None
    provenance: dict[str, Any]
    command: str
    fps: float
    method: str
    most: int = 24  # frames of the moving maps; fewer where the page would grow too large


def body(story: Story, material: Material, figures: Figures) -> Markup:
    """Write everything inside the page's body but its scripts."""
    parts = [
        _who(story, figures),
        _where(story, material, figures),
        _when(story, figures),
        _through(story, material, figures),
        _agree(story, material, figures),
        _changed(story, material, figures),
        _often(story, figures),
        _limits(),
        _made(story, material),
    ]
    foot = el(
        "footer", "Written by vico-lens. This file holds its videos, figures and numbers; it loads nothing from any network."
    )
    return join([_top(story, material), el("main", parts), foot])


def _section(question: str, aside: Any, *content: Any) -> Markup | None:
    if not any(content):
        return None
    return el("section", el("div", el("h2", question), el("p", aside), class_="side"), el("div", content, class_="body"))


def _top(story: Story, material: Material) -> Markup:
    runs = {"Plain run": story.before} | ({"Balanced run": story.after} if story.after else {})
    told = [
        material.method and f"influence by {material.method}",
        "seed" in material.provenance and f"seed {material.provenance['seed']}",
        "guidance_scale" in material.provenance and f"guidance {material.provenance['guidance_scale']}",
    ]
    masthead = el(
        "div",
        el("span", el("b", "vico-lens"), " report"),
        el("button", "dark page", type="button", hidden=True),
        class_="masthead",
    )
    frames = len(story.before.outcome.video)
    scrub = el(
        "div",
        el("button", "▶", type="button", aria_label="play"),
        el("input", type="range", min=0, max=frames - 1, value=0, step=1, aria_label="frame"),
        el("output", ""),
        class_="scrub",
        hidden=True,
    )
    shown = el(
        "div", [_run(label, run, story, material) for label, run in runs.items()], class_="runs", style=f"--runs:{len(runs)}"
    )
    brief = story.brief()
    return el(
        "header",
        masthead,
        el("h1", story.headline()),
        el("p", "“", el("bdi", mark_prompt(story.prompt, story.names, story.colours), dir="auto"), "”", class_="prompt"),
        el("p", ", ".join(str(part) for part in told if part), class_="prompt-note"),
        cut_line(material.provenance.get("prompt_cut")),
        shown,
        scrub,
        el("div", el("ul", [el("li", sentence) for sentence in brief]), class_="brief") if brief else None,
        class_="top",
    )


def _run(label: str, run: Run, story: Story, material: Material) -> Markup:
    said = None
    if run.ruling is not None:
        said = el("span", "✓ all correct" if run.ruling.correct else f"✗ {run.ruling.failure}", class_="verdict")
    pieces = [
        el(
            "span",
            f"{percent(run.share(name))} ",
            foreign(name),
            style=f"--tint:{story.colours[name]};--share:{run.share(name):.4f}",
        )
        for name in story.names
    ]
    note = basis_of(run.outcome.influence) + ("" if label.startswith("Plain") else " Same prompt and seed.")
    film = video_element(run.outcome.video, material.fps, f"{label}: the generated video")
    return el("div", el("h3", label, said), film, el("div", pieces, class_="bar"), el("p", note, class_="bar-note"), class_="run")


def _who(story: Story, figures: Figures) -> Markup | None:
    if len(story.names) == 1:
        return _section("Who dominates?", "There is one concept only, so nothing can dominate it.", shares_table(story))
    aside = "A concept dominates when its share of the influence lies above the even share, interval included."
    return _section(
        "Who dominates, and how sure is that?",
        aside,
        figures.add(plot.shares(_told(story.before), colours=story.colours)),
        shares_table(story),
    )


def _told(run: Run) -> xr.Dataset:
    """Shares and intervals of a run in the form of a dominance Dataset, so that text, table and figure show the same numbers."""
    renamed = run.shares.rename(low="share_low", high="share_high")
    return renamed.assign_attrs(note=run.shares.attrs["interval"], basis=basis_of(run.outcome.influence))


def _where(story: Story, material: Material, figures: Figures) -> Markup | None:
    before, after = story.before.outcome, story.after.outcome if story.after else None
    if after is None:
        moving = plot.influence(before.influence, before.video, fps=material.fps, most=material.most, colours=story.colours)
    else:
        moving = plot.side_by_side(
            before.influence,
            after.influence,
            (before.video, after.video),
            fps=material.fps,
            most=material.most,
            colours=story.colours,
        )
    strips = [maps_strip(before.influence, before.video, story.colours, "plain run" if after else "video")]
    if after is not None:
        strips.append(maps_strip(after.influence, after.video, story.colours, "balanced run"))
    still = el("figcaption", el("strong", "Frame by frame."), " The same maps as still pictures; colour over grey is influence.")
    aside = "Each map shows how much a concept contributes to each place of each frame. Press play, or move the slider."
    return _section("Where does each concept act?", aside, figures.add(moving, css="moving"), el("figure", still, strips))


def _when(story: Story, figures: Figures) -> Markup | None:
    if len(story.names) == 1:
        return None
    drawn = [figures.add(plot.share_by_frame(story.before.outcome.influence, colours=story.colours))]
    influence = story.before.outcome.influence
    if "step" in influence.dims and influence.sizes["step"] > 1:
        drawn.append(figures.add(plot.share_by_step(influence, colours=story.colours)))
    return _section(
        "When?",
        "Over the frames of the video, and over the steps in which noise becomes video.",
        el("div", drawn, class_="pair") if len(drawn) == 2 else drawn,
    )


def _through(story: Story, material: Material, figures: Figures) -> Markup | None:
    parts: list[Markup] = []
    if material.graph is not None:
        graph = material.graph if isinstance(material.graph, Mapping | nx.DiGraph) else _routes(material.graph, story)
        parts.append(figures.add(plot.sankey(graph, colours=story.colours)))
    if material.flow is not None:
        parts.append(flow_table(material.flow))
    if material.temporal is not None:
        parts.append(figures.add(plot.temporal_matrix(material.temporal)))
    return _section("By which way?", "From the words through the layers to the frames.", *parts)


def _routes(graph: AttentionGraph, story: Story) -> dict[str, nx.DiGraph]:
    """Rollout rather than maximum flow, which is the same for every concept where the video's sinks are full."""
    return plot.concept_graphs(graph, story.names, carry="rollout")


def _agree(story: Story, material: Material, figures: Figures) -> Markup | None:
    parts: list[Markup] = []
    if material.methods:
        named = {**({material.method or "this report": story.before.outcome.influence}), **material.methods}
        named = {name.replace("_", " "): values for name, values in named.items()}
        parts.append(
            figures.add(
                plot.method_maps(named, story.before.outcome.video, fps=material.fps, most=material.most, colours=story.colours),
                css="moving",
            )
        )
    if material.comparison is not None and "agreement" in material.comparison:
        parts.append(figures.add(plot.agreement(material.comparison)))
    scored = material.faithfulness
    if (
        scored is None
        and material.comparison is not None
        and set(map(str, material.comparison.data_vars)) - {"agreement", "share"}
    ):
        scored = material.comparison
    if scored is not None:
        parts.append(figures.add(plot.faithfulness(scored)))
    return _section(
        "Do other methods agree?",
        "Methods answer different questions. Where they agree, the finding does not hang on one of them.",
        *parts,
    )


def _changed(story: Story, material: Material, figures: Figures) -> Markup | None:
    runs = {"plain run": story.before} | ({"balanced run": story.after} if story.after else {})
    parts: list[Markup | None] = [verdict_table(material.objects, story.names, runs)]
    if story.after is None:
        return _section("What does the judge say?", "An exact judge reads shapes, colours and motions off the frames.", *parts)
    if len(story.names) > 1:
        parts.insert(0, figures.add(plot.before_after(_told(story.before), _told(story.after), colours=story.colours)))
    if material.log is not None and material.log.sizes.get("update", 0):
        parts.append(figures.add(plot.balancing(material.log, colours=story.colours)))
    aside = "Balancing nudges the running latents so that the weakest concept gains. Prompt, seed and model stay the same."
    return _section("What did balancing change?", aside, *parts)


def _often(story: Story, figures: Figures) -> Markup | None:
    if not story.rates:
        return None
    rows = [
        {**row, "successes": round(row["value"] * row["trials"])} if row["rate"] and row["trials"] else row for row in story.rates
    ]
    aside = "One clip proves little. These rates were measured on many prompts and seeds."
    return _section(
        "How often does this happen?", aside, figures.add(plot.sweep(rows, quantity="all correct")), rates_table(story)
    )


def _limits() -> Markup | None:
    return _section(
        "What this does not say", "Read before quoting a number.", el("ul", [el("li", text) for text in _LIMITS], class_="limits")
    )


def _made(story: Story, material: Material) -> Markup | None:
    first = {"prompt": story.prompt, **{k: v for k, v in material.provenance.items() if k in _MAIN}}
    rest = {k: v for k, v in material.provenance.items() if k not in _MAIN and k != "prompt"}
    again = [el("p", "To make this report again:"), el("pre", material.command)] if material.command else None
    more = el("details", el("summary", "everything the trace recorded about itself"), facts(rest)) if rest else None
    return _section(
        "How was this made?",
        "Model, settings and versions, as the trace recorded them.",
        again,
        facts(first, "Provenance."),
        more,
    )


_MAIN = (
    "model",
    "pipeline",
    "pipeline_class",
    "model_id",
    "weights_hash",
    "scheduler",
    "seed",
    "guidance_scale",
    "negative_prompt",
    "steps",
    "device",
    "dtype",
)
