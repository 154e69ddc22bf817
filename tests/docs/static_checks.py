"""What can be said of code without running it: it compiles, what it imports is there, and its calls fit their signatures."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

_PLACEHOLDER = object()


def check_source(source: str, names: dict[str, Any]) -> None:
    """Check a block that is not run; what it imports is added to `names`, for the blocks after it."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = importlib.import_module(alias.name)
                names[alias.asname or alias.name.partition(".")[0]] = (
                    module if alias.asname else importlib.import_module(alias.name.partition(".")[0])
                )
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"line {node.lineno}: a relative import in a page"
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"line {node.lineno}: {node.module} has no {alias.name}"
                names[alias.asname or alias.name] = getattr(module, alias.name)
    rebound = {name for node in ast.walk(tree) for name in _assigned(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _check_call(node, {name: value for name, value in names.items() if name not in rebound})


def _assigned(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name


def _check_call(call: ast.Call, names: dict[str, Any]) -> None:
    """Bind the arguments of a call to the signature of what is called, where that is known without running anything."""
    function = _resolved(call.func, names)
    if function is None or any(isinstance(argument, ast.Starred) for argument in call.args):
        return
    if any(keyword.arg is None for keyword in call.keywords):
        return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    arguments = [_PLACEHOLDER] * len(call.args)
    try:
        signature.bind(*arguments, **{str(keyword.arg): _PLACEHOLDER for keyword in call.keywords})
    except TypeError as error:
        raise AssertionError(f"line {call.lineno}: {ast.unparse(call.func)}(...): {error}") from None


def _resolved(node: ast.expr, names: dict[str, Any]) -> Any:
    """The object that a dotted name stands for, if it starts at an import; an attribute that is not there is an error."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolved(node.value, names)
        if owner is None or not (inspect.ismodule(owner) or inspect.isclass(owner)):
            return None
        assert hasattr(owner, node.attr), f"line {node.lineno}: {ast.unparse(node.value)} has no {node.attr}"
        return getattr(owner, node.attr)
    return None
