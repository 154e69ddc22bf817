"""Verbs that only tell: methods, models, doctor; and what holds for every verb."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import vico_lens as vl
from vico_lens import __version__
from vico_lens.cli.app import VERBS
from vico_lens.cli.output import columns, plain, size, to_json
from vico_lens.tracing.families import FAMILIES


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(run: Callable, verb: str) -> None:
    result = run(verb, "--help")
    assert result.code == 0
    assert "--json" in result.out


@pytest.mark.parametrize("arguments", [["--wrong"], ["nosuchverb"], ["methods", "--nosuchoption"], ["methods", "extra"], []])
def test_wrong_use_is_exit_code_2(run: Callable, arguments: list[str]) -> None:
    assert run(*arguments).code == 2


def test_version(run: Callable) -> None:
    assert run("--version").out.strip() == f"vico-lens {__version__}"


def test_the_console_script_starts_fast_and_without_torch() -> None:
    code = (
        "import sys\n"
        "from vico_lens.cli.app import build_app\n"
        "build_app()\n"
        "sys.exit(bool({'torch', 'diffusers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_methods_tells_what_is_declared(run: Callable) -> None:
    listed = run("methods", "--json").json
    assert set(listed) == set(vl.methods())
    assert listed["subgraph_flow"]["differentiable"] is True
    text = run("methods").out
    assert all(name in text for name in listed)


def test_models_lists_every_family(run: Callable) -> None:
    listed = run("models", "--json").json
    assert set(listed["families"]) == set(FAMILIES)
    assert "AnimateDiffPipeline" in listed["families"]["animatediff"]["pipelines"]
    assert "AnimateDiff" in run("models").out


def test_doctor_exit_code_says_whether_something_is_missing(run: Callable) -> None:
    result = run("doctor", "--json")
    report = result.json
    assert result.code == (1 if report["missing"] else 0)
    assert report["packages"]["torch"] is not None
    assert Path(report["ffmpeg"]).is_file()
    assert ("bundled" in " ".join(report["missing"])) == (report["bundled_model"] is None)


def test_doctor_names_what_to_install(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError, version

    def without_captum(name: str) -> str:
        if name == "captum":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("vico_lens.cli.doctor.version", without_captum)
    result = run("doctor")
    assert result.code == 1
    assert "pip install captum" in result.out


def test_dash_says_what_is_missing(run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("dash")
    assert result.code == 1
    assert "vico-lens[dash]" in result.line
    assert run("dash", tmp_path / "missing.zarr").code == 2


def test_json_is_always_valid() -> None:
    assert plain({"a": float("inf"), 1: {2.0}}) == {"a": None, "1": [2.0]}
    assert to_json({"é": float("nan")}) == '{\n  "é": null\n}'


def test_columns_align() -> None:
    text = columns([["one", 1.0, True], ["three", 22.5, None]], ["name", "value", "flag"])
    assert text.splitlines() == ["name    value  flag", "one     1.000  yes", "three  22.500  -"]
    assert columns([], ["name"]) == "name"


@pytest.mark.parametrize(("count", "text"), [(12, "12 bytes"), (1500, "1.5 kB"), (3e13, "30.0 TB")])
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text
