"""The writer's bound: with a disk that stands still, the model is made to wait, and no more is held than was allowed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vico_lens.store import zarrfile
from vico_lens.store.background import Background
from vico_lens.store.writer import TraceWriter
from vico_lens.testing.traces import fake_calls, fake_sites, fake_tokens


def test_work_waits_once_the_bound_is_reached() -> None:
    gate, done, work = threading.Event(), [], Background(100)
    work.submit(lambda: (gate.wait(10), done.append("first")), 60)
    work.submit(lambda: done.append("second"), 40)  # together exactly the bound
    third = threading.Thread(target=lambda: work.submit(lambda: done.append("third"), 1))
    third.start()
    third.join(0.2)
    assert third.is_alive() and done == []
    gate.set()
    third.join(10)
    work.drain()
    work.stop()
    assert done == ["first", "second", "third"]


def test_one_piece_above_the_bound_is_let_in_alone() -> None:
    work, done = Background(10), []
    work.submit(lambda: done.append("large"), 1000)
    work.drain()
    work.stop()
    assert done == ["large"]


def test_the_model_waits_for_a_disk_that_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = [site for site in fake_sites("spacetime", grid=(4, 8, 8), blocks=6) if site.kind == "spacetime"]
    calls = fake_calls(sites)
    one = calls[0].query.nbytes + calls[0].key.nbytes  # what waits of a call; its map is made by the thread that writes it
    gate, original = threading.Event(), zarrfile.write_file
    writer = TraceWriter(tmp_path / "run.zarr", form="weights", queue_bytes=2 * one)
    writer.start({"prompt": "p"}, [fake_tokens()])
    writer.flush()

    def standing(path: str, data: bytes) -> None:
        gate.wait(20)
        original(path, data)

    monkeypatch.setattr(zarrfile, "write_file", standing)
    handed: list[int] = []
    model = threading.Thread(target=lambda: [(writer.write(call), handed.append(1)) for call in calls])
    model.start()
    model.join(1.0)
    waiting, count = model.is_alive(), len(handed)
    gate.set()
    model.join(20)
    writer.finish_step(0)
    tree = writer.close()
    assert waiting and count == 2
    assert tree["spacetime/4x8x8"].sizes["layer"] == len(calls)
