"""The table of families says what is tested, and is complete."""

from __future__ import annotations

import re
from typing import Any

import pytest

from vico_lens.errors import InputError
from vico_lens.testing.pipelines import tiny_pipeline, tiny_pipelines
from vico_lens.testing.pipelines.releases import SINCE, older_than
from vico_lens.tracing.families import FAMILIES, Family, Rule, family_of
from vico_lens.tracing.families.listing import as_markdown, listed_families


def test_every_tiny_pipeline_is_claimed_once_and_nothing_else_is_claimed() -> None:
    claimed = [name for line in listed_families() for name in line.proven]
    assert sorted(claimed) == sorted(tiny_pipelines())


@pytest.mark.skipif(older_than("0.42"), reason="the table also names classes of newer releases of diffusers")
def test_rows_name_classes_that_diffusers_has() -> None:
    import diffusers

    known = set(dir(diffusers)) | {"PIAPipeline", "VideoToVideoSDPipeline"}
    for line in listed_families():
        missing = [name for name in line.pipelines if name not in known]
        assert not missing, f"{line.name}: {missing}"


def test_what_a_release_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(SINCE) < set(tiny_pipelines())
    monkeypatch.setattr("vico_lens.testing.pipelines.releases.version", lambda _: "0.38.0")
    with pytest.raises(InputError, match=r"anyflow-t2v needs diffusers 0\.39 or newer, 0\.38\.0 is installed"):
        tiny_pipeline("anyflow-t2v")
    assert tiny_pipeline("latte-t2v").name == "latte-t2v"


def test_no_class_is_in_two_rows_and_every_left_out_site_has_a_reason() -> None:
    classes = [name for line in listed_families() for name in line.pipelines]
    assert len(classes) == len(set(classes))
    for name in FAMILIES:
        for rule in FAMILIES[name].rules:
            re.compile(rule.path)
            assert (rule.kind is None) == bool(rule.reason)


def test_markdown_has_a_row_for_each() -> None:
    assert len(as_markdown().splitlines()) == 2 + len(FAMILIES)
    assert "| Latte | `LattePipeline` | spatial, cross, temporal |" in as_markdown()


def test_a_third_party_row_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class MyPipeline: ...

    row = Family("mine", "Mine", ("MyPipeline",), ("MyModel",), (Rule("attn$", "spacetime"),))
    monkeypatch.setattr(
        "vico_lens.vocabulary.registry.entry_points", lambda group: [_Point(row)] if group == "vico_lens.families" else []
    )
    monkeypatch.setattr(FAMILIES, "_loaded", False)
    assert family_of(MyPipeline()) is row
    FAMILIES.remove("mine")


class _Point:
    name = "mine"

    def __init__(self, row: Any) -> None:
        self._row = row

    def load(self) -> Any:
        return self._row
