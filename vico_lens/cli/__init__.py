"""The command line ``vico-lens``: one file a verb. Words of a command line come in, text or JSON and an exit code go out.

A verb asks the rooms below and prints what they answer; nothing imports this room.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave the process with its exit code: 0 done, 1 failed, 2 wrong use."""
    import signal

    from vico_lens.cli.app import build_app
    from vico_lens.cli.output import accept_any_text

    accept_any_text()
    # A scheduler that stops a job sends SIGTERM: then clean up as after Ctrl-C, and leave nothing half-written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    build_app()()
