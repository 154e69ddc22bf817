"""Every code block of README and docs is run, or, where it cannot be, its imports, calls and options are checked."""

from __future__ import annotations

import builtins
import contextlib
import doctest
import functools
import importlib.util
import io
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from markdown_blocks import DOCS, ROOT, CodeBlock, blocks_of, continues, pages
from static_checks import check_source
from typer.testing import CliRunner

from vico_lens.cli.app import build_app

Names = dict[str, Any]

LANGUAGES = {"python", "bash", "text", "toml", "html", "dockerfile", "bibtex", "nginx", "ini"}

# Verbs that other tests run from beginning to end, or that serve until they are stopped.
ONLY_PARSED = {"demo", "dash"}

# Other people's programs: nothing of ours to check in them.
FOREIGN = {"pip", "git", "cd", "docker", "conda", "uv", "python3.12", "pre-commit", "."}


@pytest.fixture(scope="module")
def app() -> Any:
    return typer.main.get_command(build_app())


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory, app: Any) -> Callable[[Path], tuple[Names, Path]]:
    """Names and folder at the end of a page; each page is run once, however many others continue it."""

    @functools.cache
    def end_of(page: Path) -> tuple[Names, Path]:
        names: Names = {"__name__": "__main__"}
        folder = tmp_path_factory.mktemp(page.stem)
        start = continues(page)
        if start is not None:
            known, files = end_of(start)
            names.update(known)
            for entry in files.iterdir():
                (folder / entry.name).symlink_to(entry)
        _run_page(page, names, folder, app)
        return names, folder

    return end_of


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_page(page: Path, ends: Callable[[Path], tuple[Names, Path]]) -> None:
    ends(page)


def test_every_block_names_its_language() -> None:
    unknown = [
        f"{block.place}: {block.language!r}" for page in pages() for block in blocks_of(page) if block.language not in LANGUAGES
    ]
    assert not unknown


def test_what_is_run_elsewhere_is_there() -> None:
    marks = [block.mark.partition("elsewhere:")[2].strip() for page in pages() for block in blocks_of(page)]
    assert [path for path in marks if path and not (ROOT / path).exists()] == []


def test_the_checks_find_what_they_should() -> None:
    names: Names = {}
    check_source("import vico_lens as vl\npipe = vl.load_pipeline('folder', device='cuda')", names)
    for wrong in ("vl.load_pipelin()", "vl.trace(pipe, too='x')", "from vico_lens import traces", "vl.open_trace()"):
        with pytest.raises(AssertionError):
            check_source(wrong, dict(names))


def _run_page(page: Path, names: Names, folder: Path, app: Any) -> None:
    printed = ""
    checked: Names = {}
    with contextlib.chdir(folder), _quiet():
        for block in blocks_of(page):
            with _told_where(block):
                if block.language == "python" and not block.runs:
                    checked.update({name: value for name, value in names.items() if not name.startswith("__")})
                    check_source(block.text, checked)
                elif block.language == "python":
                    printed = _run_python(block, names)
                elif block.language == "bash":
                    printed = "".join(_run_command(words, block, app) for words in _commands(block.text))
                elif block.language == "toml":
                    tomllib.loads(block.text)
                elif block.mark == "output":
                    _compare(block.text, printed)


def _run_python(block: CodeBlock, names: Names) -> str:
    output = io.StringIO()
    # Errors point at the page: the block is compiled where it stands in it.
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec", dont_inherit=True)
    with contextlib.redirect_stdout(output):
        if block.raises is None:
            exec(code, names)
        else:
            import vico_lens.errors

            kind = getattr(vico_lens.errors, block.raises, None) or getattr(builtins, block.raises)
            with pytest.raises(kind) as caught:
                exec(code, names)
            assert caught.type is kind, f"expected {block.raises}, got {caught.type.__name__}"
            output.write(f"{block.raises}: {caught.value}")
    return output.getvalue()


def _commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def _run_command(words: list[str], block: CodeBlock, app: Any) -> str:
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program == "vico-lens":
        return _run_verb(arguments, block, app)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        wanted = [word for word in arguments if "=" not in word]
        assert set(wanted) <= set(targets), f"the Makefile has no target {wanted}"
    elif program.startswith("python") and arguments[:1] == ["-m"]:
        if arguments[1] in FOREIGN:
            return ""
        assert importlib.util.find_spec(arguments[1]) is not None, f"there is no module {arguments[1]}"
    elif program in ("python", "streamlit", "jupyter"):
        paths = [word for word in arguments if word.endswith((".py", ".ipynb"))]
        assert paths and all((ROOT / path).is_file() for path in paths), f"there is no file {paths}"
    else:
        assert program in FOREIGN, f"do not know how to check {program!r}"
    return ""


def _run_verb(arguments: list[str], block: CodeBlock, app: Any) -> str:
    verb = next((word for word in arguments if not word.startswith("-")), "")
    if verb and (not block.runs or verb in ONLY_PARSED):
        assert verb in app.commands, f"there is no verb {verb}"
        app.commands[verb].make_context(verb, arguments[1:], resilient_parsing=False)
        return ""
    result = CliRunner().invoke(build_app(), arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert (result.exit_code != 0) == bool(block.raises), f"exit code {result.exit_code}: {result.stderr}"
    return result.stdout + (result.stderr if block.raises else "")


def _compare(expected: str, printed: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    example = doctest.Example("", expected)
    if not doctest.OutputChecker().check_output(expected, printed.rstrip() + "\n", flags):
        raise AssertionError(doctest.OutputChecker().output_difference(example, printed, flags))


@contextlib.contextmanager
def _told_where(block: CodeBlock) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"in the block at {block.place}")
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a page registers or seeds from reaching the next one."""
    from vico_lens.attribution.base import METHODS
    from vico_lens.intervention.balancing.objectives import objectives
    from vico_lens.tracing.families import FAMILIES

    before = [(registry, set(registry)) for registry in (METHODS, objectives, FAMILIES)]
    state = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
        for registry, names in before:
            for name in set(registry) - names:
                registry.remove(name)


def test_pages_continue_pages_that_are_there() -> None:
    assert all(start.is_file() for page in pages() if (start := continues(page)) is not None)
    assert DOCS.is_dir()
