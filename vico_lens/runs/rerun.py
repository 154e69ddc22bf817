"""One run of a sweep again, traced: a sweep keeps numbers, and this gives back the trace to look into."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vico_lens.errors import InputError
from vico_lens.runs.background_job import Progress
from vico_lens.runs.pair import LONGEST, MOST_STEPS, reporter
from vico_lens.runs.request import check_prompt
from vico_lens.runs.sweeps import Run, sample_run
from vico_lens.tinyworld.pipeline import STEPS
from vico_lens.tracing.recording import trace

__all__ = ["recorded_run", "trace_run"]

_CALL = {"num_inference_steps": (1, MOST_STEPS), "guidance_scale": (0, 50)}
"""Arguments of a pipeline's call that a record may set when it is run again, and their bounds: a record is foreign text."""


def recorded_run(record: Mapping[str, Any]) -> Run:
    """Read back a run of the bundled model from its record in a sweep's index.

    Parameters
    ----------
    record : mapping
        ``prompt, seed, condition, settings, call, model``, the last three as `vico_lens.sweep` writes them.

    Raises
    ------
    InputError
        If the record is of another model, or of a prompt, a setting or an argument that cannot be run again from here.

    Examples
    --------
    >>> recorded_run({"prompt": "a red circle moving up", "seed": 3, "condition": "plain", "settings": "None"}).seed
    3
    """
    if str(record.get("model") or ""):
        raise InputError(f"this run was made by {record['model']!r}; only runs of the bundled model can be made again here.")
    prompt, seed = str(record.get("prompt", "")), record.get("seed", -1)
    if len(prompt) > LONGEST:
        raise InputError(f"expected a prompt of at most {LONGEST} characters, got {len(prompt)}.")
    check_prompt(prompt, bundled=True)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"expected a seed from 0 to 2**63 - 1 in the record, got {seed!r}.")
    settings, call = _read(record, "settings"), _read(record, "call") or {}
    for name, value in call.items():
        low, high = _CALL.get(name, (1, 0))  # nothing lies between
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise InputError(f"this run was called with {name}={value!r}, which cannot be repeated here; trace it in a notebook.")
    if settings is not None and "baseline" in settings:
        raise InputError(f"{record.get('condition')!r} is a baseline of several passes; trace it in a notebook.")
    return Run(prompt, seed, str(record.get("condition", "")), settings, call)


def trace_run(pipe: Any, run: Run, to: Path, progress: Progress) -> Path:
    """Make a run again with tracing on; returns `to`, where its trace lies.

    Raises
    ------
    VicoLensError
        As `vico_lens.trace` and `vico_lens.balance` do.
    Cancelled
        If the job is cancelled; nothing is left at `to` then.
    """
    total = int(run.call.get("num_inference_steps", STEPS))
    callback = {"callback_on_step_end": reporter(progress, run.condition, 0, total)}
    finished = False
    try:
        with trace(pipe, to=to) as recording:
            recording.video, _ = sample_run(
                pipe, Run(run.prompt, run.seed, run.condition, run.settings, {**run.call, **callback}, run.model)
            )
        finished = True
    finally:
        if not finished:
            shutil.rmtree(to, ignore_errors=True)
    return to


def _read(record: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Settings or call of a record: written as Python literals, and read as nothing else."""
    text = str(record.get(name, "None"))
    try:
        value = ast.literal_eval(text) if len(text) <= 4000 else ...
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        value = ...
    if value is None or (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
        return value
    raise InputError(f"the {name} of this run are more than plain values and cannot be read back; trace it in a notebook.")
