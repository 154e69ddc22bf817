"""A method from another package, by entry point, and one of the user's own: in the library and at the shell."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import torch
from typer.testing import CliRunner

import vico_lens as vl
from vico_lens.attribution.base import METHODS, Method
from vico_lens.cli.app import build_app
from vico_lens.testing.traces import fake_trace
from vico_lens.vocabulary import registry


def centre(problem):
    """Everything belongs to the middle of the frame."""
    maps = torch.zeros(len(problem.tokens), *problem.grid)
    maps[:, :, problem.grid[1] // 2, problem.grid[2] // 2] = 1
    return maps


@pytest.fixture
def plugin(monkeypatch):
    """A package that declares an entry point in the group of methods, as seen by a fresh process."""
    module = ModuleType("their_package")
    module.centre = Method("centre", centre, cost="none", references="theirs")
    monkeypatch.setitem(sys.modules, "their_package", module)
    point = EntryPoint("centre", "their_package:centre", METHODS.group)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == METHODS.group else [])
    monkeypatch.setattr(METHODS, "_loaded", False)
    yield
    METHODS.remove("centre")


def test_a_method_of_another_package_is_found_by_its_entry_point(plugin):
    assert METHODS.group == "vico_lens.methods"
    assert vl.methods()["centre"].summary == "Everything belongs to the middle of the frame."
    influence = vl.attribute(fake_trace(), "centre", ["red circle"], steps=0)
    assert float(influence.isel(y=2, x=2).sum()) == float(influence.sum()) == influence.sizes["frame"]


def shell(*words):
    return CliRunner().invoke(build_app(), [str(word) for word in words])


def test_it_is_listed_and_run_at_the_shell(plugin, tmp_path):
    listed = shell("methods", "--json")
    assert listed.exit_code == 0 and json.loads(listed.stdout)["centre"]["cost"] == "none"
    fake_trace(to=tmp_path / "run.zarr")
    done = shell("attribute", tmp_path / "run.zarr", "--method", "centre", "-c", "red circle", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["method"] == "centre"
    table = shell("compare", tmp_path / "run.zarr", "--methods", "centre,rollout", "--json")
    assert table.exit_code == 0 and json.loads(table.stdout)["coords"]["method"]["data"] == ["centre", "rollout"]


def test_a_comparison_is_drawn_at_the_shell(tmp_path):
    fake_trace(to=tmp_path / "run.zarr")
    page = tmp_path / "compared.html"
    asked = ("compare", tmp_path / "run.zarr", "--methods", "cross_attention,rollout")
    done = shell(*asked, "--out", page)
    assert done.exit_code == 0 and f"written to {page}" in done.stdout
    assert "Rank correlation" in page.read_text() and page.read_text().count("Plotly.newPlot") >= 1
    assert shell(*asked, "--out", page).exit_code == 2, "an existing page is not replaced unasked"
    for wrong in (["--out", "compared.png"], ["--checks"]):
        assert shell(*asked, *wrong).exit_code == 2
