"""Placeholder of the skeleton; the page follows."""

from shared import layout, state

opened = state.current()
names = state.concepts(opened)
layout.heading("Flow", opened.label)
layout.prompt_line(opened.prompt, names, state.colours(names))
