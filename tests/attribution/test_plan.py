"""Plans of attribution: what will be read and held, said and refused before it is."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

import vico_lens as vl
from vico_lens.attribution import facade, stages_from_trace
from vico_lens.attribution import plan as planning
from vico_lens.attribution.base import methods
from vico_lens.attribution.plan import Plan, plan_of
from vico_lens.errors import AttributionError
from vico_lens.store.stored_factors import StoredFactors
from vico_lens.testing.traces import fake_trace


def test_bytes_and_operations_are_those_of_the_factors(tmp_path: Path) -> None:
    tree = fake_trace("joint", to=tmp_path / "a.zarr", form="factors", grid=(4, 4, 4), tokens=20, heads=2, head_size=8, blocks=2)
    stages = stages_from_trace(tree, 1)
    plan = plan_of(stages, methods()["rollout"], steps=2)
    nodes = 20 + 64
    assert plan.sites == 2 and plan.steps == 2
    assert plan.read == 2 * 2 * (2 * nodes * 8 * 2 * 4)  # steps, sites, heads x nodes x channels x (query, key) in float32
    assert plan.operations == 2 * 2 * (2 * 2 * 2 * 8 * nodes**2)  # two products of 2 n^2 d operations a head


def test_stored_weights_are_counted_whole(tmp_path: Path) -> None:
    tree = fake_trace("spacetime", to=tmp_path / "a.zarr", form="weights", heads=2)
    plan = plan_of(stages_from_trace(tree, 1), methods()["rollout"])
    largest = 64 * 64
    assert plan.held == 3 * 4 * largest and plan.operations == 0  # two heads as stored, and their mean
    assert "attn1" in plan.largest


def test_what_cannot_fit_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = fake_trace("joint", to=tmp_path / "a.zarr", form="factors")
    monkeypatch.setattr(planning, "free_memory", lambda: 1000)
    monkeypatch.setattr(StoredFactors, "read", lambda *_: pytest.fail("read"))
    with pytest.raises(AttributionError, match=r"rollout would hold .* Capture\(store='factors'\)"):
        vl.attribute(tree, "rollout")


class Bar:
    """What was shown, in place of a bar."""

    made: ClassVar[list[Bar]] = []

    def __init__(self, **settings: object) -> None:
        self.settings, self.count = settings, 0
        Bar.made.append(self)

    def update(self) -> None:
        self.count += 1

    def close(self) -> None:
        self.settings["closed"] = True


def test_a_long_request_says_what_it_takes_and_counts_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = fake_trace("joint", to=tmp_path / "a.zarr", form="factors")
    monkeypatch.setattr("tqdm.tqdm", Bar)
    monkeypatch.setattr(Bar, "made", [])
    vl.attribute(tree, "rollout")
    assert not Bar.made
    monkeypatch.setattr(facade, "_LONG", 0.0)
    vl.attribute(tree, "rollout")
    (bar,) = Bar.made
    assert str(bar.settings["desc"]).startswith("rollout of 2 sites, 2 steps: reads")
    assert bar.count == bar.settings["total"] == 4 and bar.settings["closed"]


def test_an_interrupted_request_ends_at_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = fake_trace("joint", to=tmp_path / "a.zarr", form="factors")
    seen = []

    def stop(self: object, device: object = None) -> object:
        seen.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(StoredFactors, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        vl.attribute(tree, "rollout")
    assert len(seen) == 1


def test_the_rate_is_measured_once() -> None:
    assert planning.rate() > 1e8 and planning.rate() == planning.rate()
    assert "about 2 minutes" in str(Plan("rollout", 1, 1, 0, 0, 0, 120.0, ""))
