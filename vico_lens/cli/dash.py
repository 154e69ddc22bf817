"""``vico-lens dash``: the Streamlit dashboards on a trace."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import vico_lens
from vico_lens.cli.files import check_input
from vico_lens.cli.options import AsJson
from vico_lens.cli.output import emit
from vico_lens.errors import VicoLensError

__all__ = ["dash"]

PLACES = ("_dashboards/app.py", "../dashboards/app.py")
"""In an installed package, and in a clone; below the folder of the package."""


def dash(
    trace: Annotated[Path | None, typer.Argument(metavar="TRACE", help="A recorded trace to open first.")] = None,
    port: Annotated[int, typer.Option("--port", help="Port of the local server.")] = 8501,
    as_json: AsJson = False,
) -> None:
    """Open the dashboards in a browser (extra `dash`). With --json, print the command instead of running it."""
    if trace is not None:
        check_input(trace, "a recorded trace")
    if importlib.util.find_spec("streamlit") is None:
        raise VicoLensError("the dashboards need streamlit, which is not installed: pip install 'vico-lens[dash]'.")
    package = Path(vico_lens.__file__).parent
    app = next((path.resolve() for place in PLACES if (path := package / place).is_file()), None)
    if app is None:
        raise VicoLensError(
            "this installation holds no dashboards: run from a clone of the repository with a folder 'dashboards'."
        )
    command = [sys.executable, "-m", "streamlit", "run", str(app), "--server.port", str(port)]
    if trace is not None:
        command += ["--", str(trace)]
    if as_json:
        emit({"command": command, "url": f"http://localhost:{port}"}, "", as_json=True)
        return
    raise typer.Exit(subprocess.run(command, check=False).returncode and 1)
