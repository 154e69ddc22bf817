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
from vico_lens.cli.output import emit, note
from vico_lens.errors import InputError, VicoLensError

__all__ = ["dash"]

PLACES = ("_dashboards/app.py", "../dashboards/app.py")
"""In an installed package, and in a clone; below the folder of the package."""

PATIENCE = 4.0
"""Seconds that the server has to end after it was told to; then it is killed."""


def dash(
    traces: Annotated[list[Path] | None, typer.Argument(metavar="[TRACE]...", help="Recorded traces; the first opens.")] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option("--root", help="Folder that paths typed in the browser may lie in; the current one by default. Repeatable."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. Anything but localhost lets others read the allowed folders.")
    ] = "localhost",
    port: Annotated[int, typer.Option("--port", help="Port of the local server.")] = 8501,
    as_json: AsJson = False,
) -> None:
    """Open the dashboards in a browser (extra `dash`). With --json, print the command instead of running it."""
    for trace in traces or ():
        check_input(trace, "a recorded trace")
    for folder in root or ():
        if not folder.is_dir():
            raise InputError(f"expected a folder after --root; there is none at {folder}.")
    if importlib.util.find_spec("streamlit") is None:
        raise VicoLensError("the dashboards need streamlit, which is not installed: pip install 'vico-lens[dash]'.")
    package = Path(vico_lens.__file__).parent
    app = next((path.resolve() for place in PLACES if (path := package / place).is_file()), None)
    if app is None:
        raise VicoLensError(
            "this installation holds no dashboards: run from a clone of the repository with a folder 'dashboards'."
        )
    command = [sys.executable, "-m", "streamlit", "run", str(app), "--server.address", host, "--server.port", str(port)]
    command += ["--", *map(str, traces or ())]
    command += [part for folder in root or () for part in ("--root", str(folder))]
    if as_json:
        emit({"command": command, "url": f"http://{host}:{port}"}, "", as_json=True)
        return
    note(f"http://{host}:{port}  (Ctrl+C ends it)")
    raise typer.Exit(_run(command))


def _run(command: list[str]) -> int:
    """Run the server until it ends. A stop (Ctrl-C, or SIGTERM, which `vico_lens.cli` turns into one) also stops the server."""
    with subprocess.Popen(command) as server:
        try:
            return server.wait() and 1
        except KeyboardInterrupt:
            server.terminate()  # Ctrl-C in a terminal reaches both processes, a signal to this one does not
            try:
                server.wait(PATIENCE)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                server.kill()
            return 0
