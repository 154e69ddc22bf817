"""``vico-lens dash``: the command it runs, and what it refuses before it starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vico_lens.cli import dash
from vico_lens.tinyworld.demonstration import demo_trace


def test_the_command_listens_locally_and_names_traces_and_roots(run: Callable, tmp_path: Path) -> None:
    told = json.loads(run("dash", demo_trace(), "--root", tmp_path, "--port", 8600, "--json").out)
    command = told["command"]
    assert command[command.index("--server.address") + 1] == "localhost" and told["url"] == "http://localhost:8600"
    assert Path(command[command.index("run") + 1]).is_file()
    assert command[command.index("--") + 1 :] == [str(demo_trace()), "--root", str(tmp_path)]


def test_a_root_that_is_no_folder(run: Callable, tmp_path: Path) -> None:
    result = run("dash", "--root", tmp_path / "missing")
    assert result.code == 2 and "--root" in result.line


@pytest.mark.timeout(180)
def test_sigterm_ends_the_command_and_its_server_within_five_seconds(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from vico_lens.cli import main; main()", "dash", "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STREAMLIT_SERVER_HEADLESS": "true"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
        try:
            while not answers(port):
                assert server.poll() is None
                time.sleep(0.2)
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            assert time.monotonic() - began < 5
            assert not answers(port)
        finally:
            server.kill()


def answers(port: int) -> bool:
    """Whether something listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def test_a_server_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dash, "PATIENCE", 0.5)
    stubborn = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a fresh process, whatever ran before
    signals = threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    signals.start()
    began = time.monotonic()
    try:
        assert dash._run([sys.executable, "-c", stubborn]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 10
