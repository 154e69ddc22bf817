"""Every tutorial runs with its answers, says what it stated, and its committed notebook is in step with it."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

from tutorials.tools.notebook import find, mismatches, read, reword, solutions, tags, write
from tutorials.tools.pages import page, write_pages
from tutorials.tools.pictures import freeze
from tutorials.tools.running import run

TUTORIALS = find()
NAMES = [path.stem for path in TUTORIALS]


def made(folder: Path, *cells: str) -> Path:
    """A tutorial of these cells, the first line of each being what follows `# %%`."""
    place = folder / "00_made.py"
    place.write_text("\n".join(f"# %%{cell}\n" for cell in cells), encoding="utf-8")
    return place


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", TUTORIALS, ids=NAMES)
def test_a_tutorial_runs_with_its_answers(path: Path) -> None:
    notebook = run(path)
    checked = [cell for cell in notebook.cells if "exercise" in tags(cell)]
    assert all("your turn" in json.dumps(cell.outputs) for cell in checked), "an open exercise says that it is the reader's turn"


@pytest.mark.parametrize("path", TUTORIALS, ids=NAMES)
def test_a_notebook_is_in_step_with_its_python_file(path: Path) -> None:
    assert mismatches(path) == []


@pytest.mark.parametrize("path", TUTORIALS, ids=NAMES)
def test_a_notebook_is_small_and_shows_without_scripts(path: Path) -> None:
    place = path.with_suffix(".ipynb")
    cells = nbformat.read(place, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert place.stat().st_size < 1_500_000
    assert kinds <= {"image/png", "text/plain", "text/markdown"}
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert all(cell.outputs for cell in cells if "exercise" in tags(cell)), "run `python -m tutorials.tools build`"
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) * 3 <= len(cells)
    assert any("assert" in cell.source for cell in code)


@pytest.mark.parametrize("path", TUTORIALS, ids=NAMES)
def test_a_tutorial_keeps_the_conventions(path: Path) -> None:
    cells = read(path).cells
    opening = cells[0].source
    assert opening.startswith(f"# {path.name[:2]} · ")
    assert "**You will be able to** " in opening and "**Time** " in opening
    assert "../docs/glossary.md#" in "".join(cell.source for cell in cells)
    assert "$" not in "".join(cell.source for cell in cells if cell.cell_type == "markdown"), "the pages load no script for LaTeX"
    assert sum("exercise" in tags(cell) for cell in cells) == 2
    answers = [cell for cell in cells if "answer" in tags(cell)]
    assert len(answers) == 2
    assert all(cell.source.startswith("<details><summary>") and cell.source.endswith("</details>") for cell in answers)
    assert all(any("check_" in code for code in solutions(cell)) for cell in answers)


def test_a_changed_cell_a_new_one_and_a_missing_notebook_are_told(tmp_path: Path) -> None:
    path = made(tmp_path, "\n1 + 1", " [markdown]\n# words")
    assert mismatches(path) == ["00_made.ipynb is missing"]
    write(read(path), path)
    assert mismatches(path) == []
    path.write_text(path.read_text().replace("1 + 1", "1 + 2") + "# %%\n3\n")
    told = mismatches(path)
    assert len(told) == 2 and "'1 + 2', '1 + 1'" in told[0] and "3 cells" in told[1]


def test_new_words_go_into_a_notebook_and_new_code_does_not(tmp_path: Path) -> None:
    path = made(tmp_path, "\n1 + 1", " [markdown]\n# words")
    notebook = read(path)
    notebook.cells[0].outputs = [output(text_plain="2")]
    place = write(notebook, path)
    path.write_text(path.read_text().replace("words", "better words"))
    assert reword(path) and mismatches(path) == []
    assert nbformat.read(place, as_version=4).cells[0].outputs[0].data == {"text/plain": "2"}
    path.write_text(path.read_text().replace("1 + 1", "1 + 2"))
    assert not reword(path) and len(mismatches(path)) == 1


@pytest.mark.slow
def test_running_takes_answers_along_and_leaves_them_out(tmp_path: Path) -> None:
    lines = ["<details><summary>Answer</summary>", "", "```python", "found = seen + 1", "```", "", "</details>"]
    answer = ' [markdown] tags=["answer"]\n' + "\n".join(f"# {line}".rstrip() for line in lines)
    path = made(tmp_path, "\nseen = 1", answer, "\nassert found == 2\nprint(found)")
    cells = run(path).cells
    assert [cell.cell_type for cell in cells] == ["code", "markdown", "code"]
    assert cells[2].outputs[0].text == "2\n" and [cells[0].execution_count, cells[2].execution_count] == [1, 2]
    assert path.parent == tmp_path and sorted(place.name for place in tmp_path.iterdir()) == ["00_made.py"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("assert 1 == 2", CellExecutionError, "AssertionError"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))", CellExecutionError, "must not use the network"),
        ("import warnings\nwarnings.warn('look out')", RuntimeError, "look out"),
    ],
)
def test_running_refuses(tmp_path: Path, code: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run(made(tmp_path, "\n" + code))


def output(**data: Any) -> Any:
    kinds = {name.replace("_", "/", 1): value for name, value in data.items()}
    return nbformat.v4.new_output("display_data", data=kinds)


def test_a_page_has_links_pictures_and_folded_answers_of_its_notebook() -> None:
    code = nbformat.v4.new_code_cell("1 + 1")
    code.outputs = [output(image_png="aGVsbG8=", text_plain="Figure: two <b>maps</b>"), output(text_plain="2")]
    words = "[flow](../docs/glossary.md#max-flow) [next](03_flow.ipynb) [paper](https://arxiv.org/abs/1)\n<details><summary>A</summary>"
    text, pictures = page(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(words), code]), "02_made")
    assert "[flow](../glossary.md#max-flow) [next](03_flow.md) [paper](https://arxiv.org/abs/1)" in text
    assert '<details markdown="1"><summary>A</summary>' in text
    assert "![Figure: two  maps](02_made_1.png)" in text and pictures == {"02_made_1.png": b"hello"}
    assert "```python\n1 + 1\n```" in text and "``` {.text .output}\n2\n```" in text


def test_a_link_that_leaves_the_documentation_is_refused() -> None:
    astray = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("[code](../vico_lens/graph.py)")])
    with pytest.raises(ValueError, match="expected"):
        page(astray, "00_made")


def test_html_is_left_out_of_a_notebook() -> None:
    cell = nbformat.v4.new_code_cell("tree")
    cell.outputs = [output(text_html="<table>", text_plain="a table")]
    frozen = freeze(nbformat.v4.new_notebook(cells=[cell]))
    assert frozen.cells[0].outputs[0].data == {"text/plain": "a table"}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="drawing a figure needs Chromium")
def test_a_figure_becomes_a_picture_of_its_middle_frame_without_buttons() -> None:
    def bar(colour: str) -> dict[str, Any]:
        return {"type": "bar", "x": ["a"], "y": [1.0], "marker": {"color": colour}}

    colours = ("#ff0000", "#00ff00", "#0000ff")
    steps = [{"label": str(number), "method": "animate", "args": [[str(number)]]} for number in range(3)]
    figure = {
        "data": [bar("#ff0000")],
        "layout": {"title": {"text": "Three bars"}, "sliders": [{"steps": steps}], "paper_bgcolor": "white"},
        "frames": [{"name": str(number), "data": [bar(colour)]} for number, colour in enumerate(colours)],
    }
    cell = nbformat.v4.new_code_cell("figure")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"application/vnd.plotly.v1+json": figure})]
    data = freeze(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs[0].data
    assert sorted(data) == ["image/png", "text/plain"] and data["text/plain"] == "Figure: Three bars"
    counted = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB").getcolors(1 << 16)
    shown = {colour for _, colour in counted}
    assert (0, 255, 0) in shown and not shown & {(255, 0, 0), (0, 0, 255)}


def test_the_index_tells_what_each_tutorial_is_good_for(tmp_path: Path) -> None:
    folder = tmp_path / "tutorials"
    written = write_pages(folder)
    index = (folder / "index.md").read_text()
    assert written and {place.stem for place in written} <= set(NAMES)
    assert all(f"({place.name}): " in index for place in written)
