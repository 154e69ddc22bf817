"""Options that several verbs share, so that one name means one thing everywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vico_lens.errors import InputError

__all__ = [
    "AsJson",
    "CallOptions",
    "Concepts",
    "Device",
    "Download",
    "Guidance",
    "MethodOptions",
    "Model",
    "Overwrite",
    "Prompt",
    "Seed",
    "Steps",
    "TracePath",
    "assignments",
    "call_of",
]

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
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What the video should show.")]
Download = Annotated[bool, typer.Option("--download", help="Allow a model of the hub to be downloaded.")]
CallOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--call", metavar="NAME=VALUE", help="Any other argument of the pipeline call, as in num_frames=16; repeatable."
    ),
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the method, as in kind=hard or tau=0.01; repeatable."),
]


def call_of(steps: int | None, guidance: float | None, call: list[str] | None) -> dict[str, Any]:
    """Arguments of the pipeline call; what is not named keeps the pipeline's own default."""
    named = {"num_inference_steps": steps, "guidance_scale": guidance}
    return {name: value for name, value in named.items() if value is not None} | assignments(call)


def assignments(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read ``NAME=VALUE`` options; a value is JSON where it can be, else text.

    Raises
    ------
    InputError
        If a pair has no ``=``, or its name is no name.

    Examples
    --------
    >>> assignments(["num_frames=16", "kind=hard", "tau=1e-3"])
    {'num_frames': 16, 'kind': 'hard', 'tau': 0.001}
    """
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"expected NAME=VALUE, got {pair!r}: write it as in num_frames=16.")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found
