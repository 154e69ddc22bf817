"""What balancing costs: the command keeps what it measures, and the table is made of what was kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import balancing

ROWS = [("plain", 1.0, 100e6), ("default", 1.6, 120e6), ("plain", 3.0, 101e6), ("plain", 2.0, 102e6)]


def test_every_run_is_kept_and_the_table_holds_medians(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancing, "RAW", tmp_path / "balancing.jsonl")
    numbers = iter(ROWS)

    def fake(model: str, variant: str) -> dict[str, float]:
        wanted, seconds, peak = next(numbers)
        assert (model, variant) == ("bundled", wanted)
        return {"seconds": seconds, "peak": peak, "forwards": 50.0 if variant == "plain" else 70.0}

    monkeypatch.setattr(balancing, "alone", fake)
    for line in (["bundled", "plain"], ["bundled", "default"], ["bundled", "plain", "--repeats", "2"]):
        balancing.main(line)
    kept = [json.loads(line) for line in (tmp_path / "balancing.jsonl").read_text().splitlines()]
    assert [(row["variant"], row["seconds"], row["peak"]) for row in kept] == ROWS
    page = (tmp_path / "balancing.md").read_text()
    assert "| bundled | plain | 3 | 2.00 | 1.00 | 101 MB | 1.00 |" in page
    assert "| bundled | default | 1 | 1.60 | 0.80 | 120 MB | 1.40 |" in page
    with pytest.raises(SystemExit):
        balancing.main(["bundled", "checkpointed"])


def test_the_kept_table_is_that_of_the_kept_rows() -> None:
    rows = [json.loads(line) for line in balancing.RAW.read_text().splitlines()]
    assert balancing.tabulate(rows) in balancing.RAW.with_suffix(".md").read_text()
