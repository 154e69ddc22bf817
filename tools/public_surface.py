"""Write down the public surface: what `tests/test_public_surface.py` compares with the committed ``tests/public_surface.txt``.

``python -m tools.public_surface`` writes the file again. A change of it is a change for users: name it in the changelog.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import vico_lens

__all__ = ["SNAPSHOT", "surface"]

ROOT = Path(__file__).parents[1]
SNAPSHOT = ROOT / "tests" / "public_surface.txt"


class Annotation(str):
    """An annotation that prints without quotes, as it stands in the source."""

    __slots__ = ()
    __repr__ = str.__str__


def signature_of(value: Any) -> str:
    """Return parameters and result of a callable as they stand in the source."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""

    def plain(annotation: Any) -> Any:
        return Annotation(annotation.strip("\"'")) if isinstance(annotation, str) else annotation

    parameters = [parameter.replace(annotation=plain(parameter.annotation)) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=plain(signature.return_annotation)))


def described(path: str, value: Any) -> Iterator[str]:
    """Yield a line for a name, and one for each public member of a class."""
    if inspect.isclass(value):
        yield f"class {path}{signature_of(value)}"
        for name, member in sorted(vars(value).items()):
            if name.startswith("_"):
                continue
            if isinstance(member, (classmethod, staticmethod)):
                member = member.__func__
            if isinstance(member, property):
                yield f"    {name}: property"
            elif inspect.isroutine(member):
                yield f"    {name}{signature_of(member)}"
    elif inspect.isroutine(value):
        yield f"def {path}{signature_of(value)}"
    else:
        yield f"{path}: {type(value).__name__}"


def resolved(path: str) -> Any:
    """Return the object at a dotted path: a module, or a name in one."""
    try:
        return importlib.import_module(path)
    except ImportError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def names() -> Iterator[str]:
    """Yield the public names, and what the public subpackages hold."""
    for name in vico_lens.__all__:
        value = getattr(vico_lens, name)
        if inspect.ismodule(value):
            for member in sorted(value.__all__):
                yield from described(f"vico_lens.{name}.{member}", getattr(value, member))
        else:
            yield from described(f"vico_lens.{name}", value)


def deep_names() -> Iterator[str]:
    """Yield the names of the API pages by the modules that define them."""
    pages = (page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference" / "api").glob("*.md"))
    paths = sorted({path for page in pages for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE)})
    public = [getattr(vico_lens, name) for name in vico_lens.__all__]
    public += [getattr(module, name) for module in public if inspect.ismodule(module) for name in module.__all__]
    for path in paths:
        value = resolved(path)
        if inspect.ismodule(value):
            for member in sorted(value.__all__):
                yield from described(f"{path}.{member}", getattr(value, member))
        elif any(value is other for other in public):
            yield f"{path}: as above"
        else:
            yield from described(path, value)


def command_line() -> Iterator[str]:
    """Yield each verb with its arguments and options."""
    from vico_lens.cli.app import build_app

    group: Any = typer.main.get_command(build_app())
    for verb, command in group.commands.items():
        yield f"vico-lens {verb}"
        for parameter in command.params:
            option = bool(parameter.opts) and parameter.opts[0].startswith("-")
            spelled = ", ".join([*parameter.opts, *parameter.secondary_opts]) if option else parameter.name.upper()
            required = "required" if parameter.required else f"default {parameter.default}"
            yield f"    {spelled}: {'flag, ' if getattr(parameter, 'is_flag', False) else ''}{required}"


def plugins() -> Iterator[str]:
    """Yield the groups that other packages extend, and what this package registers with others."""
    from vico_lens.attribution.base import METHODS
    from vico_lens.intervention.balancing.objectives import objectives
    from vico_lens.tracing.families import FAMILIES
    from vico_lens.vocabulary.schema import SCHEMA_VERSION

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    for group, entries in sorted(declared.items()):
        yield f"{group}: {', '.join(f'{name} = {target}' for name, target in entries.items())}".rstrip(": ")
    for title, registry in (("attribution methods", METHODS), ("objectives", objectives), ("families", FAMILIES)):
        yield f"{title}: {', '.join(sorted(registry))}"
    yield f"version of the trace schema: {SCHEMA_VERSION}"


def surface() -> str:
    """Return the public surface as text."""
    parts = {
        "Public names": names(),
        "Deeper names on the API pages": deep_names(),
        "Command line": command_line(),
        "Plug-ins and schema": plugins(),
    }
    return "\n".join(f"# {title}\n" + "\n".join(lines) + "\n" for title, lines in parts.items())


if __name__ == "__main__":
    SNAPSHOT.write_text(surface(), encoding="utf-8")
