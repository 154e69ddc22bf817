"""List every video pipeline class of the installed diffusers, and what vico-lens does with it.

Run ``python -m tools.video_pipelines``. The source is read, not imported, so classes with missing dependencies are listed too.
A class that neither a row of the table nor the list of refusals names was looked at by nobody: a test fails when there is one.
"""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

from vico_lens.tracing.families import FAMILIES
from vico_lens.tracing.families.refused import REFUSED

__all__ = ["main", "treatment", "video_pipelines"]

_ARGUMENTS = {"num_frames", "video_length", "video", "frames", "latent_window_size", "num_latent_frames", "video_latents"}


def video_pipelines() -> dict[str, str]:
    """Return the class names of all pipelines that make videos, and the module each is in."""
    spec = find_spec("diffusers")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    found: dict[str, str] = {}
    for path in sorted([*root.glob("pipelines/**/*.py"), *root.glob("modular_pipelines/**/modular_pipeline.py")]):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Pipeline") and _makes_videos(node, module):
                found[node.name] = module
    return found


def _makes_videos(node: ast.ClassDef, module: str) -> bool:
    if module.startswith("modular_pipelines"):
        return any(name in module for name in ("wan", "helios", "hunyuan_video", "ltx", "cosmos", "minimax_h3"))
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__call__":
            names = {argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)}
            return bool(names & _ARGUMENTS)
    return False


def treatment(name: str) -> str:
    """Say what is done with a class: its family, or why it is refused; empty if nobody looked at it.

    >>> treatment("WanPipeline"), treatment("NobodysPipeline")
    ('traced: wan', '')
    """
    for family in (FAMILIES[key] for key in FAMILIES):
        if name in family.pipelines:
            return f"traced: {family.name}"
    return f"refused: {REFUSED[name]}" if name in REFUSED else ""


def main() -> int:
    """Print the list, and return 1 if it has classes that nobody looked at."""
    listed = {name: treatment(name) for name in video_pipelines()}
    for name, text in listed.items():
        print(f"{name}: {text or 'NOT LOOKED AT'}")
    return int(not all(listed.values()))


if __name__ == "__main__":
    raise SystemExit(main())
