"""One run of a sweep: all that determines a video, and the hash by which it is known."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Run"]


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the grid: all that determines a video.

    Attributes
    ----------
    prompt : str
        Of the pipeline's call.
    seed : int
        Of its generator, drawn on the CPU.
    condition : str
        Name of the condition.
    settings : mapping or None
        Arguments of `vico_lens.balance`; or of a baseline, named by ``baseline`` ("reweight", "compose", "best_of"); None is the
        plain call.
    call : mapping
        Further arguments of the pipeline's call.
    model : str
        What identifies the pipeline.
    """

    prompt: str
    seed: int
    condition: str
    settings: Mapping[str, Any] | None
    call: Mapping[str, Any]
    model: str = ""

    def fields(self) -> dict[str, Any]:
        """Fields by name; not by `asdict`, which would turn step rules and schedules into mappings without a class."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def key(self) -> str:
        """Hash of the run: equal for equal runs, in any process. It holds what a preset stands for, not its name alone.

        Examples
        --------
        >>> Run("a red circle", 0, "plain", None, {}).key == Run("a red circle", 0, "plain", None, {}).key
        True
        """
        from vico_lens.tracing.provenance import lasting_text

        fixed = self.fields() | {"preset": _preset_of(self.settings)}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True, default=lasting_text).encode()).hexdigest()[:24]


def _preset_of(settings: Mapping[str, Any] | None) -> str:
    """What the preset named in a run's settings stands for, so that a record is not taken for a run under another one."""
    if settings is None or settings.get("baseline") in ("compose", "reweight"):
        return ""
    from vico_lens.intervention.balancing import presets

    preset = settings.get("preset", "observe" if "baseline" in settings else "default")
    return repr(presets[preset] if isinstance(preset, str) else preset)
