"""Every public name has an example in its documentation; that the examples run is the business of ``--doctest-modules``."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import vico_lens
from vico_lens import attribution, errors, plot, report, testing, tinyworld
from vico_lens.intervention import balancing

API = Path(__file__).parents[2] / "docs" / "reference" / "api"
PACKAGES = [attribution, balancing, errors, plot, report, testing, tinyworld, vico_lens]
SHOWN = sorted({name for page in API.glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)})


def resolved(path: str) -> Any:
    """The object at a dotted path; the module where a function has its module's name."""
    try:
        return importlib.import_module(path)
    except ImportError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def has_example(value: Any) -> bool:
    """Whether its own documentation, or that of a method of a class, holds an example."""
    texts = [inspect.getdoc(value) or ""]
    if inspect.isclass(value):
        members = [member for name, member in vars(value).items() if not name.startswith("_")]
        told = [member for member in members if callable(member) or isinstance(member, (property, classmethod))]
        texts += [inspect.getdoc(member) or "" for member in told]
    return any(">>>" in text for text in texts)


@pytest.mark.parametrize("path", SHOWN)
def test_every_name_of_the_api_pages_has_an_example(path: str) -> None:
    value = resolved(path)
    parts = [getattr(value, name) for name in value.__all__] if inspect.ismodule(value) else [value]
    assert [part.__name__ for part in parts if not has_example(part)] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_on_an_api_page(package: Any) -> None:
    shown = [resolved(path) for path in SHOWN]
    shown += [getattr(value, name) for value in shown if inspect.ismodule(value) for name in value.__all__]
    values = {name: getattr(package, name) for name in package.__all__}
    missing = [
        name
        for name, value in values.items()
        if (inspect.isroutine(value) or inspect.isclass(value)) and not any(value is other for other in shown)
    ]
    assert missing == []
