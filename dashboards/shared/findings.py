"""What is found in the open trace, in words: the report's own sentences, so that page and report never disagree."""

from __future__ import annotations

from typing import Any

import streamlit as st
import xarray as xr

from shared import cached
from shared.opening import Opened
from vico_lens.errors import InputError
from vico_lens.report.outcome import Outcome
from vico_lens.report.story import Run, Story

__all__ = ["story_of"]


def story_of(opened: Opened, influence: xr.DataArray) -> Story:
    """Write the story of the open trace; the judge takes part where the prompt is a sentence of the tiny world."""
    video = opened.video
    verdict = None if video is None else _verdict(*opened.key, opened.prompt)
    return Story(opened.prompt, Run.of(Outcome(video, influence, verdict=verdict)), None, None)


@st.cache_data(max_entries=32, show_spinner=False)
def _verdict(path: str, version: str, prompt: str) -> Any:
    """Ask the exact judge; None where it cannot tell (another model's prompt, another size of video)."""
    from vico_lens.tinyworld import judge, parse_prompt
    from vico_lens.tinyworld.vocabulary import FRAMES, SIDE

    video = cached.video_of(path, version)
    if video is None or video.shape != (FRAMES, SIDE, SIDE, 3):
        return None
    try:
        asked = parse_prompt(prompt)
    except InputError:
        return None
    found = judge(video, asked)
    return {name: getattr(found, name) for name in ("all_correct", "present", "attributes", "failure")}
