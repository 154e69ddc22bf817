"""Which release of diffusers brought which pipeline: an older one is supported, and lacks what was not written yet."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["SINCE", "older_than", "too_new"]

SINCE = {
    "anyflow-t2v": "0.39",
    "helios-t2v": "0.37",
    "hunyuan15-t2v": "0.36",
    "kandinsky5-t2v": "0.36",
    "ltx2-t2v": "0.37",
    "motif-t2v": "0.39",
    "sana-t2v": "0.36",
}
"""First release of diffusers with the classes of a tiny pipeline; every other one is in 0.35, the oldest that is supported."""


def older_than(release: str) -> bool:
    """Whether the installed diffusers is older than a release, given as ``major.minor``.

    >>> older_than("0.35"), older_than("99.0")
    (False, True)
    """
    return _numbers(version("diffusers")) < _numbers(release)


def too_new(name: str) -> str | None:
    """Say why a tiny pipeline cannot be built with the installed diffusers, or return None if it can.

    >>> too_new("wan21-t2v") is None
    True
    """
    if name in SINCE and older_than(SINCE[name]):
        return f"{name} needs diffusers {SINCE[name]} or newer, {version('diffusers')} is installed"
    return None


def _numbers(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int(minor)
