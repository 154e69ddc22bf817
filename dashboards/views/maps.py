"""Maps: which places read a word and where a place looks, by site, head, step and frame; one slider moves all frames."""

from __future__ import annotations

from operator import itemgetter

import numpy as np
import streamlit as st
import xarray as xr

from shared import cached, layout, notices, state
from shared.budget import UNASKED, frame_bytes, step_bytes
from shared.costly import costly
from shared.methods import choose_scale
from shared.panels import map_panels, show
from shared.sites import prompt_words, sites_of
from vico_lens import plot
from vico_lens.plot.wording import level, percent

ALL = "all"
first_of = itemgetter(0)
opened = state.current()
tree = opened.tree
names = state.concepts(opened)
words = prompt_words(tree, names)
colours = state.colours((*names, *(word for word in words if word not in names)))
sites = {site.module: site for site in sites_of(tree)}
readers = [module for module, site in sites.items() if site.kind in ("cross", "joint")]
steps = [int(step) for step in tree.coords["step"].values]
mean_fits = step_bytes(tree, "cross_attention") <= 4 * UNASKED

head_of_page = st.container()
what, where, how, when = st.columns([3, 3, 1.4, 1.4], gap="small")
with what:
    state.valid_choices("words", words)
    shown = tuple(st.multiselect("Words", words, default=names, key="words", bind="query-params")) or names
    layout.chip_colours("words", [colours[word] for word in shown])
with where:
    offered = [*([ALL] if mean_fits else []), *readers]
    state.valid_choice("site", offered)
    site = st.selectbox(
        "Site", offered, format_func=lambda m: "All sites, mean" if m == ALL else sites[m].label, key="site", bind="query-params"
    )
with how:
    heads = ["mean", *map(str, range(max(sites[m].heads for m in readers) if site == ALL else sites[site].heads))]
    state.valid_choice("head", heads)
    head = st.selectbox("Head", heads, key="head", bind="query-params")
with when:
    state.valid_choice("step", [str(step) for step in steps])
    step = int(st.selectbox("Step", [str(step) for step in steps], index=len(steps) // 2, key="step", bind="query-params"))
at_head = None if head == "mean" else int(head)
maps = None
with notices.guarded("These maps could not be read."):
    maps = cached.maps(*opened.key, shown, step, None if site == ALL else site, at_head)


@st.fragment
def scrub() -> None:
    """Slider, panels, and where one place of the frame looks: they move together."""
    count = len(opened.video) if opened.video is not None else maps.sizes["frame"]
    frame = st.slider("Frame", 0, count - 1, 0, key="frame", bind="query-params") if count > 1 else 0
    show(map_panels(maps, opened.video, colours, frame=frame, scale=choose_scale(), shares=False))
    lookers = [module for module, found in sites.items() if found.kind != "cross"]
    if not lookers:
        notices.empty("This trace holds no self-attention.", "vl.Capture(kinds=None) records it.")
        return
    layout.lead("Where a place of this frame looks", "Choose a self-attention site and a place in the frame of the slider above.")
    first, second, third = st.columns([3, 1.5, 1.5], gap="small")
    with first:
        state.valid_choice("looker", lookers)
        looker = st.selectbox(
            "Self-attention site", lookers, format_func=lambda m: sites[m].label, key="looker", bind="query-params"
        )
    frames, rows, columns = sites[looker].grid
    row = second.slider("Row", 0, rows - 1, rows // 2, key=f"row{rows}") if rows > 1 else 0
    column = third.slider("Column", 0, columns - 1, columns // 2, key=f"column{columns}") if columns > 1 else 0
    with notices.guarded("This row could not be read."):
        fits = at_head if at_head is None or at_head < sites[looker].heads else None
        query = (min(frame * frames // count, frames - 1), row, column)
        fig = plot.attention(tree, looker, step=step, head=fits, query=query, theme=state.theme())
        layout.draw(fig, "looks")


if maps is not None:
    read = maps.mean(("frame", "y", "x"))
    most = str(shown[int(np.argmax(read.values))])
    alone = len(shown) == 1 or not level(*np.sort(read.values)[-2:])
    rest = cached.rest(*opened.key, tuple(shown), step, None if site == ALL else site, at_head)
    largest = percent(float(read.max()), 1)
    with head_of_page:
        if len(shown) == 1:
            title = [layout.concept_mark(most, colours), f" gets {largest} of the attention to the prompt"]
        elif alone:
            title = [
                "Of these words ",
                layout.concept_mark(most, colours),
                f" gets most attention: {largest}",
            ]
        else:
            title = [f"No word gets more attention than the others: {largest} is the most"]
        others = ", ".join(f"{name} {percent(share, 1)}" for name, share in rest.items())
        where = "mean of all sites" if site == ALL else sites[site].label
        layout.heading(title, f"Denoising step {step}, {where}. The rest of the attention goes to: {others}.")
        layout.prompt_line(opened.prompt, names, colours, opened.tree.attrs.get("prompt_cut"))
    scrub()
    layout.lead("One word in every frame", "Attention as it was recorded at one site.")
    single = [word for word in words if " " not in word] or list(words)
    state.valid_choice("word", single)
    last = shown[0].split()[-1]
    first = single.index(last) if last in single else 0
    word = st.selectbox("Word", single, index=first, key="word", bind="query-params", width=260)
    with notices.guarded("This map could not be read."):
        raw = readers[0] if site == ALL else site
        layout.draw(plot.attention(tree, raw, step=step, head=at_head, token=word, theme=state.theme()), "raw")
layout.lead("Which frames look at each other", "Mean over sites and positions. On the diagonal a frame looks at itself.")


def between_frames() -> xr.DataArray | None:
    """Read how much frames look at each other; where that is dear, only when it was asked for."""
    if frame_bytes(tree) <= UNASKED:
        return cached.between_frames(*opened.key, step)

    def read_frames() -> xr.DataArray:
        from vico_lens.store.reading import temporal_matrix

        return temporal_matrix(tree, step=step)

    what, advice = "Attention between frames", "Single rows, above, are read at once."
    return costly(f"{opened.key} frames {step}", what, frame_bytes(tree), [read_frames], first_of, advice)


if any(found.kind in ("temporal", "spacetime", "joint") for found in sites.values()):
    with notices.guarded("The attention between frames could not be read."):
        matrix = between_frames()
        if matrix is not None:
            layout.draw(plot.temporal_matrix(matrix, theme=state.theme()), "frames")
else:
    notices.empty("This trace holds no site that connects frames.", "Record temporal attention with vl.Capture(kinds=None).")
