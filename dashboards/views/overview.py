"""Overview: the video, who dominates it and how sure that is, where and when; and where to look next."""

from __future__ import annotations

import streamlit as st

from shared import cached, layout, notices, state
from shared.budget import plan
from shared.costly import costly_influence
from shared.findings import story_of
from shared.methods import READING, choose_method, choose_scale
from shared.panels import map_panels, show
from vico_lens import plot

opened = state.current()
names = state.concepts(opened)
colours = state.colours(names)
theme = state.theme()

head = st.container()
left, right = st.columns([2, 3], gap="large")
with right:
    said = st.container()
    method = choose_method()
todo = plan(opened.tree, method)
kept = cached.is_kept(str(opened.path), method)
chosen, steps, influence = (method, None, None) if kept else (todo.method, todo.steps, None)
with left:
    layout.film(opened)
if chosen != method:
    with said:
        influence = costly_influence(opened, method, names, "The Maps page reads single slices and stays quick.")
    if influence is not None:
        chosen, steps = method, None
    elif chosen is None:
        with head:
            layout.heading("This trace is large: nothing has been computed yet", opened.label)
            layout.prompt_line(opened.prompt, names, colours, opened.tree.attrs.get("prompt_cut"))
        st.stop()
with notices.guarded("The influence of the concepts could not be computed."):
    if influence is None:
        if chosen == method:
            influence = cached.influence(*opened.key, chosen, names, steps)
        else:
            influence = cached.quick_look(*opened.key, names, steps[0])
    story = story_of(opened, influence)
    with head:
        layout.heading(story.headline())
        layout.prompt_line(opened.prompt, names, colours, opened.tree.attrs.get("prompt_cut"))
    with said:
        layout.bullets(story.brief())
        layout.note(layout.basis(influence, chosen, method))
    with right:
        layout.note(READING[chosen].what)
    if len(names) > 1:
        layout.draw(plot.shares(influence, colours=colours, theme=theme), "shares", finding=False)
    layout.lead("Where", "Colour over the grey video is influence. The Maps page goes frame by frame.")
    show(map_panels(influence, opened.video, colours, scale=choose_scale()))
    if len(names) > 1:
        layout.lead("When")
        over_frames, over_steps = st.columns(2, gap="large")
        with over_frames:
            layout.draw(plot.share_by_frame(influence, colours=colours, theme=theme), "by_frame")
        with over_steps:
            if influence.sizes.get("step", 0) > 1:
                layout.draw(plot.share_by_step(influence, colours=colours, theme=theme), "by_step")
            else:
                notices.empty("Only one denoising step was computed, so there is no curve over steps.")

layout.lead("What to do next")
NEXT = {
    "maps": ("Look at single maps", "Which site and head reads which word, frame by frame."),
    "flow": ("Follow the flow", "How much can pass from a word to the video, and what holds it back."),
    "compare": ("Ask other methods", "Whether the finding depends on the choice of one."),
    "balance": ("Balance it", "Sample the prompt again with the weakest concept lifted."),
}
for column, (page, (title, why)) in zip(st.columns(len(NEXT), gap="medium"), NEXT.items(), strict=True):
    with column, st.container(key=f"next_{page}"):
        layout.page_link(page, title)
        layout.text(why, css="small")
