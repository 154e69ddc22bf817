"""The exercise of the flow lab that is under way: kept between reruns of the page, moved by its buttons."""

from __future__ import annotations

import streamlit as st

from vico_lens.attribution.lab import Game, Network, Path, written

__all__ = ["controls", "current"]

_GAME = "flow_lab_game"
_TASK = "flow_lab_task"


def current(name: str, network: Network, concept: str) -> Game:
    """Return the game under way; another exercise, concept or capacity starts a new one."""
    task = (name, concept, tuple(network.capacities.items()))
    if st.session_state.get(_TASK) != task:
        st.session_state[_TASK] = task
        st.session_state[_GAME] = Game.start(network, concept)
    return st.session_state[_GAME]


def _keep(game: Game) -> None:
    """Keep a game that a button made."""
    st.session_state[_GAME] = game


def controls(game: Game, name: str, concept: str) -> Path | None:
    """Draw the steps of an exercise and return the path that is chosen to be pushed next."""
    if game.prediction is None:
        with st.form("predict"):
            value = st.number_input(f"1. Predict: how much of “{concept}” reaches the video?", 0.0, 99.0, step=0.05)
            if st.form_submit_button("Fix the prediction", type="primary"):
                _keep(game.predict(value))
                st.rerun()
        return None
    st.caption(f"Predicted: {written(game.prediction)}. Arrived so far: {written(game.flow.value)}.")
    path = None
    paths = game.flow.paths()
    if paths:
        path = st.selectbox(
            "2. Push along a path",
            paths,
            format_func=lambda path: f"{path} ({written(path.amount)}{', takes back' if path.undone else ''})",
            key=f"path_{name}_{concept}_{game.pushes}",
        )
        st.button("Push this path", type="primary", on_click=lambda: _keep(game.push(path)), width="stretch")
    with st.container(horizontal=True):
        st.button("Undo", disabled=not game.pushes, on_click=lambda: _keep(game.back()))
        st.button("Push the rest", disabled=game.solved, on_click=lambda: _keep(game.finish()))
        st.button("Start over", on_click=lambda: _keep(Game.start(game.flow.network, concept)))
    return path
