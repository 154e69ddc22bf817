"""``vico-lens doctor``: what this machine has, what is missing, and what to install for it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

import typer

from vico_lens import __version__
from vico_lens.cli.models import bundled_model
from vico_lens.cli.options import AsJson
from vico_lens.cli.output import columns, emit

__all__ = ["doctor"]

REQUIRED = (
    "torch", "diffusers", "transformers", "xarray", "zarr", "dask", "numba", "networkx", "captum", "plotly", "imageio", "numpy"
)  # fmt: skip
EXTRAS = {
    "dash": "streamlit",
    "nlp": "spacy",
    "image": "kaleido",
    "cluster": "distributed",
    "models": "sentencepiece",
    "docs": "mkdocs",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
GROUPS = ("methods", "objectives", "balancing_presets", "families")


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has, and what is missing: versions, extras, device, video writer, browser, bundled model.

    Exit code 1 if something needed is missing.
    """
    report: dict[str, Any] = {
        "vico-lens": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in REQUIRED},
        "extras": {extra: _version(package) for extra, package in EXTRAS.items()},
        "device": _attempt(_device),
        "ffmpeg": _attempt(_ffmpeg),
        "browser": next((path for name in BROWSERS if (path := shutil.which(name))), None),
        "bundled_model": (bundled_model() or {}).get("path"),
        "plugins": {group: sorted(point.name for point in entry_points(group=f"vico_lens.{group}")) for group in GROUPS},
    }
    missing = [f"package {name}: pip install {name}" for name, found in report["packages"].items() if found is None]
    if report["ffmpeg"] is None:
        missing.append("a video writer: pip install imageio-ffmpeg")
    if report["bundled_model"] is None:
        missing.append("the bundled model: install vico-lens again")
    report["missing"] = missing
    emit(report, _text(report), as_json=as_json)
    if missing:
        raise typer.Exit(1)


def _text(report: dict[str, Any]) -> str:
    rows: list[list[object]] = [[key, report[key]] for key in ("vico-lens", "python", "platform", "cores")]
    rows += [[name, found or "missing"] for name, found in report["packages"].items()]
    for extra, found in report["extras"].items():
        rows.append([f"extra [{extra}]", found or f"not installed: pip install 'vico-lens[{extra}]'"])
    rows.append(["device", report["device"]])
    rows.append(["ffmpeg", report["ffmpeg"] or "missing"])
    rows.append(["browser", report["browser"] or "none (only static images need one)"])
    rows.append(["bundled model", report["bundled_model"] or "missing"])
    rows += [[f"plug-in {group}", ", ".join(names) or "none"] for group, names in report["plugins"].items()]
    verdict = "\n".join(f"Missing {what}" for what in report["missing"]) or "Everything needed is here."
    return f"{columns(rows, ['what', 'found'])}\n\n{verdict}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _attempt(question: Callable[[], str]) -> str | None:
    """Ask what a broken installation may answer with any error: then the answer is no."""
    try:
        return question()
    except Exception:
        return None


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else f"cpu, {torch.get_num_threads()} threads"


def _ffmpeg() -> str:
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())
