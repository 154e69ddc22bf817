"""``vico-lens dash``: the command it runs, and what it refuses before it starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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
