"""Compare: several methods on one trace; where they agree, the finding does not depend on the choice of one."""

from __future__ import annotations

import streamlit as st
import xarray as xr

from shared import cached, layout, notices, state
from shared.budget import plan
from shared.costly import costly_influence
from shared.methods import READING
from shared.panels import map_panels, show
from vico_lens import plot
from vico_lens.attribution.dominance import dominance
from vico_lens.plot.wording import percent

opened = state.current()
names = state.concepts(opened)
colours = state.colours(names)
theme = state.theme()
offered = [name for name in READING if name != "max_flow"]

head = st.container()
state.valid_choices("methods", offered)
chosen = st.multiselect(
    "Methods", offered, default=offered, format_func=lambda name: READING[name].title, key="methods", bind="query-params"
)
if len(chosen) < 2:
    with head:
        layout.heading("Do the methods agree?", opened.label)
    notices.empty("Choose at least two methods to compare.")
    st.stop()

found = {}
with notices.guarded("A method could not be computed."):
    for method in chosen:
        todo = plan(opened.tree, method)
        influence = None
        if cached.is_kept(str(opened.path), method):
            influence = cached.influence(*opened.key, method, names)
        elif todo.method == method:
            influence = cached.influence(*opened.key, method, names, todo.steps)
        else:
            influence = costly_influence(opened, method, names, "The other methods are compared without it.")
        if influence is not None:
            found[method] = influence
if len(found) < 2:
    st.stop()
if all("step" in values.dims for values in found.values()):
    found = dict(zip(found, xr.align(*found.values(), join="inner"), strict=True))  # compared on the steps that all of them have

tables = {method: dominance(influence) for method, influence in found.items()}
leaders = plot.method_maps_numbers(found)["leader"].values.tolist()
top = max(names, key=leaders.count)
with head:
    if len(names) == 1:
        layout.heading("With one concept, only the places can be compared")
    elif leaders.count(top) == len(found):
        layout.heading([f"All {len(found)} methods give ", layout.concept_mark(top, colours), " the largest share"])
    elif not any(leaders):
        layout.heading("No method gives one concept a larger share than the others")
    else:
        votes = f" the largest share by {leaders.count(top)} of {len(found)}"
        layout.heading(["The methods disagree: ", layout.concept_mark(top, colours), f" has{votes}"])
    layout.prompt_line(opened.prompt, names, colours, opened.tree.attrs.get("prompt_cut"))

layout.lead("The same video by each method", "Every method has its own scale, because their numbers have different units.")


@st.fragment
def scrub() -> None:
    """One slider moves the maps of all methods."""
    count = len(opened.video) if opened.video is not None else next(iter(found.values())).sizes["frame"]
    frame = st.slider("Frame", 0, count - 1, count // 2, key="frame", bind="query-params") if count > 1 else 0
    cells = st.columns(2, gap="medium") * len(found)
    for cell, (method, influence) in zip(cells, found.items(), strict=False):
        with cell:
            show(map_panels(influence, opened.video, colours, frame=frame, film=False), READING[method].title)
            layout.note(READING[method].what)


scrub()
layout.lead("How far they agree")
with notices.guarded("The agreement could not be computed."):
    layout.draw(plot.agreement(cached.agreement(*opened.key, tuple(found), found), theme=theme), "agreement")
shares = {method: ", ".join(f"{percent(float(share))} {name}" for name, share in zip(names, table["share"].values, strict=True))
          for method, table in tables.items()}  # fmt: skip
layout.facts({READING[m].title: f"{shares[m]}; evenness {float(tables[m]['evenness']):.2f}" for m in tables})

layout.lead("Which of them to believe", "Scores against leave-one-out: what really changes when a word is taken away.")
scores = cached.faithfulness(str(opened.path))
if scores is None:
    notices.empty(
        "This trace has no scores with it; they need the model.",
        "In Python: vl.compare(tree, methods, pipe=pipe). On the command line: vico-lens compare TRACE --model FOLDER.",
    )
else:
    layout.draw(plot.faithfulness(scores, theme=theme), "faithfulness")
    layout.note("Measured on this prompt with the bundled model. One prompt is no verdict on a method.")
