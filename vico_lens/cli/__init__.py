"""The command line ``vico-lens``: one file a verb, each of which only asks the floors below and prints what they answer."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave the process with its exit code: 0 done, 1 failed, 2 wrong use."""
    import signal

    from vico_lens.cli.app import build_app

    # A scheduler that stops a job sends SIGTERM: then clean up as after Ctrl-C, and leave nothing half-written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    build_app()()
