"""Pages of the reference that must say what the code says: tables, errors, terms, and the list of public names."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

import vico_lens
from tools.public_surface import resolved
from vico_lens import errors
from vico_lens.cli.app import VERBS

DOCS = Path(__file__).parents[2] / "docs"


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def slug(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def test_generated_tables_are_what_the_code_says() -> None:
    from tools.tables import TABLES, current, outdated

    assert [str(page) for page in outdated()] == [], "run: python -m tools.tables"
    written = re.findall(r"<!-- table: (\w+) -->", "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")))
    assert sorted(written) == sorted(TABLES)
    assert "| Model |" in current("<!-- table: memory -->\n<!-- end of table -->")


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_a_page_with_cause_and_cure(name: str) -> None:
    page = read(f"reference/errors/{slug(name)}.md")
    assert page.startswith(f"# {name}\n")
    for section in ("## What it means", "## Causes and cures"):
        assert section in page
    assert f"({slug(name)}.md)" in read("reference/errors/index.md")


def test_every_verb_is_on_the_page_of_the_command_line() -> None:
    page = read("reference/command-line.md")
    assert [verb for verb in VERBS if f"`{verb}" not in page] == []


def test_every_public_name_is_on_an_api_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference" / "api").glob("*.md"))
    listed = [name for name in vico_lens.__all__ if f"`vl.{name}`" not in pages]
    assert listed == []


def test_links_into_the_glossary_name_a_term() -> None:
    terms = {heading.lower().replace(" ", "-") for heading in re.findall(r"^### (.+)$", read("glossary.md"), re.MULTILINE)}
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    assert set(re.findall(r"glossary\.md#([\w-]+)", pages)) <= terms


def test_rooms_are_those_that_the_linter_holds() -> None:
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rooms = {name.strip(" ()") for layer in layers for name in layer.split(":")}
    package = Path(vico_lens.__file__).parent
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert folders | {"errors"} == rooms
    for page in (read("explanation/architecture.md"), (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        assert {name for name in rooms if not re.search(rf"^\| `{name}/?` \|", page, re.MULTILINE)} == set()


def test_the_changelog_says_where_moved_modules_went() -> None:
    changelog = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(vico_lens\.[\w.]+)` \| `(vico_lens\.[\w.]+)` \|$", changelog, re.MULTILINE)
    assert len(rows) > 30
    for old, new in rows:
        assert resolved(new) is not None
        with pytest.raises(ImportError):
            importlib.import_module(old)
