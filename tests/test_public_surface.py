"""Names, signatures, verbs, options and plug-in groups that users rely on: a change is made on purpose, never by accident."""

from __future__ import annotations

import difflib

from tools.public_surface import SNAPSHOT, surface


def test_public_surface_is_the_committed_one() -> None:
    committed, current = SNAPSHOT.read_text(encoding="utf-8"), surface()
    changes = difflib.unified_diff(committed.splitlines(), current.splitlines(), "committed", "current", n=0, lineterm="")
    assert list(changes) == [], "if the change is meant, run `python -m tools.public_surface` and name it in CHANGELOG.md"


def test_the_surface_holds_signatures_options_and_groups() -> None:
    lines = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    assert "def vico_lens.methods() -> dict[str, Method]" in lines
    assert "vico_lens.methods" in lines
    verb = lines.index("vico-lens demo")
    assert lines[verb + 1].startswith("    --out, -o:")
