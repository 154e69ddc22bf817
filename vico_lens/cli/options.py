"""Options that several verbs share, so that one name means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Concepts", "Device", "Guidance", "Model", "Overwrite", "Seed", "Steps", "TracePath"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of text.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
TracePath = Annotated[Path, typer.Argument(metavar="TRACE", help="A recorded trace: a folder or .zip of `vico-lens trace`.")]
Concepts = Annotated[
    list[str] | None,
    typer.Option("--concept", "-c", metavar="WORDS", help="A concept by name; repeatable. Default: noun phrases of the prompt."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="FOLDER_OR_ID", help="A diffusers text-to-video pipeline. Default: the bundled model."),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the starting noise.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps. Default: the pipeline's own.")]
Guidance = Annotated[float | None, typer.Option("--guidance", help="Guidance scale. Default: the pipeline's own.")]
Device = Annotated[str, typer.Option("--device", help="Where to run the model, such as cpu or cuda.")]
