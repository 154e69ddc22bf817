"""Running a tutorial as a reader would, but cut off from the network, and refusing every warning."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

from tutorials.tools.notebook import Notebook, read, tags, with_solutions

__all__ = ["run"]

# Runs before the first cell. Two threads at most: what a small laptop has. Warnings that come from our own package are errors;
# those of others would still be seen, because `run` refuses anything on stderr.
_GUARD = r"""
import socket, warnings
import torch
def _refuse(*_, **__): raise OSError("a tutorial must not use the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = _refuse
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's advice where ipywidgets is not installed
warnings.filterwarnings("error", module=r"vico_lens(\.|$)")
torch.set_num_threads(min(2, torch.get_num_threads()))
del socket, warnings, torch, _refuse
"""


def run(path: Path, *, timeout: int = 240) -> Notebook:
    """Execute a tutorial with its exercises' answers, in an empty folder of its own.

    Parameters
    ----------
    path : Path
        The Python file.
    timeout : int
        Seconds that one cell may take.

    Returns
    -------
    Notebook
        The tutorial's own cells with their outputs; those of the answers have been run and are left out.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails, an assertion in it included.
    RuntimeError
        If a cell writes to stderr, as warnings do.
    """
    notebook = with_solutions(read(path))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_GUARD, id="guard", metadata={"tags": ["solution"]}))
    environment = os.environ | {
        "PLOTLY_RENDERER": "plotly_mimetype",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",  # progress bars and the advice of the model libraries go to stderr; Python warnings stay
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])),
    }
    with tempfile.TemporaryDirectory() as folder:
        # Over files of this machine, not over TCP ports that every local process could reach.
        sockets = Config(KernelManager={"transport": "ipc", "ip": str(Path(folder, ".kernel"))})
        client = NotebookClient(
            notebook, timeout=timeout, coalesce_streams=True, config=sockets, resources={"metadata": {"path": folder}}
        )
        client.execute(env=environment)
    for cell in notebook.cells:
        said = "".join(output.text for output in cell.get("outputs", []) if output.get("name") == "stderr")
        if said:
            raise RuntimeError(f"{path.name}: a cell wrote to stderr.\n{cell.source}\n---\n{said}")
    notebook.cells = [cell for cell in notebook.cells if "solution" not in tags(cell)]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.metadata.pop("execution", None)  # time stamps
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    return notebook
