"""Flow: how much can pass from the words to the video, what proves it, where it is cut, and by which way it goes."""

from __future__ import annotations

import streamlit as st

from shared import cached, layout, notices, state
from shared.budget import UNASKED, step_bytes
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
    scope = st.selectbox("Through", list(SCOPES), format_func=SCOPES.get, key="scope", bind="query-params", disabled=not exact)
with fourth:
    state.valid_choice("step", steps)
    step = int(st.selectbox("Step", steps, index=len(steps) // 2, key="step", bind="query-params"))

needed = step_bytes(opened.tree, ("cross", "joint") if method == "cross_attention" else None)
if needed > 2 * UNASKED:
    with head:
        layout.heading("This trace is too large to solve here unasked", opened.label)
    notices.too_large(
        f"One step of this trace holds {needed / 1e9:.1f} GB of attention.",
        f"On the command line: vico-lens attribute TRACE --method {method} --step {step}. Summed cross-attention and the Maps "
        "page read less.",
    )
    st.stop()

with notices.guarded("The flow could not be computed."):
    options = (("scope", scope), ("sink", sink)) if exact else ()
    flow = cached.influence(*opened.key, method, names, (step,), options)
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

layout.lead("By which way", "From the words through the layers to the frames. The minimum cut is marked.")
carry = st.segmented_control(
    "Show", ["rollout", "max_flow"], format_func={"rollout": "what arrives (rollout)", "max_flow": "a maximum flow"}.get,
    default="rollout", required=True, key="carry", bind="query-params",
)  # fmt: skip
with notices.guarded("The way could not be drawn."):
    layout.draw(plot.sankey(cached.routes(*opened.key, names, step, carry), colours=colours, theme=state.theme()), "sankey")
    layout.note(
        "Drawn on a grid of two by two places a frame, so that it can be seen; numbers above are on the full grid. "
        "A maximum flow is one of many: where the video is full, it is the same for every concept; rollout tells them apart."
    )
