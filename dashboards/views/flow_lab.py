"""Flow lab: predict the maximum flow of a small network, push it path by path, and see the minimum cut."""

from __future__ import annotations

import streamlit as st

from shared import exercise, layout, notices, state
from vico_lens import plot
from vico_lens.attribution.lab import Network, cut_in_words, leaders, presets, readings, written
from vico_lens.errors import InputError


def choose() -> tuple[str, str, Network]:
    """Let the user choose an exercise and a concept; the capacities are those of the table as edited."""
    state.valid_choice("exercise", list(presets))
    left, right = st.columns([2, 1])
    name = left.selectbox(
        "Exercise", list(presets), format_func=lambda key: presets[key].title, key="exercise", bind="query-params"
    )
    network = presets[name].network
    state.valid_choice("push", list(network.concepts))
    with right:
        concept = st.segmented_control(
            "Concept to push", network.concepts, default=network.concepts[0], required=True, key="push", bind="query-params"
        )
    return name, str(concept), network


def edited(name: str, network: Network) -> Network:
    """Show the capacities as a table to edit, and return the network that it describes."""
    rows = [{"from": tail, "to": head, "capacity": float(value)} for (tail, head), value in network.capacities.items()]
    table = st.data_editor(
        rows,
        key=f"capacities_{name}",
        hide_index=True,
        disabled=["from", "to"],
        column_config={"capacity": st.column_config.NumberColumn(min_value=0.0, max_value=9.0, step=0.05, required=True)},
        alt="Edges of the network with their capacities",
    )
    return network.with_capacities({(row["from"], row["to"]): row["capacity"] for row in table})


def compared(network: Network) -> None:
    """Say what each method reads from the same capacities, and which concept it puts first."""
    values = readings(network)
    first = leaders(values)
    st.table(
        {
            "method": [method.replace("_", " ") for method in values],
            **{concept: [written(row[concept]) for row in values.values()] for concept in network.concepts},
            "leads": [" and ".join(names) for names in first.values()],
        },
        hide_index=True,
    )


layout.heading("Flow lab: how much of a word reaches the video?", "Letters are video tokens, numbers are layers of attention.")
name, concept, network = choose()
preset = presets[name]
layout.text(preset.task)
drawing, steps = st.columns([5, 3], gap="large")
with steps:
    moves = st.container()
    st.markdown("**Capacities** (edit to make the exercise your own)")
    try:
        network = edited(name, network)
    except InputError as error:
        notices.error("This is no capacity.", error)
        st.stop()
    game = exercise.current(name, network, concept)
    with moves:
        path = exercise.controls(game, name, concept)
with drawing:
    if game.solved:
        (st.success if game.right else st.info)(game.verdict())
    layout.draw(plot.layered_graph(game.flow.to_networkx(), theme=state.theme()), key="flow_lab_flow")
    if game.solved:
        layout.text(cut_in_words(game.flow.cut(), game.flow))
    elif game.prediction is not None:
        layout.draw(
            plot.residual_graph(game.flow.to_networkx(), path.nodes if path else (), theme=state.theme()), key="flow_lab_residual"
        )
if game.solved:
    layout.lead("What other methods read from the same capacities", "Values of different methods do not compare; orders do.")
    compared(network)
    layout.text(preset.lesson)
