"""Figures: labelled numbers come in, a plotly figure goes out; beside each figure stands a function that returns its numbers.

Plotly is imported when the first figure is drawn, never before. Colours are fixed by concept (`concept_colours`), page colours
come from one of two templates (`template`), and pictures and videos are written without a browser (`save_png`, `save_gif`,
`save_mp4`). This room imports `store` and `attribution`, and is the only one that imports plotly.
"""

from vico_lens.kernels.intervals import wilson
from vico_lens.plot.attention import attention, attention_numbers
from vico_lens.plot.change import balancing, balancing_numbers, before_after, before_after_numbers
from vico_lens.plot.colours import concept_colours
from vico_lens.plot.composite import composite
from vico_lens.plot.export import filmstrip, save_gif, save_mp4, save_png, save_webp
from vico_lens.plot.flow import sankey, sankey_numbers
from vico_lens.plot.maps import influence, influence_numbers, method_maps, method_maps_numbers, side_by_side
from vico_lens.plot.network import layered_graph, layered_graph_numbers
from vico_lens.plot.residual import residual_graph, residual_graph_numbers
from vico_lens.plot.routes import concept_graphs
from vico_lens.plot.shares import shares, shares_numbers
from vico_lens.plot.sweeps import sweep, sweep_numbers
from vico_lens.plot.tables import agreement, agreement_numbers, faithfulness, faithfulness_numbers
from vico_lens.plot.temporal import temporal_matrix, temporal_matrix_numbers
from vico_lens.plot.theme import template
from vico_lens.plot.timeline import share_by_frame, share_by_frame_numbers, share_by_step, share_by_step_numbers

__all__ = [
    "agreement",
    "agreement_numbers",
    "attention",
    "attention_numbers",
    "balancing",
    "balancing_numbers",
    "before_after",
    "before_after_numbers",
    "composite",
    "concept_colours",
    "concept_graphs",
    "faithfulness",
    "faithfulness_numbers",
    "filmstrip",
    "influence",
    "influence_numbers",
    "layered_graph",
    "layered_graph_numbers",
    "method_maps",
    "method_maps_numbers",
    "residual_graph",
    "residual_graph_numbers",
    "sankey",
    "sankey_numbers",
    "save_gif",
    "save_mp4",
    "save_png",
    "save_webp",
    "share_by_frame",
    "share_by_frame_numbers",
    "share_by_step",
    "share_by_step_numbers",
    "shares",
    "shares_numbers",
    "side_by_side",
    "sweep",
    "sweep_numbers",
    "template",
    "temporal_matrix",
    "temporal_matrix_numbers",
    "wilson",
]
