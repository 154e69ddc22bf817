"""Compare: the same question to several methods; where they agree, the finding does not hang on one of them."""

from __future__ import annotations

import streamlit as st

from shared import cached, layout, notices, state
from shared.budget import plan
from shared.methods import READING
from shared.panels import map_panels, show
from vico_lens import plot
from vico_lens.attribution.dominance import dominance

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

found, left_out = {}, []
with notices.guarded("A method could not be computed."):
    for method in chosen:
        todo = plan(opened.tree, method)
        if cached.is_kept(str(opened.path), method):
            found[method] = cached.influence(*opened.key, method, names)
        elif todo.method == method:
            found[method] = cached.influence(*opened.key, method, names, todo.steps)
        else:
            left_out.append(READING[method].title)
if left_out:
    notices.too_large(f"{', '.join(left_out)}: left out, a step of this trace is too large to compute on unasked.", "")
if len(found) < 2:
    st.stop()

tables = {method: dominance(influence) for method, influence in found.items()}
leaders = {method: str(table["dominant"].item()) for method, table in tables.items()}
first = next(iter(leaders.values()))
with head:
    if len(names) == 1:
        layout.heading("With one concept, only the places can be compared")
    elif set(leaders.values()) == {first}:
        layout.heading(["All methods agree: ", layout.concept_mark(first, colours), " dominates"])
    else:
        votes = sum(leader == first for leader in leaders.values())
        layout.heading(["The methods disagree: ", layout.concept_mark(first, colours), f" leads by {votes} of {len(leaders)}"])
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
layout.facts({READING[method].title: f"evenness {float(table['evenness']):.2f}" for method, table in tables.items()})

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
