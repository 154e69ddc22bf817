"""Which verbs there are, and what becomes of an error: one line on standard error and an exit code, never a traceback.

Exit codes: 0 done, 1 failed (`VicoLensError`, a full disk, an interrupt), 2 wrong use (`InputError`, an unknown option).
Anything else is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer

from vico_lens import __version__
from vico_lens.errors import InputError, VicoLensError

__all__ = ["VERBS", "build_app"]

FAILED, WRONG_USE = 1, 2

VERBS = (
    "demo",
    "trace",
    "attribute",
    "balance",
    "knockout",
    "sweep",
    "compare",
    "report",
    "inspect",
    "dash",
    "methods",
    "models",
    "doctor",
)
"""In the order in which ``--help`` lists them. The verb `x` is the function `x` in the file ``vico_lens/cli/x.py``."""


def build_app() -> typer.Typer:
    """Return the command line with all its verbs."""
    app = typer.Typer(
        name="vico-lens",
        help="Trace, attribute and balance attention flow in text-to-video diffusion models.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for verb in VERBS:
        app.command(verb)(_reporting(getattr(import_module(f"vico_lens.cli.{verb}"), verb)))
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vico-lens {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
) -> None:
    pass


def _reporting(verb: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors of a verb into one line on standard error and an exit code."""

    @functools.wraps(verb)
    def run(*args: Any, **options: Any) -> None:
        try:
            verb(*args, **options)
        except InputError as error:
            _fail(error, WRONG_USE)
        except (VicoLensError, OSError) as error:
            _fail(error, FAILED)
        except KeyboardInterrupt:
            _fail("interrupted", FAILED)

    return run


def _fail(message: object, code: int) -> None:
    line = " ".join(str(message).split()) or type(message).__name__
    print(f"vico-lens: error: {line}", file=sys.stderr)
    raise typer.Exit(code)
