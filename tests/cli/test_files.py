"""Outputs are whole or not there, and what may go wrong is found before work starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from vico_lens.cli.files import check_input, check_output, staged
from vico_lens.errors import InputError, StoreError


def listing(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_a_file_appears_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "report.html"
    with staged(target) as partial:
        assert partial.suffix == ".html"
        partial.write_text("done")
        assert not target.exists()
    assert target.read_text() == "done"
    assert listing(target.parent) == {"report.html"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: type[BaseException], kind: str) -> None:
    def fail() -> None:
        with staged(tmp_path / "new" / "out") as partial:
            if kind == "file":
                partial.write_text("half")
            else:
                partial.mkdir()
                (partial / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert listing(tmp_path) == set()


def test_a_failure_keeps_the_output_that_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(ValueError, match="on purpose"), staged(target, overwrite=True) as partial:
        partial.write_text("half")
        raise ValueError("on purpose")
    assert target.read_text() == "old"
    assert listing(tmp_path) == {"out.txt"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_existing_output_needs_overwrite(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("old")
    else:
        target.mkdir()
        (target / "summary.json").write_text("old")
    with pytest.raises(InputError, match="--overwrite"):
        check_output(target, overwrite=False)
    with staged(target, overwrite=True, holds={"summary.json"}) as partial:
        partial.write_text("new")
    assert target.read_text() == "new"
    assert listing(tmp_path) == {"out"}


def test_a_folder_with_foreign_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds 'thesis\.tex'"), staged(tmp_path, overwrite=True, holds={"summary.json"}):
        pass
    assert listing(tmp_path) == {"thesis.tex"}


@pytest.mark.parametrize("place", ["/proc/out.html", "/proc/deep/out.html"])
def test_a_folder_that_cannot_be_written_is_found_before_work(place: str) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        check_output(Path(place), overwrite=False)


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        check_output(tmp_path / "file" / "out.html", overwrite=False)


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a recorded trace at .*run\.zarr"):
        check_input(tmp_path / "run.zarr", "a recorded trace")
