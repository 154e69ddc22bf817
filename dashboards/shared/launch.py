"""What the command line said when the server was started: ``streamlit run app.py -- TRACE ... --root FOLDER``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.scratch import scratch
from vico_lens.tinyworld.demonstration import FOLDER as DEMO

__all__ = ["Launch", "launched"]


@dataclass(frozen=True, slots=True)
class Launch:
    """Which traces to offer first, and which folders the browser may name.

    Attributes
    ----------
    traces : tuple of Path
        Given on the command line, absolute.
    roots : tuple of Path
        Folders that paths from the browser are confined to, absolute and without symbolic links: the working folder (or those
        given by ``--root``), the folders of the traces given, the server's own `scratch`, and the bundled demonstration.
    """

    traces: tuple[Path, ...]
    roots: tuple[Path, ...]


def launched(arguments: Sequence[str] | None = None) -> Launch:
    """Read the command line; what it does not know is left to whoever put it there."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--root", action="append", type=Path, default=[])
    known, _ = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    traces = tuple(path.expanduser().absolute() for path in known.traces)
    folders = [*(known.root or [Path.cwd()]), *(path.resolve().parent for path in traces), scratch(), DEMO]
    return Launch(traces, tuple(dict.fromkeys(folder.expanduser().resolve() for folder in folders)))
