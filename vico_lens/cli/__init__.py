"""The command line ``vico-lens``: one file a verb, each of which only asks the floors below and prints what they answer."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave the process with its exit code: 0 done, 1 failed, 2 wrong use."""
    from vico_lens.cli.app import build_app

    build_app()()
