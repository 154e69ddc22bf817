"""A small world of moving shapes whose true content is known, and a text-to-video model trained on it.

A prompt comes in; its objects, a rendered video with object masks, or the judge's verdict on a video go out. So it can be
measured whether a concept is missing in a video, offline and without another model. This room imports only `vico_lens.errors`.
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
