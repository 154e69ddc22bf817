"""Flow: how much can pass from the words to the video, what proves it, where it is cut, and which way it takes."""

from __future__ import annotations

import streamlit as st

from shared import cached, layout, notices, state
from shared.budget import UNASKED, step_bytes
from shared.costly import costly_influence
from shared.methods import READING, choose_method
from shared.verdicts import certificate_words, flow_headline, flow_rows
from vico_lens import plot
from vico_lens.report.tables import flow_table

SINKS = {"frame": "each frame", "video": "the whole video", "token": "each place"}
SCOPES = {"network": "the whole network", "subgraph": "one cross-attention layer and the temporal layers after it"}
opened = state.current()
names = state.concepts(opened)
colours = state.colours(names)
steps = [str(int(step)) for step in opened.tree.coords["step"].values]

head = st.container()
first, second, third, fourth = st.columns([2, 2, 3, 1.4], gap="small")
with first:
    method = choose_method(maps_only=False)
exact = method == "max_flow"
with second:
    sink = st.selectbox("Into", list(SINKS), format_func=SINKS.get, key="sink", bind="query-params", disabled=not exact)
with third:
    scope = st.selectbox(
        "Through", list(SCOPES), index=1, format_func=SCOPES.get, key="scope", bind="query-params", disabled=not exact
    )
with fourth:
    state.valid_choice("step", steps)
    step = int(st.selectbox("Step", steps, index=len(steps) // 2, key="step", bind="query-params"))

needed = step_bytes(opened.tree, method)
options = (("scope", scope), ("sink", sink)) if exact else ()
with notices.guarded("The flow could not be computed."):
    if needed <= 2 * UNASKED:
        flow = cached.influence(*opened.key, method, names, (step,), options)
    else:
        advice = "Summed cross-attention and the Maps page compute on less."
        flow = costly_influence(opened, method, names, advice, steps=[step], **dict(options))
    if flow is None:
        with head:
            layout.heading("This trace is large: nothing has been computed yet", opened.label)
        st.stop()
    with head:
        layout.heading(flow_headline(flow, names, colours), f"{READING[method].what} Denoising step {step}.")
        layout.prompt_line(opened.prompt, names, colours, opened.tree.attrs.get("prompt_cut"))
    if exact:
        layout.lead("The certificate", "A flow is proven by a cut of the same size: nothing more can pass through it.")
        st.html(flow_table(flow))
        layout.bullets(certificate_words(flow, names, colours))
    else:
        layout.lead("The numbers", f"What reaches the video, in {READING[method].unit}.")
        layout.facts(flow_rows(flow, names))

layout.lead("Which way it takes", "From the words through the layers to the frames. The minimum cut is marked.")
carry = st.segmented_control(
    "Show", ["rollout", "max_flow"], format_func={"rollout": "what arrives (rollout)", "max_flow": "a maximum flow"}.get,
    default="rollout", required=True, key="carry", bind="query-params",
)  # fmt: skip
into = "video" if sink == "video" else "frame"
with notices.guarded("The flow could not be drawn."):
    if needed <= 2 * UNASKED:
        graphs = cached.routes(*opened.key, names, step, carry, into)
        layout.draw(plot.sankey(graphs, colours=colours, theme=state.theme()), "sankey")
    layout.note(
        f"{'Each frame' if into == 'frame' else 'The whole video'} is a sink; the whole network of denoising step {step}, "
        "on a grid of two by two places a frame, so that it can be drawn. The values and cuts above are those of the full grid. "
        "A maximum flow is one of many: where the video is full it is the same for every concept. Rollout tells them apart."
    )
