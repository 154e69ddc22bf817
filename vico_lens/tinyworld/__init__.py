"""A small world of moving shapes with exact ground truth, and a text-to-video model trained on it.

The world makes dominance measurable: prompts with known objects, a renderer with object masks, and a judge that needs no network.
"""

from vico_lens.tinyworld.judge import FAILURES, Verdict, judge
from vico_lens.tinyworld.prompts import TinyObject, TinyPrompt, is_held_out, parse_prompt, sample_prompts
from vico_lens.tinyworld.render import Clip, Layout, render

__all__ = [
    "FAILURES",
    "Clip",
    "Layout",
    "TinyObject",
    "TinyPrompt",
    "Verdict",
    "is_held_out",
    "judge",
    "parse_prompt",
    "render",
    "sample_prompts",
]
